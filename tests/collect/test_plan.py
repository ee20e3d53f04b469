"""What a recording is asked to do: words in, microseconds and sentences out."""

from __future__ import annotations

import re

import pytest

from fxlab.collect._config import Plan, new_session_id
from fxlab.errors import InvalidInput, InvalidParameter


def test_words_become_microseconds():
    plan = Plan.of("v", "btc_usdt", duration="10m", book_every="1s", settle="250ms", tags=["a"])
    assert (plan.duration, plan.book_every, plan.settle) == (600_000_000, 1_000_000, 250_000)
    assert (plan.symbols, plan.tags) == (("BTC_USDT",), ("a",))
    assert plan.data_types == ["prices", "orderbook"]


def test_without_words_it_records_all_until_it_is_stopped():
    plan = Plan.of("v", ["B", "A", "b"])
    assert plan.symbols == ("B", "A")
    assert (plan.duration, plan.book_depth, plan.trades, plan.backfill) == (None, 10, True, True)
    assert (plan.settle, plan.book_every, plan.resume) == (6_000_000, 0, False)
    assert plan.options() == {
        "trades": True, "book_depth": 10, "book_every_us": 0, "backfill": True,
    }  # fmt: skip
    assert re.fullmatch(r"live_\d{8}_\d{6}_[0-9a-f]{8}", plan.session_id)
    assert new_session_id() != new_session_id()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"symbols": []}, "no symbol was given"),
        ({"symbols": ["A B"]}, "'A B' is not a symbol"),
        ({"session_id": "a/b"}, "'a/b' is not a session id"),
        ({"tags": "night"}, r"tags='night' is no list of texts"),
        ({"tags": None}, "tags=None is no list of texts"),
        ({"book_depth": 11}, "book_depth=11"),
        ({"book_depth": -1}, "book_depth=-1"),
        ({"book_depth": True}, "book_depth=True"),
        ({"book_depth": 2.0}, "book_depth=2.0"),
        ({"trades": False, "book_depth": 0}, "leave nothing to record"),
        ({"duration": 0}, "duration is 0"),
        ({"duration": "-5s"}, "duration"),
        ({"settle": "x"}, "settle"),
        ({"book_every": -1}, "book_every"),
        ({"interval": 0}, "interval=0 us"),
        ({"interval": 100_001}, "interval=100001 us"),
        ({"journal_limit": 999_999}, "journal_limit=999999"),
    ],
    ids=repr,
)
def test_what_cannot_be_done_is_said_with_its_value(options, words):
    options = {"symbols": "A"} | options
    with pytest.raises(InvalidInput, match=words):
        Plan.of("v", options.pop("symbols"), **options)


def test_going_on_needs_to_say_with_what():
    with pytest.raises(InvalidParameter, match="needs the session_id"):
        Plan.of("v", "A", resume=True)
    assert Plan.of("v", "A", resume=True, session_id="one").resume


def test_a_misspelt_option_is_named_with_the_one_that_is_near():
    with pytest.raises(InvalidParameter, match="no 'book_dept'; did you mean 'book_depth'"):
        Plan.of("binance", "BTC_USDT", book_dept=5)
