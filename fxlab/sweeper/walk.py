"""The result of a walk-forward: what was chosen in each window, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from fxlab import html
from fxlab.backtester.metric_table import METRICS
from fxlab.sweeper import scores

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.backtester.result import Result

TIMES: Final = ("train_start", "train_end", "test_start", "test_end")


@dataclass(frozen=True, eq=False)
class WalkForward:
    """What was chosen in each window, and what became of it.

    Attributes
    ----------
    metric : str
        The figure that chose.
    table : polars.DataFrame
        One row a window: ``fold``, `TIMES`, ``point``, the parameters chosen, ``train_<figure>``
        and ``test_<figure>`` of every figure, ``open_at_end`` (positions that the test left
        open), ``reason`` (why a window was not traded).
    results : list of Result
        The backtest of each test that was traded; each begins with what the last one left.
    equity : polars.DataFrame
        Of all tests, one after the other: ``fold``, ``timestamp``, ``equity``, ``drawdown``.
    """

    strategy: str
    session: str
    metric: str
    capital: float
    table: pl.DataFrame = field(repr=False)
    results: list[Result] = field(repr=False)
    equity: pl.DataFrame = field(repr=False)

    @property
    def total_return(self) -> float:
        """Return what all tests together made of the capital."""
        final = self.results[-1].metrics["final_equity"] if self.results else self.capital
        return final / self.capital - 1.0

    @property
    def max_drawdown(self) -> float:
        """Return the deepest drawdown over all tests; 0 if nothing was traded."""
        deepest = self.equity["drawdown"].min()
        return float(deepest) if isinstance(deepest, float) else 0.0

    @property
    def open_at_seams(self) -> int:
        """Return how many positions were open where a test ended and another one followed.

        They are marked there, at no cost, and the next test begins flat.
        """
        return sum(open_positions(result) for result in self.results[:-1])

    def plot(self, metric: str | None = None) -> go.Figure:
        """Return a figure of training and test, window by window."""
        from fxlab.charts import walk_forward_chart

        shown = scores.check_metric(metric or self.metric)
        shown_not = ("reason", "point", "fold", "open_at_end")
        return walk_forward_chart(
            self.table.drop(shown_not), shown, self.title, unit=METRICS[shown][0]
        )

    @property
    def title(self) -> str:
        """Return one line that says what came out, or why nothing did."""
        if not self.results:
            count = f"none of {self.table.height:,} windows"
            return f"{self.strategy} on {self.session}: {count} was traded: {self._usual_reason}"
        return (
            f"{self.strategy} on {self.session}: {self.total_return:+.2%} out of sample in "
            f"{len(self.results):,} of {self.table.height:,} windows, max drawdown "
            f"{self.max_drawdown:.2%}"
        )

    @property
    def _usual_reason(self) -> str:
        return str(self.table["reason"].drop_nulls().mode(maintain_order=True).first())

    def __str__(self) -> str:
        """Say it in one line, with what is left out of it."""
        return f"{self.title}{self._seams}"

    @property
    def _seams(self) -> str:
        count, seams = self.open_at_seams, len(self.results) - 1
        if not count:
            return ""
        return (
            f"; {count} position{'s were' if count > 1 else ' was'} open at the {seams} "
            f"seam{'s' * (seams > 1)} between tests and left without the cost of an exit "
            "(execution=Execution(close_at_end=True) sells them)"
        )

    @property
    def summary(self) -> pl.DataFrame:
        """Return the table with the figure that chose and no other."""
        figures = [f"{when}_{self.metric}" for when in ("train", "test")]
        apart = ("train_", "test_", "open_at_end")
        names = [n for n in self.table.columns if not n.startswith(apart)]
        return self.table.select(*names[:1], *TIMES, *names[1:], *figures, "open_at_end")

    def _repr_html_(self) -> str:
        return html.table(self.summary, caption=str(self))


def open_positions(result: Result) -> int:
    """Return how many positions a run left open: marked, not sold."""
    return int(result.trades["exited_at"].null_count())
