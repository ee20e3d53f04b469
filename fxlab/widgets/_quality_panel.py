"""Quality panel: score of a session with its reasons, statistics, gaps, charts, book heat map."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import ipywidgets as w
import polars as pl
import traitlets as t

from fxlab import _html
from fxlab.sessions._candles import SessionCharts
from fxlab.sessions._statistics import reasons_of
from fxlab.widgets._backtest_panel import LaunchPanel
from fxlab.widgets._base import in_line, label_width, unless_cancelled
from fxlab.widgets._figures import ZoomSampler

if TYPE_CHECKING:
    from fxlab._progress import Advance
    from fxlab.lab import Lab
    from fxlab.sessions._statistics import Analysis

CHARTS: Final = {
    "session": "price, volume, spread",
    "candles": "candles",
    "depth": "order-book heat map",
}
"""Charts by their key in `fxlab.Session.charts`, and what the panel calls them."""


SYMBOLS: Final = 8
"""Symbols whose statistics stand beside each other."""


class _Found(NamedTuple):
    """What there is to show of one symbol of a session."""

    analysis: Analysis
    charts: SessionCharts
    seconds: float


class QualityPanel(LaunchPanel):
    """Session on top; Run; its score with reasons, charts of a symbol, statistics and gaps below.

    Parameters
    ----------
    lab
        Where the sessions are.
    session_id
        The session chosen at first; the newest unless given.

    Attributes
    ----------
    analysis : Analysis or None
        The last one that ended; observable.
    """

    analysis = t.Any(None, allow_none=True)

    def __init__(self, lab: Lab, *, session_id: str | None = None) -> None:
        super().__init__(lab, session_id)
        self._charts: SessionCharts | None = None
        style = label_width(["Chart"])
        self.chart = w.Dropdown(description="Chart", options=[], style=style)
        self.chart.layout.display = "none"
        self.score = w.HTML()
        self.score.add_class("fxlab-scrolled")
        self.run.tooltip = "Read all ticks of the session and say what is wrong with them"
        row = in_line([self.run, self.note, self.progress])
        self.zoom = ZoomSampler(self.plot, self.message)
        self._lay_out([row, self.message, self.score, self.chart, self.plot, self.zoom])
        self.chart.observe(lambda _: self._draw(), "value")
        self._tell()

    def __repr__(self) -> str:
        """Show what is chosen and the last analysis."""
        return f"<QualityPanel>\n{self.picker!r}\n{self.analysis or 'not analysed yet'}"

    def _tell(self) -> None:
        """Say beside Run why it cannot run, or of which symbol charts are drawn."""
        symbols = self.picker.symbols
        several = (
            f"gaps and charts are those of {symbols[0]}, the first chosen"
            if len(symbols) > 1
            else ""
        )
        self.note.tell(self._work, "; ".join(filter(None, (several, self.picker.hidden))))

    def _work(self) -> Callable[[Advance], _Found]:
        session, symbols = self.picker.chosen

        def work(progress: Advance) -> _Found:
            began = time.perf_counter()
            progress(0.05, "statistics and quality")
            analysis = session.analysis()
            progress(0.6, f"charts of {symbols[0]}")
            charts = SessionCharts(session, symbols[0])
            _ = charts.whole, charts.gaps  # read here, beside the kernel's own thread
            return _Found(analysis, charts, time.perf_counter() - began)

        return lambda progress: unless_cancelled(lambda: work(progress), self.progress.check)

    def _show(self, outcome: _Found) -> None:
        found, rows = outcome.analysis, outcome.analysis.statistics["rows"].sum()
        self.progress.finish(f"{rows:,} ticks in {outcome.seconds:.2f} s")
        self.score.value = found.quality._repr_html_()
        self.figures.value = _page(outcome)
        charts = list(outcome.charts.whole)
        shown = self.chart.value
        self._charts = None  # a list that gets its options chooses, which is no wish to draw
        self.chart.options = [(CHARTS[key], key) for key in charts]
        self.chart.value = shown if shown in charts else charts[0]
        self.chart.layout.display = None
        self._charts = outcome.charts
        self._draw()
        self.analysis = found

    def _draw(self) -> None:
        key = self.chart.value
        if self._charts is not None and key is not None:
            text = f"{CHARTS[key]}: drawn where plotly is"
            self.zoom.show(self._charts.whole[key], text, partial(self._charts.view, key))


def _page(found: _Found) -> str:
    """Return statistics, a column a symbol, and the gaps, as HTML."""
    shown = found.analysis.statistics.head(SYMBOLS)
    columns = {row["symbol"]: list(map(_html.show, row.values())) for row in shown.to_dicts()}
    rows = pl.DataFrame({"statistic": list(map(_html.heading, shown.columns)), **columns})
    more = f" of {SYMBOLS} of {found.analysis.statistics.height:,} symbols"
    caption = "Statistics" + more * (found.analysis.statistics.height > SYMBOLS)
    statistics = _html.table(rows, caption=caption, right=list(columns), literal=list(columns))
    why = _html.paragraphs(list(reasons_of(found.analysis.missing)))
    gaps = (
        _html.paragraphs(["No gaps are known."])
        if found.charts.gaps.is_empty()
        else _html.table(found.charts.gaps, caption="Gaps")
    )
    return f"{gaps}<details><summary>Statistics</summary>{statistics}{why}</details>"
