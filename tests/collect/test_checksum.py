"""One number for many rows: blind to their order, and to nothing else."""

from __future__ import annotations

import math
import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxlab.collect._live.checksum import BOOK_COLUMNS, MODULUS, SUMMED, checksum, frame_checksum
from fxlab.schema import ORDERBOOK, PRICES, UTC_MICROS

NOON = 1_735_732_800_000_000
_ALL = 2**64 - 1


def splitmix(state):
    """Return SplitMix64's next number, by Python's own integers."""
    state = (state + 0x9E3779B97F4A7C15) & _ALL
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _ALL
    return state ^ (state >> 31)


def one_by_one(columns):
    total = 0
    for row in zip(*columns, strict=True):
        state = 0
        for value in row:
            state = splitmix(state ^ (value & _ALL))
        total += state
    return total % MODULUS


def trades(rows=5):
    return pl.DataFrame(
        {
            "timestamp": pl.Series([NOON + n // 2 for n in range(rows)]).cast(UTC_MICROS),
            "seq": pl.Series(range(rows), dtype=pl.Int64),
            "price": [100.0 + n / 8 for n in range(rows)],
            "volume": [1.0 + n for n in range(rows)],
            "side": [("buy", "sell", None)[n % 3] for n in range(rows)],
            "received_at": pl.Series([NOON + 9 * n for n in range(rows)]).cast(UTC_MICROS),
        }
    )


def books(rows=3):
    levels = [
        pl.Series(
            name,
            [None if (n + place) % 7 == 0 else 1.0 + n + place / 64 for n in range(rows)],
            dtype=pl.Float64,
        )
        for place, name in enumerate(BOOK_COLUMNS[3:])
    ]
    return trades(rows).select("timestamp", "seq", "received_at").with_columns(levels)


SAMPLES = [(PRICES, trades()), (ORDERBOOK, books())]
named = pytest.mark.parametrize(("table", "frame"), SAMPLES, ids=["prices", "orderbook"])


def test_the_first_number_of_the_published_generator():
    assert splitmix(0) == 0xE220A8397B1DCDAF  # state 0; Vigna's splitmix64.c prints it first
    assert checksum([[0]]) == 0xE220A8397B1DCDAF


@given(st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 3), max_size=20))
@settings(max_examples=100, deadline=None)
def test_integers_as_the_twin_sums_them(rows):
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    assert checksum(columns) == one_by_one(columns)


def test_nothing_is_zero():
    assert checksum([]) == 0
    assert frame_checksum(PRICES, trades(0)) == 0
    assert frame_checksum(ORDERBOOK, books(0)) == 0


@named
def test_order_does_not_matter_and_parts_add_up(table, frame):
    whole = frame_checksum(table, frame)
    places = list(range(frame.height))
    for seed in range(5):
        random.Random(seed).shuffle(places)
        assert frame_checksum(table, frame[places]) == whole
    parts = frame_checksum(table, frame[:2]) + frame_checksum(table, frame[2:])
    assert parts % MODULUS == whole


@named
def test_a_lost_and_a_doubled_row_are_seen(table, frame):
    whole = frame_checksum(table, frame)
    assert frame_checksum(table, frame[1:]) != whole
    assert frame_checksum(table, pl.concat([frame, frame[:1]])) != whole
    assert frame_checksum(table, pl.concat([frame[1:], frame[-1:]])) != whole


def nudged(column, row):
    """Return a column whose value in one row is the next possible one."""
    values = column.to_physical().to_list()
    before = values[row]
    if column.dtype == pl.String:
        values[row] = {"buy": "sell", "sell": None, None: "buy"}[before]
    elif column.dtype == pl.Float64:
        values[row] = 1.0 if before is None else math.nextafter(before, math.inf)
    else:
        values[row] = before + 1
    return pl.Series(column.name, values, column.to_physical().dtype).cast(column.dtype)


@named
def test_every_column_of_every_row_matters(table, frame):
    whole = frame_checksum(table, frame)
    assert set(SUMMED[table.name]) == set(frame.columns)
    for name in frame.columns:
        for row in range(frame.height):
            changed = frame.with_columns(nudged(frame[name], row))
            assert frame_checksum(table, changed) != whole, (name, row)


@named
def test_values_that_change_places_are_seen(table, frame):
    whole = frame_checksum(table, frame)
    for name in SUMMED[table.name][1:]:
        values = frame[name].to_list()
        if values[0] != values[1]:
            values[0], values[1] = values[1], values[0]
            swapped = pl.Series(name, values, dtype=frame[name].dtype)
            assert frame_checksum(table, frame.with_columns(swapped)) != whole, name


def test_missing_is_not_zero_and_both_zeros_are_one():
    assert checksum([[math.nan]]) != checksum([[0.0]])
    assert checksum([[-0.0]]) == checksum([[0.0]])
    assert checksum([[-math.nan]]) == checksum([[math.nan]])


def test_times_before_1970_and_great_numbers_keep_their_bits():
    low = checksum([[-1], [2**63 - 1]])
    assert low == one_by_one([[-1], [2**63 - 1]])
    assert checksum([[2**53], [1]]) != checksum([[2**53 + 1], [1]])


@named
def test_the_database_gives_back_what_was_summed(db, unique, table, frame):
    """Nulls, zeros and times go through the server and are summed as they were."""
    from fxlab._questdb.sql import Scope
    from fxlab.sessions import _reader

    name = unique()
    rows = frame.with_columns(session_id=pl.lit(name), symbol=pl.lit("A"), origin=pl.lit("live"))
    blank = pl.DataFrame(schema=table.frame)
    if table is ORDERBOOK:
        rows = rows.with_columns(is_snapshot=pl.lit(value=False))
    db.write(table, pl.concat([blank, rows], how="diagonal"))
    db.wait_visible(table)
    chunks = list(_reader.scan(db, Scope(table, name, "A"), list(SUMMED[table.name])))
    assert sum(chunk.height for chunk in chunks) == frame.height
    total = sum(frame_checksum(table, chunk) for chunk in chunks) % MODULUS
    assert total == frame_checksum(table, frame)
