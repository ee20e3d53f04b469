"""HTML pages of batches and nightly sweeps: tables with links, and errors in full.

A batch has one page. Nightly sweeps have one a night, and one that leads to all nights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fxlab import _html
from fxlab._html import NOTHING
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.report._summary import show_metric, show_seconds
from fxlab.backtester.report._tearsheet import Section, embed, plotly_source
from fxlab.sweeper._cross_validation import verdict

if TYPE_CHECKING:
    from fxlab.sweeper.sweep import Sweep


RANKED: Final = 10


def render_batch(rows: Sequence[Mapping[str, Any]], words: str) -> str:
    """Return the page of a batch.

    Parameters
    ----------
    rows
        Of each job: ``job``, ``state``, ``run_id``, those of `METRICS`, ``seconds``, ``error``,
        ``terms``, ``sparkline`` (SVG), ``notebook`` and ``report`` (links, seen from the page).
    words
        How far the batch is.
    """
    metrics = [name for name in rows[0] if name in METRICS]
    shown = [
        {
            **row,
            "state": f"{row['state']} (before)" if row["from_before"] else row["state"],
            "numbers": [
                *(show_metric(row[name], METRICS[name][0]) for name in metrics),
                NOTHING if row["seconds"] is None else show_seconds(row["seconds"]),
            ],
        }
        for row in rows
    ]
    return _html.page(
        "batch", title="Batch", words=words, now=_now(), rows=shown, metrics=metrics, plotly=""
    )


def render_night(day: date, rows: Sequence[Mapping[str, Any]], sweeps: Mapping[str, Sweep]) -> str:
    """Return the page of one night.

    Parameters
    ----------
    day
        Its date.
    rows
        Of `nightly.SCHEMA`, one a sweep.
    sweeps
        Those that have points, by name.
    """
    shown = [
        {
            **row,
            "notebook": None,
            "figure": show_metric(row["best"], METRICS[row["metric"]][0]),
            "odds": [show_metric(row[name], "probability") for name in ("deflated_sharpe", "pbo")],
            "took": show_seconds(row["seconds"]),
        }
        for row in rows
    ]
    return _html.page(
        "night",
        title=f"Sweeps of {day.isoformat()}",
        now=_now(),
        rows=shown,
        sections=[_section(number, *found) for number, found in enumerate(sweeps.items())],
        plotly=plotly_source() if sweeps else "",
    )


def render_all(root: Path) -> str:
    """Return the page that leads to all nights in a folder, the newest first."""
    nights = sorted((path.parent.name for path in root.glob("*/index.html")), reverse=True)
    return _html.page("nights", title="Nights", nights=nights, plotly="")


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _section(number: int, name: str, found: Sweep) -> Section:
    """Return the picture of a sweep and its best points."""
    words = [] if found.table.is_empty() else [verdict(found)]
    best = found.ranking().head(RANKED)
    if best.is_empty():
        return name, [*words, str(found)]
    if len(found.sessions) == 1:
        best = best.drop("sessions", "worst", "best")
    digits = dict.fromkeys((found.metric, "worst", "best"), 4)
    ranked = _html.table(best, caption="The best points", decimals=digits, inline=False)
    figure = found.heatmap() if len(found.varied) > 1 else found.parallel()
    return name, [*words, embed(figure, f"sweep-{number}", ""), ranked]
