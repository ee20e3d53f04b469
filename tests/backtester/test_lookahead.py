"""Planted leaks are found, honest strategies pass."""

from __future__ import annotations

import inspect

import polars as pl
import pytest
from markets import SMALL, random_walk

import fxlab
from fxlab import indicators
from fxlab.errors import Cancelled, EmptySession, InvalidParameter, LookaheadFound

PRICE = pl.col("price")


def follow(condition: pl.Expr, *, lookback: int | None = None) -> fxlab.Signals:
    return fxlab.Signals(
        target=pl.when(condition).then(1.0).when(~condition).then(0.0), lookback=lookback
    )


LEAKS = {
    "next row": lambda: follow(PRICE.shift(-1) > PRICE),
    "far row": lambda: follow(PRICE.shift(-50) > PRICE),
    "rare peek": lambda: fxlab.Signals(
        target=pl.when((PRICE.shift(-1) > PRICE) & (pl.col("seq") % 97 == 0)).then(1.0)
    ),
    "centred window": lambda: follow(PRICE.rolling_mean(9, center=True) < PRICE),
    "whole column": lambda: follow(PRICE.mean() < PRICE),
    "normalised": lambda: follow((PRICE - PRICE.min()) / (PRICE.max() - PRICE.min()) > 0.5),
    "last price": lambda: follow(PRICE.last() > PRICE),
    "length": lambda: fxlab.Signals(
        target=pl.when(pl.int_range(pl.len()) > pl.len() / 2).then(1.0)
    ),
    "backward fill": lambda: follow(
        pl.when(pl.col("seq") % 10 == 0).then(PRICE).backward_fill() > PRICE
    ),
    "unfinished bar": lambda: follow(
        PRICE.last().over(pl.col("timestamp").dt.truncate("5s")) > PRICE
    ),
    "volume ahead": lambda: follow(pl.col("volume").shift(-1) > 0.5),
    "book ahead": lambda: follow(pl.col("bid_qty_1").shift(-1) > 0.5),
    "time ahead": lambda: follow(
        pl.col("timestamp").shift(-1) - pl.col("timestamp") > pl.duration(milliseconds=200)
    ),
    "ranked": lambda: follow(PRICE.rank() > 10),
    "interpolated": lambda: follow(
        pl.when(pl.col("seq") % 7 == 0).then(PRICE).interpolate() > PRICE
    ),
    "bars read before they close": lambda: follow(
        PRICE.max().over(pl.col("timestamp").dt.truncate("2s")) > PRICE
    ),
    "next bar": lambda: fxlab.Signals(
        target=(pl.col("close").shift(-1) > pl.col("close")).cast(pl.Float64), every="2s"
    ),
    "mean of all bars": lambda: fxlab.Signals(
        target=(pl.col("close").mean() > pl.col("close")).cast(pl.Float64), every="2s"
    ),
    "next bar at a tick": lambda: follow(
        indicators.on_bars("2s", pl.col("close").shift(-1)) > PRICE
    ),
    "centred bars at a tick": lambda: follow(
        indicators.on_bars("2s", pl.col("close").rolling_mean(3, center=True)) > PRICE
    ),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_planted_leaks_are_found(leak):
    with pytest.raises(LookaheadFound, match=r"column 'target' of TICKS in row \d+"):
        fxlab.check_lookahead(random_walk(1_000, seed=12), LEAKS[leak], cuts=40)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_shipped_strategies_are_honest(name):
    report = fxlab.check_lookahead(random_walk(1_000, seed=5), name, SMALL[name], cuts=40)
    assert report.trials >= 3 * 20
    assert report.strategy == name


def test_honest_strategies_of_many_kinds_raise_no_alarm():
    honest = [
        lambda: follow(PRICE.shift(1) < PRICE),
        lambda: follow(PRICE.rolling_mean(20) < PRICE),
        lambda: follow(PRICE.ewm_mean(span=30) < PRICE),
        lambda: follow(PRICE.cum_max() <= PRICE),
        lambda: follow(pl.col("volume") > pl.col("volume").rolling_median(15)),
        lambda: follow(PRICE.first() < PRICE),
        lambda: follow(indicators.on_bars("2s", pl.col("close").rolling_std(5)) > 0.01),
        lambda: follow(indicators.on_bars("1s", pl.col("vwap").ewm_mean(span=4)) > PRICE),
        lambda: fxlab.Signals(
            target=(pl.col("close") > pl.col("open").shift(1)).cast(pl.Float64),
            take_profit=(pl.col("high") - pl.col("low")) / pl.col("close") + 0.001,
            every="2s",
        ),
        lambda: fxlab.Signals(
            target=(PRICE.shift(3) < PRICE).cast(pl.Float64),
            stop_loss=PRICE.rolling_std(10) / PRICE,
            limit=PRICE * 0.999,
        ),
    ]
    for strategy in honest:
        assert "saw no future" in str(fxlab.check_lookahead(random_walk(600, seed=3), strategy))


def test_the_error_names_a_row_before_the_change_and_a_hint():
    with pytest.raises(LookaheadFound) as raised:
        fxlab.check_lookahead(random_walk(500), LEAKS["next row"])
    message = str(raised.value)
    assert "is 1, and 0" in message or "is 0, and 1" in message or "null (keep)" in message
    assert "negative number" in message
    assert "whole-column" not in message


def peeking(ticks: pl.DataFrame, *, by: int = 1) -> pl.DataFrame:
    return ticks.select(target=(pl.col("price").shift(-by) > pl.col("price")).cast(pl.Float64))


def grouping(ticks: pl.DataFrame) -> pl.DataFrame:
    bars = ticks.group_by_dynamic("timestamp", every="2s").agg(close=PRICE.last())
    joined = ticks.join_asof(bars, on="timestamp")  # the bar that has begun, not ended
    return joined.select(target=(pl.col("close") > pl.col("price")).cast(pl.Float64))


def closing(ticks: pl.DataFrame) -> pl.DataFrame:
    end = pl.col("timestamp") + pl.duration(seconds=2)
    bars = ticks.group_by_dynamic("timestamp", every="2s").agg(close=PRICE.last())
    joined = ticks.join_asof(bars.with_columns(end), on="timestamp")
    return joined.select(target=(pl.col("close") > pl.col("price")).cast(pl.Float64))


def test_strategies_of_frames_are_tried_too():
    frame = random_walk(600, seed=4)
    with pytest.raises(LookaheadFound, match=r"'peeking' \(by=3\) sees the future: .*'target'"):
        fxlab.check_lookahead(frame, peeking, {"by": 3})
    with pytest.raises(LookaheadFound, match="'grouping' sees the future"):
        fxlab.check_lookahead(frame, grouping)
    assert fxlab.check_lookahead(frame, closing).decisions > 100


COLUMNS = ("stop_loss", "take_profit", "trailing_stop", "limit")


@pytest.mark.parametrize("column", COLUMNS)
def test_exits_and_limits_are_tried_too(column):
    def peeks() -> fxlab.Signals:
        ahead = (PRICE.shift(-1) / PRICE - 0.9).abs() + 0.001
        return fxlab.Signals(target=(PRICE.shift(1) < PRICE).cast(pl.Float64), **{column: ahead})

    with pytest.raises(LookaheadFound, match=rf"column '{column}' of TICKS in row \d+ \(2025"):
        fxlab.check_lookahead(random_walk(300), peeks)


def test_books_and_other_symbols_prices_are_changed_too():
    ticks = pl.concat([random_walk(300, symbol="A"), random_walk(300, seed=9, symbol="B")])
    books = random_walk(300, seed=2).select(
        "timestamp", bid_price_1=PRICE - 0.01, ask_price_1=PRICE + 0.01, bid_qty_1="volume"
    )
    source = fxlab.FrameSource(ticks, books=books.with_columns(symbol=pl.lit("A")))
    for column in ("mid", "spread", "bid_qty_1", "price:B"):
        value = pl.col(column)

        def honest(value=value) -> fxlab.Signals:
            return follow(value.shift(1) < value)

        def peeks(value=value) -> fxlab.Signals:
            return follow(value.shift(-1) < value)

        for function in (honest, peeks):
            function.__signature__ = inspect.Signature()
        fxlab.check_lookahead(source, honest, symbols="A")
        if column != "spread":  # it never changes here: nothing to see
            with pytest.raises(LookaheadFound, match="'peeks'"):
                fxlab.check_lookahead(source, peeks, symbols="A")


def test_a_lookback_that_is_too_short_is_found():
    def forgetful() -> fxlab.Signals:
        return follow(PRICE.rolling_mean(20) < PRICE, lookback=10)

    def honest() -> fxlab.Signals:
        return follow(PRICE.shift(19) < PRICE, lookback=19)

    frame = random_walk(400, seed=3)
    with pytest.raises(InvalidParameter, match=r"'forgetful' says lookback=10, but column"):
        fxlab.check_lookahead(frame, forgetful)
    fxlab.check_lookahead(frame, honest)


def test_a_sample_looks_at_the_first_rows_only():
    frame = random_walk(3_000, seed=12)
    report = fxlab.check_lookahead(frame, "sma_cross", SMALL["sma_cross"], sample_rows=500, cuts=4)
    assert (report.rows, report.cuts, report.trials) == (500, 4, 12)
    assert report.decisions > 0
    for leak in ("next row", "centred window", "whole column", "next bar at a tick"):
        with pytest.raises(LookaheadFound):
            fxlab.check_lookahead(frame, LEAKS[leak], sample_rows=1_000, cuts=4)
    late = frame.with_columns(wanted=pl.when(pl.col("seq") > 900).then(PRICE.shift(-1) * 0))
    assert fxlab.check_lookahead(late, wanted, sample_rows=500).decisions == 0


def wanted() -> fxlab.Signals:
    return fxlab.Signals(target=pl.col("wanted"))


def test_each_symbol_is_tried():
    both = pl.concat([random_walk(200, symbol="A"), random_walk(200, seed=9, symbol="B")])
    report = fxlab.check_lookahead(both, "sma_cross", SMALL["sma_cross"])
    assert (report.symbols, report.rows) == (("A", "B"), 400)
    only_b = pl.when(pl.col("only_b")).then(PRICE.shift(-1) > PRICE)
    marked = both.with_columns(only_b=pl.col("symbol") == "B")

    def peeks_at_b() -> fxlab.Signals:
        return fxlab.Signals(target=only_b.cast(pl.Float64))

    with pytest.raises(LookaheadFound, match="of B in row"):
        fxlab.check_lookahead(marked, peeks_at_b)


def test_the_same_seed_tries_the_same_rows_and_work_can_be_stopped():
    frame = random_walk(300)
    one, two = (fxlab.check_lookahead(frame, "breakout", SMALL["breakout"]) for _ in range(2))
    assert one == two

    def stop(_share: float, _text: str) -> None:
        raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        fxlab.check_lookahead(frame, "breakout", SMALL["breakout"], progress=stop)
    with pytest.raises(EmptySession):
        fxlab.check_lookahead(frame.clear(), "breakout")
