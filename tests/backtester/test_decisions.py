"""Signals become decisions: which rows, which values, and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import SMALL, START, random_walk

import fxlab
from fxlab import errors
from fxlab.backtester._source import with_price_ticks
from fxlab.backtester.strategy._decisions import decide
from fxlab.backtester.strategy.signals import Signals
from fxlab.backtester.strategy.strategy import get

SECOND = 1_000_000
TARGETS = st.sampled_from([None, None, -1.0, 0.0, 0.5, 1.0])


def ticks(seconds, prices=None, **columns):
    """Return ticks at seconds after the start."""
    time = pl.Series([int(s * SECOND) + START for s in seconds], dtype=pl.Int64)
    prices = [100.0 + i for i in range(len(seconds))] if prices is None else prices
    frame = pl.DataFrame(
        {"timestamp": time.cast(pl.Datetime("us", "UTC")), "price": prices, **columns}
    )
    return with_price_ticks(frame.with_row_index("seq").with_columns(pl.col("seq").cast(int)), 2)


def wanting(targets, **columns):
    return ticks(range(len(targets)), wanted=pl.Series(targets, dtype=pl.Float64), **columns)


WANTED = pl.col("wanted")


def rows_and_targets(decisions):
    return list(zip(decisions["row"].tolist(), decisions["target"].tolist(), strict=True))


def test_decisions_are_the_rows_with_a_new_target():
    frame = wanting([None, 1.0, 1.0, None, 1.0, 0.0, None, 0.0, -0.5])
    decisions = decide(Signals(target=WANTED), "X", frame)
    assert rows_and_targets(decisions) == [(1, 1.0), (5, 0.0), (8, -0.5)]
    for name in ("stop_loss", "take_profit", "trailing_stop", "limit"):
        assert np.isnan(decisions[name]).all()


@pytest.mark.parametrize("more", [{"reentry": "signal"}, {"cooldown": "1s"}])
def test_repeats_stay_where_they_may_be_news_later(more):
    frame = wanting([None, 1.0, 1.0, None, 0.0, 0.0])
    decisions = decide(Signals(target=WANTED, **more), "X", frame)
    assert rows_and_targets(decisions) == [(1, 1.0), (2, 1.0), (4, 0.0), (5, 0.0)]


def test_constants_decide_once_or_everywhere():
    frame = ticks(range(4))
    once = decide(Signals(target=pl.lit(0.5)), "X", frame)
    always = decide(Signals(target=pl.lit(0.5), reentry="signal"), "X", frame, first=1)
    assert rows_and_targets(once) == [(0, 0.5)]
    assert rows_and_targets(always) == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert not len(decide(Signals(target=pl.lit(None)), "X", frame))


def test_conditions_and_whole_numbers_are_targets_too():
    frame = ticks(range(4))
    rises = decide(Signals(target=pl.col("price") > 101.5), "X", frame)
    assert rows_and_targets(rises) == [(0, 0.0), (2, 1.0)]
    whole = decide(Signals(target=pl.col("seq") % 2), "X", frame, max_leverage=1)
    assert rows_and_targets(whole) == [(0, 0.0), (1, 1.0), (2, 0.0), (3, 1.0)]


def test_exits_and_limits_are_read_at_the_decisions_only():
    frame = wanting(
        [None, 1.0, None, 0.0], stop=[-1.0, 0.02, np.nan, None], at=[0.0, 99.5, np.inf, None]
    )
    signals = Signals(target=WANTED, stop_loss=pl.col("stop"), take_profit=0.05, limit=pl.col("at"))
    first, second = decide(signals, "X", frame)
    assert list(first)[:4] == [1, 1.0, 0.02, 0.05]
    assert (first["limit"], second["take_profit"]) == (99.5, 0.05)
    assert np.isnan([first["trailing_stop"], second["stop_loss"], second["limit"]]).all()


def test_no_decision_in_the_warm_up_wherever_the_frame_begins():
    frame = wanting([1.0, 0.0] * 5)
    signals = Signals(target=WANTED, warmup=4)
    assert decide(signals, "X", frame)["row"].tolist() == [4, 5, 6, 7, 8, 9]
    assert decide(signals, "X", frame, first=2, seen=2)["row"].tolist() == [2, 3, 4, 5, 6, 7]
    assert decide(signals, "X", frame, first=2, seen=3)["row"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert decide(signals, "X", frame, first=8, seen=80)["row"].tolist() == [0, 1]


@settings(max_examples=150, deadline=None)
@given(
    wanted=st.lists(TARGETS, max_size=40),
    size=st.integers(1, 9),
    lookback=st.integers(0, 5),
    warmup=st.integers(0, 12),
    reentry=st.sampled_from(["change", "signal"]),
)
def test_pieces_make_the_whole(wanted, size, lookback, warmup, reentry):
    frame = wanting(wanted)
    signals = Signals(
        target=pl.when(pl.col("price") > pl.col("price").shift(lookback)).then(WANTED),
        lookback=lookback,
        warmup=warmup,
        reentry=reentry,
    )
    whole = decide(signals, "X", frame)
    found = []
    for place in range(0, frame.height, size):
        begin = max(0, place - lookback)
        piece = frame[begin : place + size]
        part = decide(signals, "X", piece, first=place - begin, seen=place)
        part["row"] += place
        found.append(part)
    pieces = np.concatenate([whole[:0], *found])
    if reentry == "change":  # each piece begins with its first target, a repeat or not
        news = np.concatenate([[True], pieces["target"][1:] != pieces["target"][:-1]])
        pieces = pieces[news[: len(pieces)]]
    assert pieces.tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_frame_without_rows_decides_nothing(name):
    frame = ticks([])
    assert len(decide(get(name).signals(SMALL[name]), "X", frame)) == 0


# ---- bars ----------------------------------------------------------------------------------


def test_a_bar_is_known_at_the_first_tick_at_or_after_its_end():
    # Bars of 5 s: [0, 5) has rows 0-2, [5, 10) rows 3-4, [10, 15) none, [15, 20) row 5, [20, 25)
    # row 6, which has not ended.
    frame = ticks([0, 1, 4.999999, 5, 9, 15, 20], [10.0, 12.0, 11.0, 13.0, 9.0, 20.0, 30.0])
    signals = Signals(target=pl.col("close") / 100, every="5s", take_profit=pl.col("high") / 100)
    decisions = decide(signals, "X", frame)
    assert rows_and_targets(decisions) == [(3, 0.11), (5, 0.09), (6, 0.2)]
    assert decisions["take_profit"].tolist() == [0.12, 0.13, 0.2]


def test_bars_know_only_intervals_with_ticks():
    frame = ticks([0, 5, 30, 35], [10.0, 20.0, 30.0, 40.0])
    before = Signals(target=pl.col("close").shift(1) / 100, every="5s")
    assert rows_and_targets(decide(before, "X", frame)) == [(2, 0.1), (3, 0.2)]


def test_columns_of_bars_are_computed_by_hand():
    frame = ticks(
        [0, 1, 2, 6],
        [10.0, 12.0, 11.0, 50.0],
        volume=[1.0, None, 3.0, 1.0],
        quote_volume=pl.Series([None] * 4, dtype=pl.Float64),
        bid_qty_1=[1.0, 2.0, 7.0, 9.0],
    )
    seen = []

    def look(bars):
        seen.append(bars)
        return bars.with_columns(target=pl.lit(0.0))

    decide(Signals.from_frame(look, every="5s"), "X", frame)
    bar = seen[0].row(0, named=True)
    time = bar.pop("timestamp")
    assert int(time.timestamp()) * SECOND == START
    assert bar == {
        "open": 10.0, "high": 12.0, "low": 10.0, "close": 11.0,
        "open_ticks": 1000, "high_ticks": 1200, "low_ticks": 1000, "close_ticks": 1100,
        "volume": 4.0, "quote_volume": None, "vwap": 43.0 / 4, "trades": 3,
        "seq": 2, "bid_qty_1": 7.0,
    }  # fmt: skip


def test_the_warm_up_of_bars_counts_bars():
    frame = ticks([0, 1, 5, 10, 15, 20])
    signals = Signals(target=pl.col("trades").cast(float) / 10, every="5s", warmup=1)
    assert decide(signals, "X", frame)["row"].tolist() == [3]
    assert decide(Signals(target=pl.col("close") / 1e3, every="5s", warmup=3), "X", frame)[
        "row"
    ].tolist() == [5]


def test_bars_have_no_price_of_a_tick():
    with pytest.raises(errors.InvalidParameter, match=r"bars of 5s do not have; .*close"):
        decide(Signals(target=pl.col("price"), every="5s"), "X", ticks(range(9)))


# ---- frames --------------------------------------------------------------------------------


def test_a_frame_strategy_gives_columns():
    def rises(ticks: pl.DataFrame, *, by: float = 1.5) -> pl.DataFrame:
        """Do it in any Python."""
        prices = ticks["price"].to_list()
        wanted = [1.0 if price > 100 + by else None for price in prices]
        return pl.DataFrame({"target": wanted, "stop_loss": [by / 10] * len(prices), "other": "x"})

    signals = get(rises).signals({"by": 0.5})
    assert (signals.roots, signals.lookback) == (None, None)
    decisions = decide(signals, "X", ticks(range(4)))
    assert rows_and_targets(decisions) == [(1, 1.0)]
    assert decisions["stop_loss"].tolist() == [0.05]


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "returned NoneType, not a frame"),
        (pl.Series([1.0] * 5), "returned Series, not a frame"),
        (pl.LazyFrame({"target": [1.0] * 5}), "returned LazyFrame, not a frame"),
        (pl.DataFrame({"target": [1.0]}), "returned 1 rows for 5 rows"),
        (pl.DataFrame({"tagret": [1.0] * 5}), "no column 'target'; it has: tagret"),
        (pl.DataFrame({"target": ["up"] * 5}), "is String, not a number"),
    ],
)
def test_what_is_no_frame_of_targets_is_refused(returned, words):
    def foreign(ticks):
        return returned

    with pytest.raises(errors.InvalidParameter, match=words) as raised:
        decide(get(foreign).signals(), "X", ticks(range(5)))
    assert "foreign" in str(raised.value)


# ---- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("signals", "words"),
    [
        (Signals(target=WANTED / 0 * 0), r"row 2 .*is NaN; use null"),
        (Signals(target=WANTED / 0), r"row 2 .*is infinite"),
        (Signals(target=WANTED * 3), r"3, which is beyond max_leverage=2"),
        (Signals(target=WANTED, stop_loss=pl.lit(0.0)), r"stop_loss of .* in row 2 .*is 0;"),
        (Signals(target=WANTED, stop_loss=WANTED), "100 % away"),
        (Signals(target=WANTED, trailing_stop=pl.lit(5.0)), "0.01 is 1 %"),
        (Signals(target=WANTED, take_profit=pl.lit(np.nan)), "take_profit of .* is nan"),
        (Signals(target=WANTED, limit=-WANTED), "limit of .* prices are above zero"),
        (Signals(target=WANTED, limit=pl.lit("cheap")), "is String, not a number"),
        (Signals(target=pl.lit("long")), "column 'target' of .* is String"),
        (Signals(target=WANTED.drop_nulls()), "has 1 values for 4 rows|2 values for 4 rows"),
        (Signals(target=pl.col("bid_qty_1")), "asks for 'bid_qty_1', which the ticks do not"),
    ],
)
def test_values_that_are_none_are_refused(signals, words):
    frame = wanting([None, None, 1.0, 1.0])
    with pytest.raises(errors.InvalidParameter, match=words):
        decide(signals, "X", frame, max_leverage=2.0)


def test_rows_in_errors_are_those_of_the_run():
    frame = wanting([1.0, 0.0, 9.0])
    with pytest.raises(errors.InvalidParameter, match=r"row 1,001 \(2025-01-01 00:00:02.000000"):
        decide(Signals(target=WANTED), "X", frame, first=1, seen=1_000, max_leverage=1.0)


def test_bad_values_of_the_warm_up_are_no_matter():
    frame = wanting([np.nan, 1.0])
    assert len(decide(Signals(target=WANTED, warmup=1), "X", frame)) == 1


def test_prices_on_no_grid_have_no_ticks():
    frame = random_walk(20).with_columns(pl.col("price") * np.pi)
    with pytest.raises(errors.InvalidParameter, match="no decimal grid"):
        decide(get("sma_cross").signals({"fast": 1, "slow": 2}), "X", frame)


def test_a_strategy_that_raises_is_named_with_its_parameters():
    def when_called(*, window: int = 5) -> fxlab.Signals:
        raise ZeroDivisionError("of all things")

    def when_read(*, window: int = 5) -> fxlab.Signals:
        def broken(series: pl.Series) -> pl.Series:
            raise KeyError("nothing here")

        return Signals(target=pl.col("price").map_batches(broken, return_dtype=pl.Float64))

    def on_frames(ticks: pl.DataFrame, *, window: int = 5) -> pl.DataFrame:
        return ticks.select(target=pl.col("nowhere"))

    with pytest.raises(errors.StrategyFailed, match=r"'when_called' \(window=9\) raised Zero"):
        get(when_called).signals({"window": 9})
    with pytest.raises(errors.StrategyFailed, match=r"X: strategy 'when_read' \(window=5\)") as one:
        decide(get(when_read).signals(), "X", ticks(range(3)))
    assert isinstance(one.value.__cause__, KeyError)
    with pytest.raises(errors.StrategyFailed, match=r"raised ColumnNotFoundError: .*nowhere"):
        decide(get(on_frames).signals(), "X", ticks(range(3)))
