"""Exact rolling values against plain arithmetic; bars and other symbols inside expressions."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import START, random_walk

import fxlab
from fxlab import errors, indicators
from fxlab.backtester._source import with_price_ticks

ticks = st.lists(st.integers(6_000_000, 6_000_003), min_size=1, max_size=80)


def frame_of(values):
    return pl.DataFrame({"price_ticks": values})


def cross_targets(values, fast, slow):
    """Return the contract's targets by direct sums of integers, row by row."""
    targets, before = [], None
    for i in range(len(values)):
        if i < slow - 1:
            targets.append(None)
            continue
        sum_fast, sum_slow = sum(values[i - fast + 1 : i + 1]), sum(values[i - slow + 1 : i + 1])
        now = sum_fast * slow - sum_slow * fast
        golden = before is not None and before <= 0 < now
        death = before is not None and before >= 0 > now
        targets.append(1.0 if golden else 0.0 if death else None)
        before = now
    return targets


@settings(max_examples=100, deadline=None)
@given(values=ticks, window=st.integers(1, 12))
def test_rolling_values_are_exact(values, window):
    frame = frame_of(values)
    for indicator, plain in (
        (indicators.rolling_sum(window), sum),
        (indicators.rolling_max(window), max),
        (indicators.rolling_min(window), min),
    ):
        got = frame.select(indicator).to_series()
        assert got.dtype == pl.Int64
        assert got.to_list() == [
            None if i < window - 1 else plain(values[i - window + 1 : i + 1])
            for i in range(len(values))
        ]


@settings(max_examples=200, deadline=None)
@given(values=ticks, fast=st.integers(1, 6), extra=st.integers(1, 8))
def test_mean_cross_is_the_contract(values, fast, extra):
    cross = indicators.mean_cross(fast, fast + extra, golden=1.0, death=0.0)
    got = frame_of(values).select(cross).to_series().to_list()
    assert got == cross_targets(values, fast, fast + extra)


@settings(max_examples=200, deadline=None)
@given(
    values=ticks,
    fast=st.integers(1, 6),
    extra=st.integers(1, 8),
    first=st.integers(0, 90),
    begin=st.integers(0, 40),
)
def test_events_are_the_crosses_from_a_row_on(values, fast, extra, first, begin):
    slow = fast + extra
    plain = cross_targets(values, fast, slow)
    frame = frame_of(values)
    # A slice with as many rows in front as the strategy looks back on.
    begin = min(begin, max(0, first - slow))
    rows, targets = indicators.MeanCross(fast, slow, 1.0, 0.0).find(frame[begin:], first - begin)
    wanted = {i: v for i, v in enumerate(plain) if v is not None and i >= first}
    assert dict(zip((rows + begin).tolist(), targets.tolist(), strict=True)) == wanted


@settings(max_examples=200, deadline=None)
@given(values=ticks, entry=st.integers(1, 70), leave=st.integers(1, 70), first=st.integers(0, 90))
def test_breaks_are_the_rows_beyond_the_extremes_before_them(values, entry, leave, first):
    rows, targets = indicators.ChannelBreak(entry, leave).find(frame_of(values), first)
    after = range(first, len(values))
    rises = {i: 1.0 for i in after if i >= entry and values[i] > max(values[i - entry : i])}
    falls = {i: 0.0 for i in after if i >= leave and values[i] < min(values[i - leave : i])}
    wanted = dict(sorted((rises | falls).items()))
    assert dict(zip(rows.tolist(), targets.tolist(), strict=True)) == wanted
    ups = indicators.ChannelBreak(entry, None).find(frame_of(values), first)[0]
    assert ups.tolist() == [i for i, target in wanted.items() if target == 1.0]


@pytest.mark.parametrize("kind", [pl.Int32, pl.UInt32, pl.UInt64])
def test_crosses_of_any_integers_are_those_of_int64(kind):
    frame = frame_of([5, 6, 7, 3, 2, 1, 9, 8, 7, 1, 2, 3, 9])
    cross = indicators.MeanCross(2, 4)
    plain, other = (cross.find(one, 0) for one in (frame, frame.cast({"price_ticks": kind})))
    assert len(plain[0]) > 2
    assert [found.tolist() for found in other] == [found.tolist() for found in plain]


def test_windows_whose_sums_would_overflow_are_refused():
    frame = frame_of([6_000_000_000_000_000] * 4)
    with pytest.raises(errors.InvalidParameter, match="64-bit"):
        frame.select(indicators.mean_cross(1_000_000, 2_000_000))


def test_windows_are_rows():
    for indicator in (indicators.rolling_max, indicators.rolling_min):
        with pytest.raises(errors.InvalidParameter, match="give 1 or more"):
            indicator(0)


def test_ema_is_the_recursion():
    values = [3.0, 5.0, 4.0, 4.5]
    mean, plain = values[0], []
    for value in values:
        mean += 2 / (5 + 1) * (value - mean)
        plain.append(mean)
    got = pl.DataFrame({"price": values}).select(indicators.ema(5)).to_series()
    assert got.to_list() == plain


def test_the_anchored_vwap_starts_anew():
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series([0, 1, 2, 60, 61]) * 60_000_000 + START,
            "price": [10.0, 20.0, 30.0, 7.0, 8.0],
            "volume": [None, 1.0, 3.0, 0.0, 2.0],
        }
    ).with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
    got = frame.select(indicators.anchored_vwap("1h")).to_series().to_list()
    assert got == [None, 20.0, 27.5, None, 8.0]


