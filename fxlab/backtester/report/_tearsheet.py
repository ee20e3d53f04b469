"""Tear sheet: one offline HTML file about one run, its sections, style and security policy.

It holds what a reader needs to judge the run and to repeat it: assumptions, metrics with their
formulas, charts, trades, and the fingerprint of data, strategy and versions. It must open for
years, from a stick in a train, from a mail, inside a notebook: it holds the script that draws its
charts, and the policy forbids the browser to fetch anything.

A section is a chart, a table, or a sentence. A run without trades, or of one tick, has them too:
where there is nothing to show, a sentence says so, because an empty table looks like a fault.

The charts know frames only; here a `Result` is turned into the frames that each of them draws. A
notebook shows the same ones.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from markupsafe import Markup

from fxlab import _html
from fxlab._html import NOTHING, facts, paragraphs, part, show, show_time
from fxlab._times import Time, from_micros, parse_range, to_micros
from fxlab.backtester.metrics import _analysis
from fxlab.backtester.metrics._analysis import exposure_over_time, gap_exposure
from fxlab.backtester.metrics._ratios import quantiles
from fxlab.backtester.report._summary import (
    caveats,
    describe_data,
    headline,
    metrics_html,
    show_metric,
    show_seconds,
    sparkline,
)
from fxlab.config import path_of, write_whole
from fxlab.schema import UTC_MICROS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.backtester.result import Result
    from fxlab.charts._style import View

Section = tuple[str, list[str]]
"""Its title, and its parts in order: `Markup` is what it is, a text is a paragraph."""

table = partial(_html.table, inline=False)  # a page has a style sheet


def plotly_source() -> str:
    """Return plotly's script, 4.8 MB: a page holds it once."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def embed(figure: go.Figure, name: str, fallback: str) -> Markup:
    """Return the HTML that draws a figure with the script of its page.

    Parameters
    ----------
    figure
        What to draw.
    name
        The element's id, unique on the page: a plain word.
    fallback
        Shown where scripts are off.
    """
    from fxlab.charts import summary
    from fxlab.charts._alt_text import take_words, words_below
    from fxlab.charts._style import CONFIG

    spec = json.loads(figure.to_json())
    below = words_below(spec["layout"]) if take_words(spec["layout"]) else {}
    words = Markup(below.get("text/html", ""))  # noqa: S704 - escaped where they are made
    # A height of the box itself: plotly measures the box again after each zoom and each click.
    height = int(spec["layout"].get("height") or 450)
    arguments = [spec["data"], spec["layout"], CONFIG | {"responsive": True}]
    return part("figure", name, height, arguments, fallback, summary(figure), words)


def fitted(figure: go.Figure) -> go.Figure:
    """Return a figure as wide as the page, without its title: the section's heading says it."""
    from fxlab.charts._style import without_title

    return without_title(figure).update_layout(margin_l=0, margin_r=0)


REPORT_POINTS: Final = 2_000
"""Points of the prices on a page, which nobody samples again where it is zoomed."""

INTERVALS: Final = 600
"""Intervals of the exposure chart, at most."""

_SECONDS: Final = (1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400, 7 * 86_400, 30 * 86_400)


def result_figures(result: Result) -> dict[str, go.Figure]:
    """Return every figure of a run by name, in reading order.

    Returns
    -------
    dict
        ``run`` (price with fills, equity, drawdown), ``equity`` (its drawdowns shaded),
        ``returns``, ``months``, ``hours``, ``weekdays``, ``trades``, ``exposure``.
    """
    from fxlab import charts

    equity, trades = result.equity, result.trades
    weekdays = _analysis.weekday_returns(equity, trades)
    return {
        "run": run_figure(result),
        "equity": charts.equity_chart(equity, "Equity", drawdowns=result.drawdowns),
        "returns": returns_figure(result),
        "months": charts.monthly_chart(result.monthly_returns, "Returns by month"),
        "hours": charts.profile_chart(result.hourly_returns, "Returns by hour of the day"),
        "weekdays": charts.profile_chart(weekdays, "Returns by day of the week"),
        "trades": charts.trades_chart(trades, "Trades"),
        "exposure": charts.exposure_chart(exposure(result), "Exposure"),
    }


