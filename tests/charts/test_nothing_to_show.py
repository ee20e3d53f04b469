"""Where there is nothing to show, what people read says what is missing, and why."""

from __future__ import annotations

import html
import re
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from markets import random_walk

import fxlab
from fxlab.backtester.report import _tearsheet
from fxlab.batcher.nightly import render_night

UNSAID = re.compile(r"(?<![\w-])(nan|inf|None|NaN|null)(?![\w-])", re.IGNORECASE)


def words(page):
    """Return what a reader sees of HTML."""
    shown = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", shown))


def said(thing):
    """Return all texts that Python and a notebook show of a thing."""
    return [repr(thing), str(thing), words(thing._repr_html_())]


def check(*texts):
    for text in texts:
        found = UNSAID.search(text)
        assert not found, text[max(0, found.start() - 80) : found.end() + 40]


@fxlab.strategy
def sold(*, size: float = 1.0) -> fxlab.Signals:
    """Sold from the first tick on, whatever the price does."""
    return fxlab.Signals(target=pl.lit(-size), lookback=0)


def ruinous():
    prices = [100.0, 100.0, 101.0, 103.0, 150.0, 260.0, 270.0, 280.0]
    start = datetime(2025, 1, 1, tzinfo=UTC)
    times = [start + timedelta(seconds=n) for n in range(len(prices))]
    frame = {"timestamp": times, "seq": range(len(prices)), "price": prices, "volume": 1.0}
    return pl.DataFrame(frame)


RUNS = {
    "one tick": (random_walk(1), "buy_and_hold"),
    "no trade": (random_walk(100), "sma_cross"),
    "ruined": (ruinous(), sold),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_came_to_nothing_says_so(name):
    result = fxlab.backtest(*RUNS[name])
    check(*said(result), repr(result.metrics), words(_tearsheet.render(result)))
    for drawn in result.figures().values():
        text = " ".join(one.text for one in drawn.layout.annotations)
        check(text)
        assert drawn.data or re.search(r"^no \w+( \w+)*( at any time|: .+| made)$", text), text
    ladder = fxlab.cost_ladder(*RUNS[name])
    check(*said(ladder))
    assert "sharpe per period: " in repr(ladder)  # why there is none
    check(*said(fxlab.compare_runs([result, fxlab.backtest(random_walk(100), "sma_cross")])))


SWEEPS = {
    "one point": (random_walk(2_000), "sma_cross", {"fast": [5], "slow": [40]}),
    "no trade": (random_walk(100), "sma_cross", {"fast": [50, 60], "slow": [200, 300]}),
    "ruined": (ruinous(), sold, {"size": [0.9, 1.0]}),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_that_came_to_nothing_says_so(name):
    sweep = fxlab.sweep(*SWEEPS[name])
    judged = sweep.overfitting()
    check(*said(sweep), *said(judged), words(render_night(date(2026, 1, 1), [], {name: sweep})))
    figure = sweep.parallel()
    text = " ".join(one.text for one in figure.layout.annotations)
    assert figure.data or text.startswith("no sharpe per period of ")
    if name != "one point":
        assert "no point has a sharpe_per_period" in words(sweep._repr_html_())
        assert "<table" not in sweep._repr_html_()


def test_a_sweep_of_one_point_has_no_neighbours():
    sweep = fxlab.sweep(*SWEEPS["one point"])
    with pytest.raises(fxlab.errors.InvalidParameter, match="no neighbours"):
        sweep.stability()


def test_where_all_points_failed_the_failures_are_what_is_said():
    sweep = fxlab.sweep(ruinous(), sold, {"size": [3.0, 4.0]})  # beyond the leverage
    page = words(render_night(date(2026, 1, 1), [], {"all failed": sweep}))
    for text in (*said(sweep), page):
        check(text)
        assert "no point is done; .failed says why" in text
        assert "beyond max_leverage" in text
    figure = sweep.parallel()
    assert figure.layout.annotations[-1].text == "no sharpe per period of 2 points: 2 failed"