def test_values_named_once_are_computed_once():
    calls = []

    def seen(series: pl.Series) -> pl.Series:
        calls.append(1)
        return series * 2

    double = pl.col("price_ticks").map_batches(seen, return_dtype=pl.Int64)
    x = pl.field("x")
    got = frame_of([1, 2, 3]).select(indicators.once((x > 2) & (x.shift(1) < 4), x=double))
    assert got.to_series().to_list() == [False, True, False]
    assert len(calls) == 1
    assert indicators.once(x > 2, x=double).meta.root_names() == ["price_ticks"]


def bars_frame():
    """Return ticks in seconds 0, 0, 4 | 5, 9 | (none) | 15, 19 | 20 of bars of five seconds."""
    seconds = [0, 0, 4, 5, 9, 15, 19, 20]
    prices = [10.0, 12.0, 11.0, 20.0, 19.0, 30.0, 33.0, 40.0]
    time = pl.Series([s * 1_000_000 + START for s in seconds]).cast(pl.Datetime("us", "UTC"))
    return with_price_ticks(
        pl.DataFrame({"timestamp": time, "price": prices, "volume": [1.0] * 8}), 0
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pl.col("close"), [None, None, None, 11.0, 11.0, 19.0, 19.0, 33.0]),
        (pl.col("open_ticks"), [None, None, None, 10, 10, 20, 20, 30]),
        (pl.col("high") - pl.col("low"), [None, None, None, 2.0, 2.0, 1.0, 1.0, 3.0]),
        (pl.col("trades"), [None, None, None, 3, 3, 2, 2, 2]),
        (pl.col("close").shift(1), [None, None, None, None, None, 11.0, 11.0, 19.0]),
        (pl.col("vwap"), [None, None, None, 11.0, 11.0, 19.5, 19.5, 31.5]),
        (pl.lit(7), [None, None, None, 7, 7, 7, 7, 7]),
    ],
)
def test_a_tick_sees_the_last_bar_that_had_ended(value, expected):
    got = bars_frame().select(x=indicators.on_bars("5s", value))["x"]
    assert got.to_list() == expected


def test_bars_of_two_lengths_meet_in_one_expression():
    slow = indicators.on_bars("10s", pl.col("close"))
    fast = indicators.on_bars("5s", pl.col("close"))
    got = bars_frame().select(x=fast - slow)["x"].to_list()
    assert got == [None, None, None, None, None, 0.0, 0.0, 0.0]


def test_bars_reach_only_for_the_columns_they_need():
    bare = random_walk(50).select("timestamp", "price")
    assert bare.select(indicators.on_bars("1s", pl.col("close"))).height == 50
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        bare.select(indicators.on_bars("1s", pl.col("volume")))
    with pytest.raises(errors.InvalidParameter, match="above zero"):
        indicators.on_bars("0s", pl.col("close"))


def test_another_symbols_price_is_a_column():
    assert indicators.price_of("ETH_USDT").meta.root_names() == ["price:ETH_USDT"]


LARGEST = 2**63 - 1


@pytest.mark.parametrize("window", [1, 2, 3, 7])
@pytest.mark.parametrize("sign", [1, -1])
def test_integer_indicators_are_exact_up_to_their_limit_and_refuse_beyond_it(window, sign):
    """Each at the largest values it takes, and at the next: a wrapped sum is never given."""
    sums, cross = (
        indicators.rolling_sum(window),
        indicators.mean_cross(window, window + 1, death=0.0),
    )
    means = indicators.rolling_mean_ticks(window)
    for indicator, fits in (
        (sums, LARGEST // window),
        (means, LARGEST // window),
        (cross, LARGEST // (2 * window * (window + 1))),
    ):
        values = [sign * fits, sign * (fits - 1)] * 10
        got = frame_of(values).select(indicator).to_series().to_list()
        if indicator is sums:
            assert got[window - 1 :] == [
                sum(values[i - window + 1 : i + 1]) for i in range(window - 1, 20)
            ]
        if indicator is cross:
            assert got == cross_targets(values, window, window + 1)
        if fits < LARGEST:
            with pytest.raises(errors.InvalidParameter, match="do not fit 64-bit integers"):
                frame_of([*values, sign * (fits + 1)]).select(indicator)
    for indicator, plain in (
        (indicators.rolling_max(window), max),
        (indicators.rolling_min(window), min),
    ):
        values = [LARGEST, -LARGEST - 1, 0, LARGEST - 1, -LARGEST] * 4
        got = frame_of(values).select(indicator).to_series().to_list()
        assert got[window - 1 :] == [
            plain(values[i - window + 1 : i + 1]) for i in range(window - 1, 20)
        ]


def test_sums_of_smaller_integers_fit_their_own_type():
    frame = pl.DataFrame({"n": pl.Series([2**30] * 4, dtype=pl.Int32)})
    assert frame.select(indicators.rolling_sum(1, "n"))["n"].to_list() == [2**30] * 4
    with pytest.raises(errors.InvalidParameter, match="do not fit 32-bit integers"):
        frame.select(indicators.rolling_sum(2, "n"))


def test_a_constant_price_is_never_bought_for_being_below_its_average():
    price = pl.Series([99_999.12345678] * 300)
    times = pl.Series([START + row for row in range(300)]).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"timestamp": times, "price": price})
    with pytest.raises(errors.InvalidParameter, match="window of 1,000,000 over values of up to"):
        fxlab.backtest(frame, "mean_reversion", {"window": 1_000_000})
    fits = (2**63 - 1) // 9_999_912_345_678
    for window in (200, min(fits, 250)):
        assert not fxlab.backtest(frame, "mean_reversion", {"window": window}).fills.height
