"""The page that shows a batch: a table with links, and what went wrong in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from fxlab.backtester import report_page as parts
from fxlab.backtester.metric_table import METRICS
from fxlab.backtester.summary import show_figure, show_seconds
from fxlab.html import NOTHING, escape, heading, show_time

HEADS: Final = ("job", "equity", "state")
LINKS: Final = ("notebook", "report")
WIDTH: Final = "19rem"

Row = Mapping[str, Any]
STYLE: Final = (
    f"<style>.wide {{ min-width: {WIDTH}; white-space: normal; overflow-wrap: anywhere; }} "
    "a { color: var(--ink); } thead th { white-space: normal; vertical-align: bottom; } "
    "td small { color: var(--soft); } td svg { width: 8rem; height: auto; display: block; }</style>"
)
"""Beside the style of all pages; put it in front of the page's body."""


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


def wrapped(text: str, *below: str) -> str:
    """Return a cell that is as wide as reads well, with small lines below its text."""
    lines = "".join(f"<br><small>{escape(line)}</small>" for line in below)
    return f'<div class="wide">{escape(text)}{lines}</div>'


def _table(rows: Sequence[Row]) -> str:
    figures = [name for name in rows[0] if name in METRICS]
    heads = [*HEADS, "open", *figures, "took"]
    return table(heads, [_cells(row, figures) for row in rows], numbers=len(figures) + 1)


def _cells(row: Row, figures: Sequence[str]) -> list[str]:
    state = f"{row['state']} (before)" if row["from_before"] else row["state"]
    seconds = row["seconds"]
    below = [row["session"], row["terms"], *([row["run_id"]] if row["run_id"] else [])]
    return [
        wrapped(row["job"], *below),
        row["sparkline"] or NOTHING,
        f"<strong>{escape(state)}</strong>" if row["error"] else escape(state),
        "<br>".join(link(row[name], name) for name in LINKS if row[name]) or NOTHING,
        *(escape(show_figure(row[name], METRICS[name][0])) for name in figures),
        NOTHING if seconds is None else escape(show_seconds(seconds)),
    ]


def _more(notebook: str | None) -> str:
    return f"({link(notebook, 'its notebook')})" if notebook else ""
