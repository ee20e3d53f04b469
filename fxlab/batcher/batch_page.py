"""The page that shows a batch: a table with links, and what went wrong in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from fxlab.backtester import report_page as parts
from fxlab.backtester.metric_table import METRICS
from fxlab.backtester.summary import show_figure, show_seconds
from fxlab.html import NOTHING, escape, heading, show_time

HEADS: Final = ("job", "equity", "state", "run")
LINKS: Final = ("notebook", "report")
_LIVE: Final = ("waiting",)

Row = Mapping[str, Any]


def render(rows: Sequence[Row], words: str) -> str:
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
    body = [
        f"<header><h1>Batch</h1><p>{escape(words)}</p>"
        f"<p>written {escape(show_time(now))} UTC</p></header>",
        parts.section("Jobs", _table(rows)),
        *[parts.section("What went wrong", _errors(rows)) for _ in [0] if _failed(rows)],
    ]
    return parts.page("Batch", "\n".join(body), script="")


def link(target: str | None, text: str) -> str:
    """Return a link to a file beside the page; a dash if there is none."""
    return f'<a href="{escape(target)}">{escape(text)}</a>' if target else NOTHING


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: int) -> str:
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


def _table(rows: Sequence[Row]) -> str:
    figures = [name for name in rows[0] if name in METRICS]
    heads = [*HEADS, *LINKS, *figures, "took"]
    return table(heads, [_cells(row, figures) for row in rows], numbers=len(figures) + 1)


def _cells(row: Row, figures: Sequence[str]) -> list[str]:
    state = f"{row['state']} (before)" if row["from_before"] else row["state"]
    seconds = row["seconds"]
    return [
        f'<span title="{escape(row["terms"])}">{escape(row["job"])}<br>'
        f"<small>{escape(row['session'])}</small></span>",
        row["sparkline"] or NOTHING,
        f"<strong>{escape(state)}</strong>" if row["error"] else escape(state),
        escape(row["run_id"] or NOTHING),
        *(link(row[name], name) for name in LINKS),
        *(escape(show_figure(row[name], METRICS[name][0])) for name in figures),
        NOTHING if seconds is None else escape(show_seconds(seconds)),
    ]


def _failed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["error"]]


def _errors(rows: Sequence[Row]) -> str:
    return "".join(
        f'<p class="text"><strong>{escape(row["job"])}</strong>: {escape(row["error"])} '
        f"({link(row['notebook'], 'its notebook')})</p>"
        for row in _failed(rows)
    )
