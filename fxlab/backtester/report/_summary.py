"""Summary of a result for a notebook: metric table and sparkline in plain HTML and inline SVG.

Without scripts it also shows where plotly does not: in mail, in code hosts, in a printed page.
Colours come from JupyterLab's variables and fall back to the page's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from fxlab._html import NOTHING, heading, part, show_number, show_time, table
from fxlab.backtester.execution import UNEQUAL_FEES
from fxlab.backtester.metrics._performance import METRICS
from fxlab.charts._style import Floats, min_max_rows
from fxlab.errors import some
from fxlab.schema import unsaid_currencies

if TYPE_CHECKING:
    from markupsafe import Markup

    from fxlab.backtester.metrics._performance import Metrics
    from fxlab.backtester.result import Result

HEADLINE: Final = (
    "final_equity",
    "total_return",
    "max_drawdown",
    "sharpe",
    "sharpe_per_period",
    "trades_count",
    "win_rate",
    "profit_factor",
    "fees",
    "exposure",
)
"""The metrics of the small table, in this order."""

IN_TEXT: Final = (
    *("final_equity", "total_return", "max_drawdown", "sharpe_per_period", "trades_count", "fees"),
)
"""The metrics of the text, in this order."""

_FORMATS: Final = {
    "fraction": ".2%",
    "probability": ".2%",
    "money": ",.2f",
    "bps": ",.2f",
    "count": ",.0f",
}
_WIDTH, _HEIGHT, _MARGIN = 260.0, 54.0, 2.0
_SPARK_POINTS: Final = 100
_SPANS: Final = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s"))


def result_html(result: Result) -> str:
    """Return the small HTML view of a result: what ran, a sparkline, the main metrics."""
    return part(
        "result",
        result.title,
        (describe_data(result), result.execution),
        caveats_html(result),
        sparkline(result.equity["equity"].to_list()),
        metrics_html(main_metrics(result)),
        result.run_id,
    )


def result_text(result: Result) -> str:
    """Return the few lines of text that a terminal shows of a result."""
    lines = [
        f"<Result {result.run_id}>",
        result.title,
        f"{describe_data(result)}; {result.execution}",
        "  ".join(name_and_value(result.metrics, name) for name in IN_TEXT),
        caveats(result),
    ]
    return "\n".join(filter(None, lines))


def main_metrics(result: Result) -> pl.DataFrame:
    """Return the rows of `Metrics.table` that a first look needs."""
    return result.metrics.table().filter(pl.col("metric").is_in(HEADLINE))


def describe_data(result: Result) -> str:
    """Return one line: how many ticks of what, from when to when."""
    return (
        f"{result.ticks:,} tick{'s' * (result.ticks != 1)} of {some(result.symbols)}, "
        f"{show_time(result.first)} to {show_time(result.last)} UTC"
    )


def ruin(result: Result) -> str:
    """Return one sentence that says when the account was ruined; nothing if it was not."""
    after = result.metrics["ruined_after"]
    if math.isnan(after):
        return ""
    when = show_time(result.first + timedelta(seconds=after))
    return (
        f"The account was ruined at {when} UTC, {show_seconds(after)} after the first tick: its "
        f"equity was at or below zero, and {show_number(result.metrics['final_equity'], 2)} is "
        "left. No return or ratio counts from there on."
    )


def caveats(result: Result) -> str:
    """Return what must be known before any metric is read.

    Ruin, currencies that are not known, and what nobody gave but the recording.
    """
    words = ruin(result), unsaid_currencies(result.symbols), recorded_funding(result)
    return " ".join(filter(None, (*words, listed(result))))


def recorded_funding(result: Result) -> str:
    """Return in words that funding was charged as recorded, or nothing."""
    count = result.run.recorded_funding
    if count is None:
        return ""
    times = "1 rate" if count == 1 else f"{count:,} rates"
    return f"Funding is charged as it was recorded, {times} within the run."


_LISTED: Final = {
    "lot_size": ("lot size", ""),
    "tick_size": ("tick size", ""),
    "min_notional": ("least notional", ""),
    "taker_bps": ("taker fee", " bps"),
    "maker_bps": ("maker fee", " bps"),
}


def listed(result: Result) -> str:
    """Return in words which assumptions are those of the venue's listing; nothing if none are."""
    parts = []
    for name, (words, unit) in _LISTED.items():
        value = getattr(result.execution, name)
        if name in result.run.listed:
            shown = "by symbol" if isinstance(value, Mapping) else f"{show_number(value)}{unit}"
            parts.append(f"{words} {shown}")
    said = f"As the venue listed them: {', '.join(parts)}." if parts else ""
    if UNEQUAL_FEES in result.run.listed:
        said += " The venue lists other fees for some symbols than for others: none is taken."
    return said.strip()


def caveats_html(result: Result) -> Markup:
    """Return `caveats` as a paragraph; nothing if there are none."""
    return part("caveats", caveats(result))


