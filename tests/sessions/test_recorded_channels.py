"""Funding, as a recording knows it: what was charged, else the rate that was in force."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl

from fxlab import schema
from fxlab.sessions._replay_source import merge_funding

EIGHT = datetime(2026, 1, 1, 8, tzinfo=UTC)
SIXTEEN = EIGHT + timedelta(hours=8)
END = int((SIXTEEN + timedelta(minutes=1)).timestamp() * 1e6)


def marks(*rows):
    """Return mark prices: seconds before or after eight, rate, time of the next funding."""
    table = schema.CHANNELS["mark"]
    values = [
        {
            "timestamp": EIGHT + timedelta(seconds=seconds),
            "symbol": "BTC_USDT",
            "mark_price": 100.0 + seconds,
            "funding_rate": rate,
            "next_funding": due,
        }
        for seconds, rate, due in rows
    ]
    return pl.DataFrame(values, schema={**table.frame})


def charged(*rows):
    """Return what was charged: milliseconds after eight, rate."""
    values = [
        {
            "timestamp": EIGHT + timedelta(milliseconds=late),
            "symbol": "BTC_USDT",
            "rate": rate,
            "mark_price": 99.5,
        }
        for late, rate in rows
    ]
    return pl.DataFrame(values, schema=schema.CHANNELS["funding"].frame)


ANNOUNCED = (
    marks((-2, 1e-4, EIGHT), (-1, 2e-4, EIGHT)),
    marks((0, 9e-4, EIGHT), (1, None, SIXTEEN), (2, -3e-4, SIXTEEN)),
)


def test_the_rate_in_force_is_the_last_one_before_its_time():
    found = merge_funding("BTC_USDT", ANNOUNCED, [], END)
    assert found["timestamp"].to_list() == [EIGHT, SIXTEEN]
    assert found["rate"].to_list() == [2e-4, -3e-4]
    assert found["paid"].to_list() == [False, False]
    assert found["announced_at"][0] == EIGHT - timedelta(seconds=1)
    assert found["mark_price"].to_list() == [99.0, 102.0]


def test_what_was_charged_stands_for_what_was_announced_though_some_milliseconds_late():
    found = merge_funding("BTC_USDT", ANNOUNCED, [charged((3, 2.5e-4))], END)
    assert found["rate"].to_list() == [2.5e-4, -3e-4]
    assert found["paid"].to_list() == [True, False]
    assert found["timestamp"][0] == EIGHT + timedelta(milliseconds=3)
    assert found["announced_at"][0] is None


def test_a_funding_after_the_recording_is_not_due():
    end = int(SIXTEEN.timestamp() * 1e6)
    assert merge_funding("BTC_USDT", ANNOUNCED, [], end)["timestamp"].to_list() == [EIGHT]
    assert merge_funding("BTC_USDT", [], [], end).is_empty()
