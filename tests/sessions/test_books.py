"""Books: levels, spread and mid without the dust of floating point."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab import _ticks, errors

QTY = {"bid_qty_1": 1.0, "ask_qty_1": 2.0}


def frame(pairs):
    schema = {"bid_price_1": pl.Float64, "ask_price_1": pl.Float64}
    found = pl.DataFrame(pairs, schema=schema, orient="row")
    return found.with_columns(
        timestamp=pl.int_range(pl.len()), symbol=pl.lit("X"), seq=pl.int_range(pl.len()),
        **{name: pl.lit(value) for name, value in QTY.items()},
    )  # fmt: skip


cents = st.integers(1, 10_000_000)


@given(st.lists(st.tuples(cents, cents), min_size=1, max_size=30), st.integers(0, 5))
def test_spread_and_mid_are_the_exact_decimals(pairs, decimals):
    unit = Decimal(1).scaleb(-decimals)
    exact = [(bid * unit, ask * unit) for bid, ask in pairs]
    shown = _ticks.shaped(frame([(float(b), float(a)) for b, a in exact]), 1, nested=False)
    assert shown["spread"].to_list() == [float(a - b) for b, a in exact]
    assert shown["mid"].to_list() == [float((a + b) / 2) for b, a in exact]


def test_the_dust_is_gone():
    shown = _ticks.shaped(frame([(61837.63, 61837.64)]), 1, nested=False)
    assert 61837.64 - 61837.63 != 0.01
    assert shown["spread"][0] == 0.01
    assert shown["mid"][0] == 61837.635


def test_a_book_with_an_empty_side_has_no_mid():
    shown = _ticks.shaped(frame([(1.5, None), (None, 1.5), (None, None)]), 1, nested=False)
    assert shown["spread"].null_count() == shown["mid"].null_count() == 3


def test_mid_decimals_count_the_half():
    assert _ticks.mid_decimals(frame([(1.1, 1.2)])) == 2
    assert _ticks.mid_decimals(frame([(1.1, 1.3)])) == 1
    assert _ticks.mid_decimals(frame([(1.14542, 1.14545)])) == 6
    assert _ticks.mid_decimals(frame([(2.0, 4.0)])) == 0


def test_nested_levels_are_lists_without_the_missing_ones():
    deep = frame([(10.0, 10.5), (None, 10.5)]).with_columns(
        bid_price_2=pl.Series([9.5, None]), bid_qty_2=pl.Series([3.0, None]),
        ask_price_2=pl.Series([None, 11.0]), ask_qty_2=pl.Series([None, None], dtype=pl.Float64),
    )  # fmt: skip
    shown = _ticks.shaped(deep, 2, nested=True)
    assert shown.columns == ["timestamp", "symbol", "seq", "bids", "asks", "spread", "mid"]
    assert shown["bids"].to_list() == [[[10.0, 1.0], [9.5, 3.0]], []]
    assert shown["asks"].to_list() == [[[10.5, 2.0]], [[10.5, 2.0], [11.0, None]]]
    assert shown.schema["bids"] == pl.List(pl.List(pl.Float64))


def test_nested_without_rows_has_the_same_types():
    some = _ticks.shaped(frame([(1.0, 2.0)]), 1, nested=True)
    assert _ticks.shaped(frame([]), 1, nested=True).schema == some.schema


def test_ticks_of_quotes_leave_out_what_has_no_price():
    found = _ticks.with_mid_price(frame([(1.14542, 1.14545), (None, 1.0)]), 6)
    assert found["price"].to_list() == [1.145435]
    assert found["seq"].to_list() == [0]


@pytest.mark.parametrize("bad", [0, 11, -1, 1.0, "3", True, None])
def test_a_depth_is_one_to_ten(bad):
    with pytest.raises(errors.InvalidParameter, match=r"depth=.*give 1 to 10"):
        _ticks.level_columns(bad)


def test_levels_are_those_of_the_table():
    from fxlab.schema import ORDERBOOK

    assert set(_ticks.level_columns()) < set(ORDERBOOK.columns)
    assert len(_ticks.level_columns()) == 40
