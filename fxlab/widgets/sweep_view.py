"""What a panel shows of a sweep: its picture, its best and its steadiest points, and the guards.

All of it is made beside the kernel's own thread: judging a sweep takes a second, and clicks must be
heard meanwhile.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from fxlab import html
from fxlab.errors import FxlabError
from fxlab.sweeper.estimate import duration_words

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.sweeper.sweep import Sweep

RANKED: Final = 10
_STEADY: Final = ("neighbourhood_mean", "neighbourhood_min", "neighbours", "rank")


@dataclass(frozen=True)
class Seen:
    """A sweep and all that is shown of it.

    Attributes
    ----------
    found
        The sweep.
    figure
        Its heat map; None if no point has the figure.
    page
        HTML below it.
    line
        How many points ended how, and how long it took.
    stopped
        Why there are fewer points than asked for; empty if there are not.
    """

    found: Sweep
    figure: go.Figure | None
    page: str
    line: str
    stopped: str = ""


def see(found: Sweep, began: float, stopped: str = "") -> Seen:
    """Return what to show of a sweep that began at `began`, as `time.perf_counter` counts."""
    seconds = time.perf_counter() - began
    return Seen(
        found=found,
        figure=_figure(found),
        page=_page(found),
        line=f"{found.counts} in {duration_words(seconds)}",
        stopped=stopped,
    )


def _figure(found: Sweep) -> go.Figure | None:
    if found.ranking().is_empty():
        return None
    return found.heatmap() if len(found.varied) > 1 else found.parallel()


def _page(found: Sweep) -> str:
    """Return the best points, the steadiest ones, and how much of it is chance."""
    errors = "".join(f"<p>{html.escape(text)}</p>" for text in found.failed["error"].head(3))
    best = found.ranking().head(RANKED)
    if best.is_empty():
        return f"<p>{html.escape(found.counts)}</p>{errors}"
    digits = dict.fromkeys((found.metric, *_STEADY[:2]), 4)
    whole = best.drop("sessions", "worst", "best")
    caption = f"The best points by {html.heading(found.metric)}"
    ranked = html.table(whole, caption=caption, decimals=digits)
    return f"{_judged(found)}{ranked}{_steady(found, digits)}{errors}"


def _judged(found: Sweep) -> str:
    try:
        return f"<p>{html.escape(found.overfitting())}</p>"
    except FxlabError as error:
        return f"<p>{html.escape(error)}</p>"


def _steady(found: Sweep, digits: dict[str, int]) -> str:
    if not found.varied:
        return ""
    names = [*found.varied, found.metric, *_STEADY]
    steady = found.stability().filter(pl.col("rank").is_not_null()).head(RANKED).select(names)
    shown = html.table(steady, caption="A point beside its neighbours on the grid", decimals=digits)
    return f"<details><summary>The steadiest points</summary>{shown}</details>"
