"""Trades between venue and journal: checked, once each, numbered."""

from __future__ import annotations

import json
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxlab.collect._live.trades import EARLIEST_US, LATEST_US, IdRanges, TradeDeduplicator
from fxlab.collect.feed import Trade

NOON = 1_735_732_800_000_000
GOOD = Trade("BTC_USDT", 7, "buy", 100.5, 2.0, NOON, NOON + 5)


def counted():
    return TradeDeduplicator(IdRanges())


def plain():
    return TradeDeduplicator(None)


@pytest.mark.parametrize("track", [counted, plain])
@pytest.mark.parametrize(
    "change",
    [
        {"price": math.nan},
        {"price": math.inf},
        {"price": -math.inf},
        {"price": 0.0},
        {"price": -1.0},
        {"price": "100"},
        {"price": None},
        {"price": True},
        {"price": Decimal(100)},
        {"price": 10**400},
        {"volume": math.nan},
        {"volume": math.inf},
        {"volume": -0.1},
        {"volume": None},
        {"time": EARLIEST_US - 1},
        {"time": LATEST_US},
        {"time": None},
        {"time": float(NOON)},
        {"time": "now"},
        {"received": None},
        {"received": -1},
        {"received": math.nan},
        {"side": "b"},
        {"side": "BUY"},
        {"side": ["buy"]},
        {"id": 2**63},
        {"id": -1},
        {"id": 7.0},
        {"id": True},
        {"id": b"7"},
        {"id": "7\x00"},
        {"id": "\ud800"},
        {"id": "7" * 10_000},
    ],
    ids=lambda change: repr(change)[:40],
)
def test_what_is_no_trade_is_refused_and_the_others_are_kept(track, change):
    bad = GOOD._replace(**change)
    before, after = GOOD._replace(id=6), GOOD._replace(id=8)
    found = track().take([before, bad, after])
    assert found.trades == [before, after]
    assert found.seqs == [6, 8]
    assert len(found.refused) == 1
    assert found.refused[0][0] is bad
    assert found.refused[0][1]


def test_the_first_id_may_be_anything_but_it_is_checked_too():
    track = counted()
    assert track.take([GOOD._replace(id=7.0)]).trades == []
    track.take([GOOD])
    assert track.take([GOOD._replace(id=8.0)]).trades == [], "it continues the ids, and is no id"


@pytest.mark.parametrize("track", [counted, plain])
def test_numbers_of_other_types_are_stored_as_the_database_has_them(track):
    whole = GOOD._replace(
        id=np.int64(7), price=100, volume=np.float32(0.5), time=np.int64(NOON), received=NOON
    )
    found = track().take([whole])
    assert found.trades == [GOOD._replace(price=100.0, volume=0.5, received=NOON)]
    assert found.seqs == [7]
    one = found.trades[0]
    kinds = [type(value) for value in (one.id, one.price, one.volume, one.time)]
    assert kinds == [int, float, float, int]


def test_volume_zero_and_the_ends_of_the_years_are_allowed():
    edge = [
        GOOD._replace(id=1, volume=0.0),
        GOOD._replace(id=2, time=EARLIEST_US),
        GOOD._replace(id=3, time=LATEST_US - 1, side=None),
    ]
    assert counted().take(edge).trades == edge


def test_counted_trades_take_their_id_as_seq_and_doubles_are_counted():
    track = counted()
    trades = [GOOD._replace(id=one) for one in (5, 6, 6, 9, 5, 7)]
    found = track.take(trades)
    assert found.seqs == [5, 6, 9, 7]
    assert track.doubles == 2
    assert [(hole.first, hole.last) for hole in track.ids.settled(NOON + 5)] == [(8, 8)]


@pytest.mark.parametrize("identity", ["7", None])
def test_counted_trades_without_a_number_are_refused(identity):
    found = counted().take([GOOD._replace(id=identity)])
    assert found.trades == []
    assert "not a whole number" in found.refused[0][1]


def test_the_same_id_with_another_time_is_refused_by_name():
    track = counted()
    track.take([GOOD, GOOD._replace(id=8)])
    found = track.take([GOOD._replace(time=NOON + 1)])
    assert found.trades == []
    assert "id 7 came before with another time" in found.refused[0][1]
    assert track.doubles == 0


def test_a_new_count_is_told():
    track = counted()
    track.take([GOOD])
    first = GOOD._replace(id=1, time=NOON + 1)
    found = track.take([first])
    assert (found.trades, found.restarted) == ([first], [first])


def test_text_ids_and_none_are_numbered_by_their_order():
    track = plain()
    trades = [GOOD._replace(id=one) for one in ("a", "b", "a", None, None)]
    found = track.take(trades)
    assert [trade.id for trade in found.trades] == ["a", "b", None, None]
    assert found.seqs == [1, 2, 3, 4]
    assert track.doubles == 1
    again = track.take([GOOD._replace(id="a", time=NOON + 1)])
    assert again.seqs == [5], "another time is another trade where ids need not be unique"


def test_what_is_written_down_is_gone_on_with():
    track = plain()
    track.take([GOOD._replace(id=None)] * 3)
    later = TradeDeduplicator.from_json(json.loads(json.dumps(track.to_json())))
    assert later.take([GOOD._replace(id=None)]).seqs == [4]

    track = counted()
    track.take([GOOD, GOOD])
    later = TradeDeduplicator.from_json(json.loads(json.dumps(track.to_json())))
    assert later.take([GOOD]).trades == []
    assert later.doubles == 2


@given(st.lists(st.lists(st.integers(0, 12), max_size=6), max_size=8))
@settings(max_examples=100, deadline=None)
def test_batches_change_nothing(batches):
    together, apart = counted(), counted()
    trades = [[GOOD._replace(id=one, time=NOON + one) for one in some] for some in batches]
    flat = [trade for some in trades for trade in some]
    whole = together.take(flat)
    seqs = [seq for some in trades for seq in apart.take(some).seqs]
    assert seqs == whole.seqs == list(dict.fromkeys(trade.id for trade in flat))
    assert together.to_json() == apart.to_json()
    assert together.doubles == len(flat) - len(seqs)
