"""HTML pages of batches and nightly sweeps: tables with links, and errors in full.

A batch has one page. Nightly sweeps have one a night, and one that leads to all nights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fxlab._html import NOTHING, escape, heading, show, show_time
from fxlab._html import table as frame_table
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.report import _tearsheet as parts
from fxlab.backtester.report._summary import show_metric, show_seconds
from fxlab.errors import FxlabError

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.sweeper.sweep import Sweep


HEADS: Final = ("job", "equity", "state")
LINKS: Final = ("notebook", "report")
WIDTH: Final = "19rem"

BatchRow = Mapping[str, Any]
STYLE: Final = (
    f"<style>.wide {{ min-width: {WIDTH}; white-space: normal; overflow-wrap: anywhere; }} "
    "a { color: var(--ink); } thead th { white-space: normal; vertical-align: bottom; } "
    "td small { color: var(--soft); } td svg { width: 8rem; height: auto; display: block; }</style>"
)
"""Beside the style of all pages; put it in front of the page's body."""


def render_batch(rows: Sequence[BatchRow], words: str) -> str:
    """Return the page of a batch.

    Parameters
    ----------
    rows
        Of each job: ``job``, ``state``, ``run_id``, figures of `METRICS`, ``seconds``, ``error``,
        ``terms``, ``sparkline`` (SVG), ``notebook`` and ``report`` (links, seen from the page).
    words
        How far the batch is.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    head = f"<p>{escape(words)}</p><p>written {escape(show_time(now))} UTC</p>"
    body = f"{STYLE}<header><h1>Batch</h1>{head}</header>\n{parts.section('Jobs', _table(rows))}"
    told = [(row["job"], row["error"], row["notebook"]) for row in rows if row["error"]]
    return parts.page("Batch", f"{body}\n{went_wrong(told)}", draws=False)


def went_wrong(told: Sequence[tuple[str, str, str | None]]) -> str:
    """Return a section with (name, error, notebook) of all that failed; empty if nothing did."""
    lines = [
        f'<p class="text"><strong>{escape(name)}</strong>: {escape(error)} {_more(notebook)}</p>'
        for name, error, notebook in told
    ]
    return parts.section("What went wrong", "".join(lines)) if lines else ""


def link(target: str | None, text: str) -> str:
    """Return a link to a file beside the page; a dash if there is none."""
    return f'<a href="{escape(target)}">{escape(text)}</a>' if target else NOTHING


def batch_table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> str:
    """Return a table of cells that are HTML already; the last `numbers` heads stand right."""
    left = len(heads) - numbers
    kinds = ["" if place < left else ' class="n"' for place in range(len(heads))]
    head = "".join(
        f'<th scope="col"{kind}>{escape(heading(name))}</th>'
        for name, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def wrapped(text: str, *below: str) -> str:
    """Return a cell that is as wide as reads well, with small lines below its text."""
    lines = "".join(f"<br><small>{escape(line)}</small>" for line in below)
    return f'<div class="wide">{escape(text)}{lines}</div>'


def _table(rows: Sequence[BatchRow]) -> str:
    figures = [name for name in rows[0] if name in METRICS]
    heads = [*HEADS, "open", *figures, "took"]
    return batch_table(
        heads, [_batch_cells(row, figures) for row in rows], numbers=len(figures) + 1
    )


def _batch_cells(row: BatchRow, figures: Sequence[str]) -> list[str]:
    state = f"{row['state']} (before)" if row["from_before"] else row["state"]
    seconds = row["seconds"]
    below = [row["session"], row["terms"], *([row["run_id"]] if row["run_id"] else [])]
    return [
        wrapped(row["job"], *below),
        row["sparkline"] or NOTHING,
        f"<strong>{escape(state)}</strong>" if row["error"] else escape(state),
        "<br>".join(link(row[name], name) for name in LINKS if row[name]) or NOTHING,
        *(escape(show_metric(row[name], METRICS[name][0])) for name in figures),
        NOTHING if seconds is None else escape(show_seconds(seconds)),
    ]


def _more(notebook: str | None) -> str:
    return f"({link(notebook, 'its notebook')})" if notebook else ""


MEANING: Final = (
    "The deflated Sharpe ratio is the probability that the best point is above what chance alone "
    "reaches in so many trials, those of earlier nights included. PBO is the probability that the "
    "best of one half of the time is below the median of the other; noise has 0.5."
)
RANKED: Final = 10
_HEADS: Final = ("sweep", "state", "best point", "its figure", "deflated Sharpe", "PBO",
                 "tried in all", "points", "took")  # fmt: skip
_NUMBERS: Final = 6

NightRow = Mapping[str, Any]


def render_night(day: date, rows: Sequence[NightRow], sweeps: Mapping[str, Sweep]) -> str:
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
        parts.section(
            "Sweeps", batch_table(_HEADS, [_night_cells(row) for row in rows], numbers=_NUMBERS)
        ),
        went_wrong([(row["sweep"], row["error"], None) for row in rows if row["error"]]),
        *(_section(number, name, found) for number, (name, found) in enumerate(sweeps.items())),
        f"<footer>{escape(MEANING)}</footer>",
    ]
    return parts.page(title, "\n".join(body), draws=bool(sweeps))


def render_all(root: Path) -> str:
    """Return the page that leads to all nights in a folder, the newest first."""
    nights = sorted((path.parent.name for path in root.glob("*/index.html")), reverse=True)
    rows = [[link(f"{night}/index.html", night)] for night in nights]
    body = f"<header><h1>Nights</h1></header>{parts.section('', batch_table(['night'], rows, 0))}"
    return parts.page("Nights", body, draws=False)


def _night_cells(row: NightRow) -> list[str]:
    figure = show_metric(row["best"], METRICS[row["metric"]][0])
    points = f"{show(row['from_before'])} from before, {show(row['failed'])} failed"
    return [
        wrapped(row["sweep"], show(row["sessions"] or "no session")),
        escape(row["state"]) if not row["error"] else f"<strong>{escape(row['state'])}</strong>",
        wrapped(row["parameters"] or NOTHING),
        f"{escape(figure)}<br><small>{escape(heading(row['metric']))}</small>",
        *(escape(show_metric(row[name], "probability")) for name in ("deflated_sharpe", "pbo")),
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