def run_figure(
    result: Result, start: Time | None = None, end: Time | None = None, points: int = 0
) -> go.Figure:
    """Return price with fills, equity and drawdown, whole or of a part of the run's time.

    Gaps of the recording are shaded. `points` of prices are drawn at most, or as many as usual.
    """
    from fxlab.charts import POINTS, result_chart

    low, high = parse_range(start, end)
    first, last = to_micros(result.first), to_micros(result.last)
    prices, view = result.prices, None
    if (low is not None and low > first) or (high is not None and high <= last):
        edges = (first if low is None else low, last + 1 if high is None else high)
        prices, view = _prices_in_view(result, *edges)
    return result_chart(
        prices,
        result.fills,
        result.equity,
        title=result.title,
        ticks=result.ticks,
        gaps=known_gaps(result).unique(["from_time", "to_time"]),
        points=points or POINTS,
        view=view,
    )


def _prices_in_view(result: Result, low: int, high: int) -> tuple[pl.DataFrame, View]:
    """Return the prices to draw of a range of time (us), from its ticks, read again."""
    from fxlab.backtester.result import points_each
    from fxlab.charts._style import View, reach, sample_range, usual_step

    symbols, bases, ticks, drawn = result.symbols, {}, 0, []
    for symbol in symbols:
        whole = result.prices.filter(pl.col("symbol") == symbol)
        start, end = map(from_micros, reach(whole, low, high))
        chunks = result.run.source.scan_ticks(symbol, start=start, end=end)
        needed = (chunk.select("timestamp", "price") for chunk in chunks)
        rows, count = sample_range(needed, low, high, points_each(symbols))
        drawn.append(rows.select(pl.lit(symbol).alias("symbol"), "timestamp", "price"))
        if whole.height:  # a symbol may be silent all the time
            bases[symbol] = whole["price"][0]
        ticks += count
    first, last = to_micros(result.first), to_micros(result.last)
    usual = usual_step(first, last, result.ticks // len(symbols))
    return pl.concat(drawn), View(low, high, ticks, result.ticks, usual, bases)


def returns_figure(result: Result) -> go.Figure:
    """Return the distribution of the returns on the grid that the ratios are computed on."""
    from fxlab.charts import distribution_chart

    grid_us = result.run.grid_us
    moved, count = interval_returns(result)
    returns = np.concatenate((moved, np.zeros(count - len(moved))))
    marks = {}
    if len(returns) > 1:
        low, high = quantiles(returns, (0.05, 0.95))
        marks = {"5th percentile": low, "mean": float(returns.mean()), "95th percentile": high}
    return distribution_chart(
        _analysis.returns_histogram(moved),
        "Returns",
        label=f"return of {_grid_words(grid_us / 1e6)}",
        marks=marks,
        text=f"{len(moved):,} of {count:,} intervals moved equity; the others are not drawn"
        if len(moved)
        else "",
    )


def interval_returns(result: Result) -> tuple[np.ndarray, int]:
    """Return the returns on the grid that are not zero, and how many intervals there are."""
    grid_us = result.run.grid_us
    found = _analysis.period_returns(result.equity, f"{grid_us}us")["return"].drop_nulls()
    returns = found.to_numpy()
    first, last = to_micros(result.first), to_micros(result.last)
    return returns[returns != 0.0], last // grid_us - first // grid_us + 1


def exposure(result: Result) -> pl.DataFrame:
    """Return the exposure of a run over time, on a grid of at most `INTERVALS` intervals."""
    elapsed = (to_micros(result.last) - to_micros(result.first)) / 1e6
    step = next((step for step in _SECONDS if elapsed / step < INTERVALS), elapsed / INTERVALS)
    return exposure_over_time(result.trades, float(step), result.first, result.last)


def known_gaps(result: Result) -> pl.DataFrame:
    """Return the gaps of the recording inside a run: symbol (null: all), from_time, to_time."""
    gaps = result.run.gaps
    if gaps is None:
        times = dict.fromkeys(("from_time", "to_time"), UTC_MICROS)
        return pl.DataFrame(schema={"symbol": pl.String(), **times})
    inside = (pl.col("to_time") > result.first) & (pl.col("from_time") < result.last)
    return gaps.filter(inside).select("symbol", "from_time", "to_time")


def _grid_words(seconds: float) -> str:
    """Return a length of time in its largest whole unit: ``1 min``, ``15 min``, ``90 s``."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


ROWS: Final = 200
"""Rows of a long table, the first ones."""

WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PLURAL: Final = {"win": "wins", "loss": "losses"}
_GAIN, _LOSS = "47,134,201", "213,94,0"


def _judging(result: Result) -> list[Section]:
    """Return sections in reading order; one about time in gaps only where there are gaps."""
    made: list[tuple[str, Callable[[Result], list[str]]]] = [
        ("Drawdowns", _drawdowns),
        ("Returns", _returns),
        ("Returns by month", _months),
        ("Hours and days", _hours),
        ("Trades against time and risk", _trades_section),
        ("Exposure", _exposure),
        ("Orders that did not fill", _unfilled),
        ("Time in gaps", _gaps),
    ]
    return [(title, content) for title, build in made if (content := build(result))]


def _figure(figure: go.Figure, name: str, words: str) -> Markup:
    """Return a figure without its title, which the section's heading says."""
    return embed(fitted(figure), name, part("paragraphs", [words], "text"))


def _drawdowns(result: Result) -> list[str]:
    from fxlab.charts import equity_chart

    found = result.drawdowns
    if found.is_empty():
        return ["No drawdown: the sampled equity never lay below an earlier peak."]
    deepest, equity = found.row(0, named=True), result.equity
    words = f"The deepest drawdown was {deepest['depth']:.2%}."
    chart = _figure(equity_chart(equity, drawdowns=found), "drawdowns", words)
    shown = found.select(
        pl.int_range(1, pl.len() + 1).cast(pl.String).alias("number"),
        pl.format("{}%", (pl.col("depth") * 100).round(2)).alias("depth"),
        pl.col("peak_at", "trough_at", "recovered_at").dt.truncate("1s"),
        *(
            pl.col(f"{name}_seconds").map_elements(_length, pl.String, skip_nulls=False).alias(name)
            for name in ("fall", "recovery", "duration")
        ),
    )
    caption = (
        "The deepest drawdowns, on sampled equity; peak and trough of the first are exact. "
        "A dash: not recovered, and the duration runs to the last tick."
    )
    right = ("depth", "fall", "recovery", "duration")
    return [chart, table(shown, caption=caption, right=right)]


def _length(seconds: float | None) -> str:
    return NOTHING if seconds is None else show_seconds(seconds)


def _returns(result: Result) -> list[str]:
    moved, count = interval_returns(result)
    if not len(moved):
        return [f"No returns: equity did not move in any of {count:,} intervals."]
    words = f"{len(moved):,} of {count:,} returns are not zero."
    return [_figure(returns_figure(result), "returns", words)]


def _months(result: Result) -> list[str]:
    months = result.monthly_returns
    if months.is_empty():
        return ["No returns: the run has no time in any month."]
    names = months.columns[1:]
    values = months.select(names).rows()
    reach = max((abs(v) for row in values for v in row if v is not None), default=0.0)
    years = [
        (year, [_cell(value, reach) for value in row])
        for year, row in zip(months["year"], values, strict=True)
    ]
    return [part("months", names, years)]


def _cell(value: float | None, reach: float) -> tuple[str, str]:
    """Return a cell's text and its ground, which is as strong as its value is large."""
    if value is None or math.isnan(value):
        return NOTHING, ""
    strength = 0.55 * abs(value) / reach if reach else 0.0
    return f"{value:.2%}", f"rgba({_GAIN if value >= 0 else _LOSS},{strength:.2f})"


def _hours(result: Result) -> list[str]:
    from fxlab.charts import profile_chart

    hours = result.hourly_returns
    days = _analysis.weekday_returns(result.equity, result.trades)
    if not (hours["mean_return"] != 0.0).any():
        return ["No returns: equity did not move in any hour."]
    chart = _figure(profile_chart(hours), "hours", "The table below has the figures of each hour.")
    names = pl.col("weekday").replace_strict(range(1, 8), WEEKDAYS, return_dtype=pl.String)
    tables = _profile(hours, "hours of the day, UTC") + _profile(
        days.with_columns(names), "days of the week, UTC"
    )
    return [chart, part("folded", "The figures", tables)]


def _profile(profile: pl.DataFrame, what: str) -> Markup:
    key = profile.columns[0]
    shown = profile.select(
        pl.col(key).cast(pl.String),
        "periods",
        *(
            (pl.col(name) * 100).alias(f"{name}_%")
            for name in ("mean_return", "sum_return", "win_rate")
        ),
        *("trades", "pnl"),
    )
    digits = {"mean_return_%": 4, "sum_return_%": 3, "win_rate_%": 1, "pnl": 2}
    caption = f"By {what}: returns of equity; trades by their entry"
    return table(shown, caption=caption, decimals=digits)


def _trades_section(result: Result) -> list[str]:
    from fxlab.charts import trades_chart

    trades = result.trades
    if trades["exited_at"].drop_nulls().is_empty():
        return ["No closed trades."]
    words = " ".join(
        f"The longest run of {_PLURAL[row['kind']]} was {row['trades']:,} trades with a pnl of "
        f"{show(row['pnl'], 2)}."
        for row in _analysis.streaks(trades).rows(named=True)
    )
    return [_figure(trades_chart(trades), "trades", words), words]


def _exposure(result: Result) -> list[str]:
    from fxlab.charts import exposure_chart

    if result.trades.is_empty() or result.first == result.last:
        return ["No position was held for any time."]
    share = show_metric(result.metrics["exposure"], "fraction")
    words = f"A position was held for {share} of the time."
    return [_figure(exposure_chart(exposure(result)), "exposure", words), words]


def _unfilled(result: Result) -> list[str]:
    orders = result.orders
    missed = orders.filter(pl.col("qty") == 0)
    if orders.is_empty():
        return ["No orders were made."]
    if missed.is_empty():
        return [f"All {orders.height:,} orders filled, whole or in part."]
    counted = (
        missed.group_by(pl.col("status").alias("reason"))
        .agg(pl.len().alias("orders"))
        .sort("orders", "reason", descending=[True, False])
        .with_columns((pl.col("orders") / orders.height * 100).alias("of_all_%"))
    )
    caption = f"{missed.height:,} of {orders.height:,} orders ended with nothing executed"
    return [table(counted, caption=caption, decimals={"of_all_%": 1})]


def _gaps(result: Result) -> list[str]:
    gaps = known_gaps(result)
    if gaps.is_empty():
        return []
    run = result.run
    spent = gap_exposure(result.trades, run.gaps, result.first, result.last, symbols=run.symbols)
    count = gaps.select("from_time", "to_time").unique().height  # one of all symbols is one
    words = (
        f"{count:,} known {'gaps' if count > 1 else 'gap'} of the recording in the run: "
        f"{show_seconds(spent.seconds)}, {_percent(spent.share)} of its time. A position was held "
        f"for {show_seconds(spent.held_seconds)} of it, {_percent(spent.held_share)} of all time "
        f"with a position{f' ({spent.note})' if spent.note else ''}. What prices did meanwhile is "
        "not known; the metrics of this run cannot contain it."
    )
    if spent.trades.is_empty():
        return [words, "No trade was open in one of them."]
    caption = f"{spent.trades.height:,} trades were open in a gap"
    if spent.trades.height > ROWS:
        caption += f"; the first {ROWS:,} are shown"
    digits = {"pnl": 2, "blind_seconds": 3}
    return [words, table(spent.trades.head(ROWS), caption=caption, decimals=digits)]


def _percent(share: float) -> str:
    return show_metric(share, "fraction")


TILES: Final = (
    "final_equity",
    "total_return",
    "max_drawdown",
    "trades_count",
    "win_rate",
    "fees",
)
PACKAGES: Final = ("fxlab", "polars", "numpy", "numba", "plotly")
_DECIMALS: Final = {
    "fees": 2,
    "fee": 2,
    "pnl": 2,
    "equity": 2,
    "return_%": 3,
    "mae_%": 3,
    "mfe_%": 3,
    "held_s": 1,
}


def write_report(result: Result, directory: Path) -> Path:
    """Write the tear sheet of a run: one file.

    Parameters
    ----------
    result
        A finished backtest.
    directory
        Made if it does not exist.

    Returns
    -------
    Path
        The page, ``<run_id>.html``, of about 5 MB. It is complete or not there at all.
    """
    directory = path_of(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{result.run_id}.html"
    write_whole(path, render(result))
    return path


def render(result: Result) -> str:
    """Return the page's HTML."""
    values = ", ".join(f"{name} = {show(value)}" for name, value in result.parameters.items())
    spark = sparkline(result.equity["equity"].to_list())
    whole = run_figure(result, points=REPORT_POINTS)
    return _html.page(
        "tearsheet",
        title=f"{result.strategy} on {result.data_session_id}",
        lines=(
            values or "no parameters",
            describe_data(result),
            f"{result.execution}; capital {show(result.capital, 2)}",
        ),
        caveats=caveats(result),
        tiles=headline(result.metrics, TILES),
        sections=[
            ("In words", [in_words(result)]),
            ("Price, equity, drawdown", [embed(fitted(whole), "chart", spark)]),
            ("Figures", [metrics_html(result.metrics.table(), inline=False)]),
            *_judging(result),
            ("Trades", [_rows(_trades(result.trades), "round trips")]),
            ("Fills", [_rows(result.fills, "fills")]),
            ("What made this run", [facts(_provenance(result), inline=False)]),
        ],
        plotly=plotly_source(),
    )


def in_words(result: Result) -> str:
    """Return what the charts show, as text: for screen readers, and for a quick look."""
    table_ = result.metrics.table()
    shown = {name: show_metric(value, unit) for name, value, unit, _ in table_.rows()}
    equity = result.equity["equity"]
    return (
        f"Equity went from {show(result.capital, 2)} to {shown['final_equity']}, a return of "
        f"{shown['total_return']}; it was {show(equity.min(), 2)} at its lowest and "
        f"{show(equity.max(), 2)} at its highest. The deepest fall from a peak was "
        f"{shown['max_drawdown']}. {_prices_in_words(result.prices)} "
        + " ".join(filter(None, (_trades_in_words(result.fills.height, shown), caveats(result))))
    )


def _trades_in_words(fills: int, shown: dict[str, str]) -> str:
    if not fills:
        return "There were no fills."
    text = f"There were {fills:,} fills and {shown['trades_count']} closed round trips"
    if shown["win_rate"] == NOTHING:
        return f"{text}; fees were {shown['fees']}."
    return f"{text}, {shown['win_rate']} of them with a profit after fees of {shown['fees']}."


def _prices_in_words(prices: pl.DataFrame) -> str:
    price = pl.col("price")
    spans = prices.group_by("symbol", maintain_order=True).agg(
        price.first().alias("first"),
        price.last().alias("last"),
        price.min().alias("low"),
        price.max().alias("high"),
    )
    return " ".join(
        f"{symbol} went from {show(first)} to {show(last)}, between {show(low)} and {show(high)}."
        for symbol, first, last, low, high in spans.rows()
    )


def _trades(trades: pl.DataFrame) -> pl.DataFrame:
    """Return the trades with fractions as percent, which is how people read them."""
    shares = ("return", "mae", "mfe")
    percent = trades.with_columns(pl.col(name) * 100 for name in shares)
    return percent.rename({name: f"{name}_%" for name in shares} | {"duration_seconds": "held_s"})


def _rows(frame: pl.DataFrame, noun: str) -> Markup:
    if frame.is_empty():
        return paragraphs([f"No {noun}."])
    caption = f"The first {ROWS:,} of {frame.height:,} {noun}" if frame.height > ROWS else ""
    short = frame.head(ROWS)
    if short["symbol"].n_unique() == 1:
        caption = f"{caption or f'{frame.height:,} {noun}'} of {short['symbol'][0]}"
        short = short.drop("symbol")
    return table(short, caption=caption or f"{frame.height:,} {noun}", decimals=_DECIMALS)


def _provenance(result: Result) -> list[tuple[str, object]]:
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return [
        ("run", result.run_id),
        ("session", result.data_session_id),
        ("symbols", list(result.symbols)),
        ("ticks replayed", result.ticks),
        ("first tick", f"{show_time(result.first)} UTC"),
        ("last tick", f"{show_time(result.last)} UTC"),
        ("execution", str(result.execution)),
        ("fingerprint", result.fingerprint),
        ("made", f"{show_time(result.created_at)} UTC"),
        ("versions", f"{versions}, Python {platform.python_version()}"),
    ]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


WIDGET: Final = "application/vnd.jupyter.widget-view+json"


def draw_charts(nb: Any, resources: Any) -> tuple[Any, Any]:  # noqa: ANN401 - nbconvert's
    """Return a notebook whose charts ``jupyter nbconvert --to html`` draws without a network.

    A saved notebook holds its charts as data, without plotly's 4.8 MB, and a plain export leaves
    them out: the script goes in once. A panel whose state was not stored is shown as its text.
    ``jupyter/`` tells nbconvert of this preprocessor.
    """
    import plotly.graph_objects as go

    from fxlab.charts._style import PLOTLY

    number = 0
    is_stored = bool(nb.metadata.get("widgets"))
    for cell in nb.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if PLOTLY in data and "text/html" not in data:
                spec = {name: data[PLOTLY].get(name) for name in ("data", "layout")}
                drawn = embed(go.Figure(spec, skip_invalid=True), f"fxlab-chart-{number}", "")
                script = "" if number else _html.part("script", plotly_source())
                data["text/html"] = script + drawn
                data.pop(WIDGET, None)  # which would be preferred, and needs its kernel
                number += 1
            elif not is_stored:
                data.pop(WIDGET, None)  # its text says more than a panel of which nothing is there
    return nb, resources
