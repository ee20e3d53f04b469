"""The pages of nightly sweeps: one a night, and one that leads to all nights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fxlab.backtester import report_page as parts
from fxlab.backtester.metric_table import METRICS
from fxlab.backtester.summary import show_figure, show_seconds
from fxlab.batcher.batch_page import STYLE, link, table, went_wrong, wrapped
from fxlab.errors import FxlabError
from fxlab.html import NOTHING, escape, heading, show, show_time
from fxlab.html import table as frame_table

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.sweeper.sweep import Sweep

MEANING: Final = (
    "The deflated Sharpe ratio is the probability that the best point is above what chance alone "
    "reaches in so many trials, those of earlier nights included. PBO is the probability that the "
    "best of one half of the time is below the median of the other; noise has 0.5."
)
RANKED: Final = 10
_HEADS: Final = ("sweep", "state", "best point", "its figure", "deflated Sharpe", "PBO",
                 "tried in all", "points", "took")  # fmt: skip
_NUMBERS: Final = 6

Row = Mapping[str, Any]


def render(day: date, rows: Sequence[Row], sweeps: Mapping[str, Sweep]) -> str:
    """Return the page of one night.

    Parameters
    ----------
    day
        Its date.
    rows
        Of `night_table.SCHEMA`, one a sweep.
    sweeps
        Those that have points, by name.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    title = f"Sweeps of {day.isoformat()}"
    written = f"written {escape(show_time(now))} UTC &middot; {link('../index.html', 'all nights')}"
    body = [
        f"{STYLE}<header><h1>{title}</h1><p>{written}</p></header>",
        parts.section("Sweeps", table(_HEADS, [_cells(row) for row in rows], numbers=_NUMBERS)),
        went_wrong([(row["sweep"], row["error"], None) for row in rows if row["error"]]),
        *(_section(number, name, found) for number, (name, found) in enumerate(sweeps.items())),
        f"<footer>{escape(MEANING)}</footer>",
    ]
    return parts.page(title, "\n".join(body), draws=bool(sweeps))


def render_all(root: Path) -> str:
    """Return the page that leads to all nights in a folder, the newest first."""
    nights = sorted((path.parent.name for path in root.glob("*/index.html")), reverse=True)
    rows = [[link(f"{night}/index.html", night)] for night in nights]
    body = f"<header><h1>Nights</h1></header>{parts.section('', table(['night'], rows, 0))}"
    return parts.page("Nights", body, draws=False)


def _cells(row: Row) -> list[str]:
    figure = show_figure(row["best"], METRICS[row["metric"]][0])
    points = f"{show(row['from_before'])} from before, {show(row['failed'])} failed"
    return [
        wrapped(row["sweep"], show(row["sessions"] or "no session")),
        escape(row["state"]) if not row["error"] else f"<strong>{escape(row['state'])}</strong>",
        wrapped(row["parameters"] or NOTHING),
        f"{escape(figure)}<br><small>{escape(heading(row['metric']))}</small>",
        *(escape(show_figure(row[name], "probability")) for name in ("deflated_sharpe", "pbo")),
        escape(show(row["tried"])),
        f"{escape(show(row['points']))}<br><small>{escape(points)}</small>",
        escape(show_seconds(row["seconds"])),
    ]


def _section(number: int, name: str, found: Sweep) -> str:
    """Return the picture of a sweep and its best points."""
    figure = picture(found)
    words = "" if found.table.is_empty() else f'<p class="text">{escape(_judged(found))}</p>'
    drawn = "" if figure is None else parts.embed(figure, f"sweep-{number}", "")
    best = found.ranking().head(RANKED)
    if best.is_empty():
        return parts.section(name, words + f'<p class="text">{escape(found)}</p>')
    if len(found.sessions) == 1:
        best = best.drop("sessions", "worst", "best")
    digits = dict.fromkeys((found.metric, "worst", "best"), 4)
    ranked = frame_table(best, caption="The best points", decimals=digits)
    return parts.section(name, words + drawn + ranked)


def picture(found: Sweep) -> go.Figure | None:
    """Return the heat map of a sweep; lines where fewer than two parameters vary."""
    if found.table.filter(found.table["state"] == "done").is_empty():
        return None
    return found.heatmap() if len(found.varied) > 1 else found.parallel()


def _judged(found: Sweep) -> str:
    try:
        return str(found.overfitting())
    except FxlabError as error:
        return str(error)
