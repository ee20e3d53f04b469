"""Planted leaks are found, honest strategies pass."""

from __future__ import annotations

import polars as pl
import pytest
from markets import SMALL, random_walk

import fxlab
from fxlab.errors import Cancelled, EmptySession, LookaheadFound

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
