"""A recording's status in words, and the rates that it speaks of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from status_cases import BUSY, GAP, SILENT, status

from fxlab._html import NOTHING
from fxlab.collect import status as words
from fxlab.collect.feed import Event
from fxlab.collect.status import Rate


def cells(now, symbol="BTC_USDT"):
    found = [dict(zip(words.COLUMNS, row, strict=True)) for row in words.rows(now)]
    return next(row for row in found if row["symbol"] == symbol)


def test_a_row_has_every_number():
    assert cells(status()) == {
        "symbol": "BTC_USDT",
        "trades": "123,456",
        "trades/s": "50.0",
        "age s": "0.2",
        "last": "61,837.60",
        "bid": "61,837.50",
        "ask": "61,837.61",
        "spread": "0.11",
        "lag ms": "10.2",
        "books": "900",
        "books/s": "8.0",
        "book age s": "35.0",
        "gaps": "1",
        "resynced": "5",
        "missing": "2",
        "backfilled": "3",
        "doubles": "4",
    }


def test_what_is_not_known_is_a_dash():
    silent = cells(status(), "ETH_USDT")
    unknown = {"trades/s", "last", "bid", "ask", "spread", "lag ms", "books/s"}
    unknown |= {"age s", "book age s"}
    assert {name for name, text in silent.items() if text == NOTHING} == unknown


@pytest.mark.parametrize("state", ["completed", "aborted", "failed"])
def test_what_is_over_has_no_rate(state):
    row = cells(status(state))
    assert (row["trades/s"], row["books/s"]) == (NOTHING, NOTHING)
    assert (row["age s"], row["book age s"]) == (NOTHING, NOTHING)
    assert row["last"] == "61,837.60"


def test_prices_without_decimals_are_written_as_they_are():
    odd = replace(BUSY, price_decimals=None, last_price=0.1234567)
    assert cells(status(symbols=(odd,)))["last"] == "0.1234567"


def test_a_rate_needs_two_marks_that_are_apart():
    rate = Rate()
    rate.mark(10.0, 100)
    assert rate.value is None
    rate.mark(10.1, 1_000)
    assert rate.value is None
    rate.mark(12.0, 300)
    assert rate.value == 100.0
    rate.mark(30.0, 300)  # the others are too old
    assert rate.value is None


def test_a_silent_market_has_a_rate_of_nothing():
    rate = Rate()
    rate.mark(0.0, 7)
    rate.mark(1.0, 7)
    assert rate.value == 0.0


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("starting", "starting"),
        ("collecting", "collecting"),
        ("outage", "outage: rows wait in the journal"),
        ("stopping", "stopping: the rest is being stored"),
        ("completed", "completed"),
        ("aborted", "aborted"),
    ],
)
def test_states_in_words(state, text):
    assert words.state(status(state)) == text


def test_time_of_how_much():
    assert words.elapsed(status()) == "0:01:05"
    assert words.share(status()) is None
    timed = status(duration=600.0)
    assert words.elapsed(timed) == "0:01:05 of 0:10:00"
    assert words.share(timed) == pytest.approx(65.9 / 600)
    assert words.share(status(duration=60.0)) == 1.0


def test_totals_speak_of_errors_only_if_there_are_any():
    assert words.totals(status()) == "123,456 trades, 900 books, 1 open gap, 5 resynced"
    assert words.totals(status(errors=2, symbols=())) == (
        "0 trades, 0 books, 0 open gaps, 2 quarantined or refused"
    )


def test_totals_speak_of_channels_that_are_recorded_also_where_nothing_came():
    one = replace(BUSY, channels={"mark": 1_200, "open_interest": 0})
    two = replace(SILENT, channels={"mark": 34, "open_interest": 0})
    found = status(symbols=(one, two))
    assert found.channels == {"mark": 1_234, "open_interest": 0}
    assert words.totals(found) == (
        "123,456 trades, 900 books, 1,234 of mark, 0 of open interest, 1 open gap, 5 resynced"
    )


def test_the_backlog_and_the_room_for_it():
    assert words.backlog(status()) == "1,234 rows wait in the journal, 0.6 of 2,000 MB"


def test_clocks():
    assert words.skew(status()) == "clock +0.6 ms off that of binance"
    assert words.skew(status(skew_ms=None)) == "the clock of binance cannot be asked"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (None, ""),
        (GAP, "22:13:20 BTC_USDT: gap in trades, 3 trades missing"),
        (GAP._replace(amount=0), "22:13:20 BTC_USDT: gap in trades filled"),
        (GAP._replace(amount=None, detail="orderbook"), "22:13:20 BTC_USDT: gap in books"),
        (
            GAP._replace(amount=8, detail="orderbook"),
            "22:13:20 BTC_USDT: gap in books, 8 updates missing",
        ),
        (
            Event("reconnect", None, GAP.time, None, "code 1006"),
            "22:13:20: reconnect: code 1006",
        ),
        (Event("venue_error", None, GAP.time), "22:13:20: venue error"),
    ],
)
def test_events_as_sentences(event, text):
    assert words.newest(event) == text


def test_long_details_are_cut():
    assert len(words.newest(Event("quarantine", None, GAP.time, 1, "x" * 2_000))) < 200


@dataclass
class Kept:
    """What is said of a session."""

    id: str = "live_1"
    status: str = "completed"
    prices_count: int = 1_200
    orderbook_count: int = 30
    gaps_count: int = 1


def test_what_was_stored_and_how_to_prove_it():
    assert words.stored(Kept()) == (
        "completed: 1,200 trades and 30 books are stored in session live_1; 1 gap is open; "
        "prove it with lab.verify('live_1')"
    )
    assert "0 gaps are open" in words.stored(Kept(gaps_count=0))