def name_and_value(metrics: Metrics, name: str) -> str:
    """Return ``name=value`` as text has it; where there is no value, why."""
    value = metrics[name]
    if not math.isnan(value):
        return f"{name}={value:,.6g}"
    return f"{name}={NOTHING} ({metrics.notes.get(name, 'not defined').partition(';')[0]})"


def metrics_html(metrics: pl.DataFrame, *, inline: bool = True) -> Markup:
    """Return an HTML table of metric, value, unit, note as `Metrics.table` gives them."""
    frame = pl.DataFrame(
        {
            "metric": [heading(name) for name in metrics["metric"]],
            "value": [show_metric(*row) for row in metrics.select("value", "unit").rows()],
            "note": metrics["note"],
        },
        schema=dict.fromkeys(("metric", "value", "note"), pl.String),
    )
    return table(frame, right=("value",), inline=inline)


def show_metric(value: float | None, unit: str) -> str:
    """Return a metric in its unit as people read it; a dash where there is none."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return show_number(value)
    return show_seconds(value) if unit == "seconds" else format(value, _FORMATS.get(unit, ",.3f"))


def show_seconds(seconds: float) -> str:
    """Return a length of time as its two largest units: ``3d 4h``, ``12m 5s``, ``0.25s``."""
    left = round(seconds)
    for size, unit, part_size, part_unit in _SPANS:
        if left >= size:
            return f"{left // size:,}{unit} {left % size // part_size}{part_unit}"
    return f"{seconds:.3g}s"


def headline(metrics: Metrics, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (name, shown value, note) of some metrics."""
    rows = {row[0]: row for row in metrics.table().rows()}
    chosen = (rows[name] for name in names if name in rows)
    return [(heading(row[0]), show_metric(row[1], row[2]), row[3]) for row in chosen]


def sparkline(values: Sequence[float | None]) -> Markup | str:
    """Return a line as inline SVG of at most 2 KB, its extremes kept.

    Parameters
    ----------
    values
        Numbers in drawing order; those that are not finite are left out.

    Returns
    -------
    str
        An ``<svg>`` with a spoken label; an empty string where there is nothing to draw.
    """
    numbers = np.array([math.nan if value is None else value for value in values], dtype=float)
    finite = numbers[np.isfinite(numbers)]
    if len(finite) < 2:
        return ""
    drawn = finite[min_max_rows(finite, _SPARK_POINTS)]
    label = f"from {show_number(finite[0])} to {show_number(finite[-1])}"
    label += f", lowest {show_number(finite.min())}, highest {show_number(finite.max())}"
    return part("sparkline", label, _path(drawn), f"{_WIDTH:g}", f"{_HEIGHT:g}")


def _path(values: Floats) -> str:
    low, high = float(values.min()), float(values.max())
    # Halves first: the difference of two huge numbers may overflow, that of their halves not.
    share = (
        (values / 2 - low / 2) / (high / 2 - low / 2) if high > low else np.full(len(values), 0.5)
    )
    x = np.linspace(_MARGIN, _WIDTH - _MARGIN, len(values))
    y = _HEIGHT - _MARGIN - share * (_HEIGHT - 2 * _MARGIN)
    return " ".join(f"{a:.0f},{b:.1f}" for a, b in zip(x, y, strict=True))


_NIGHTS_WIDTH, _NIGHTS_HEIGHT, _DOT = 150.0, 36.0, 4.0


def history_picture(history: pl.DataFrame, metric: str) -> Markup | str:
    """Return figures of nights as inline SVG: a line, broken at nights that have none, and dots.

    Parameters
    ----------
    history
        ``night`` and ``figure``, ordered, null where a night has none.
    metric
        Whose unit the spoken label and the tips of the dots have.
    """
    known = history.with_row_index("at").drop_nulls("figure")
    if known.is_empty():
        return ""
    unit = METRICS[metric][0]
    low, high = min(known["figure"]), max(known["figure"])
    span = high / 2 - low / 2  # halves: the difference of two huge numbers may overflow
    step = (_NIGHTS_WIDTH - 2 * _DOT) / max(history.height - 1, 1)
    dots: list[tuple[str, str, str]] = []
    lines: list[list[str]] = []
    last = -2
    for at, night, figure in known.select("at", "night", "figure").iter_rows():
        share = (figure / 2 - low / 2) / span if span else 0.5
        x = _DOT + at * step
        y = _NIGHTS_HEIGHT - _DOT - share * (_NIGHTS_HEIGHT - 2 * _DOT)
        dots.append((f"{x:.1f}", f"{y:.1f}", f"{night.isoformat()}: {show_metric(figure, unit)}"))
        if at > last + 1:
            lines.append([])
        lines[-1].append(f"{x:.1f},{y:.1f}")
        last = at
    texts = [show_metric(value, unit) for value in (low, high)]
    label = f"{heading(metric)} of {known.height:,} nights, lowest {texts[0]}, "
    label += f"highest {texts[1]}; newest {dots[-1][2]}"
    paths = [" ".join(line) for line in lines if len(line) > 1]
    return part("history", label, paths, dots, f"{_NIGHTS_WIDTH:g}", f"{_NIGHTS_HEIGHT:g}")
