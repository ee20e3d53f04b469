"""Walk-forward: choose on the past, trade the next window, move on, judge the out-of-sample trades.

It is the nearest that a recording comes to having traded: every test lies behind all that its
parameters were chosen on, and the tests together are one account.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Unpack

import polars as pl

from fxlab import _html
from fxlab._progress import Advance, Progress, part, shown
from fxlab._times import Duration, from_micros, integer, parse_duration
from fxlab.backtester._frame_source import FrameSource
from fxlab.backtester._source import TickSource, as_source, choose_symbols, span
from fxlab.backtester.engine import backtest
from fxlab.backtester.metrics import _validation
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.metrics._validation import SplitWindow
from fxlab.backtester.options import Options, RunOptions, takes_run_options
from fxlab.backtester.strategy.strategy import Strategy, StrategyFunction, get
from fxlab.errors import EmptySession, InvalidParameter, check_names
from fxlab.schema import UTC_MICROS, check_mapping
from fxlab.sweeper._results import check_metric, check_objective, column_of
from fxlab.sweeper._study import CachedSource
from fxlab.sweeper.sweep import Sweep, sweep

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.backtester.result import Result
    from fxlab.lab import Lab


TIMES: Final = ("train_start", "train_end", "test_start", "test_end")


@dataclass(frozen=True, eq=False)
class WalkForward:
    """What was chosen in each window, and what became of it.

    Attributes
    ----------
    metric : str
        The metric that chose.
    table : polars.DataFrame
        One row a window: ``fold``, `TIMES`, ``point``, the parameters chosen, ``train_<metric>``
        and ``test_<metric>`` of every metric, ``open_at_end`` (positions that the test left
        open), ``reason`` (why a window was not traded).
    results : list of Result
        The backtest of each test that was traded; each begins with what the last one left.
    equity : polars.DataFrame
        Of all tests, one after the other: ``fold``, ``timestamp``, ``equity``, ``drawdown``.

    Examples
    --------
    >>> walk = fxlab.walk_forward(
    ...     ticks, "sma_cross", {"fast": [3, 5], "slow": [20]}, train="1m", test="20s"
    ... )
    >>> walk.summary.columns[:2]
    ['fold', 'train_start']
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
    def pairs(self) -> pl.DataFrame:
        """Return the metric that chose in training and in test, ``in_sample``, ``out_of_sample``.

        A row for each window that has both.
        """
        both = {"in_sample": f"train_{self.metric}", "out_of_sample": f"test_{self.metric}"}
        return self.table.select(
            pl.col(column).alias(name) for name, column in both.items()
        ).drop_nulls()

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

        shown = check_metric(metric or self.metric)
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
        """Return the table with the metric that chose and no other."""
        metrics = [f"{when}_{self.metric}" for when in ("train", "test")]
        apart = ("train_", "test_", "open_at_end")
        names = [n for n in self.table.columns if not n.startswith(apart)]
        return self.table.select(*names[:1], *TIMES, *names[1:], *metrics, "open_at_end")

    def _repr_html_(self) -> str:
        return _html.table(self.summary, caption=str(self))


SPLITS: Final = ("train", "test", "folds", "mode", "embargo")


def check_splits(given: object) -> dict[str, Any]:
    """Return the windows of a walk-forward as a plan has them, checked without a session.

    Raises
    ------
    InvalidParameter, InvalidInput
        For an unknown name ("did you mean"), or windows that are none however long a session is.
    """
    splits = dict(check_mapping("splits", given, "{ train = '6h', test = '1h' }"))
    check_names(splits, SPLITS, "splits")
    if splits and "train" not in splits:
        raise InvalidParameter(
            "splits has no train; write splits = { train = '6h', test = '1h' }, or folds = 5 "
            "instead of test"
        )
    if splits:
        train, embargo, test = (
            parse_duration(splits.get(name, 0), name) for name in ("train", "embargo", "test")
        )
        room = train + embargo + max(1, test) * (integer(splits.get("folds"), 1) or 1)
        _validation.walk_forward(0, room or 1, **splits)
    return splits


def walk_table(walks: Mapping[str, WalkForward]) -> pl.DataFrame:
    """Return what became of the same walk-forward on several sessions, one row each."""
    rows = [
        {
            "session": session,
            "windows": walk.table.height,
            "traded": len(walk.results),
            **walk.pairs.mean().row(0, named=True),
            "total_return": walk.total_return,
            "max_drawdown": walk.max_drawdown,
        }
        for session, walk in walks.items()
    ]
    kinds = dict.fromkeys(("in_sample", "out_of_sample"), pl.Float64)
    return pl.DataFrame(rows, schema_overrides=kinds)


def open_positions(result: Result) -> int:
    """Return how many positions a run left open: marked, not sold."""
    return int(result.trades["exited_at"].null_count())


@takes_run_options
def walk_forward(
    source: Any,  # noqa: ANN401 - a Session or a frame; refused by name otherwise
    strategy: str | Strategy | StrategyFunction,
    parameters: Mapping[str, object],
    *,
    train: Duration,
    test: Duration | None = None,
    folds: int | None = None,
    mode: Literal["rolling", "anchored"] = "rolling",
    embargo: Duration = 0,
    metric: str = "sharpe_per_period",
    search: str = "grid",
    points: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    scheduler: Any = None,  # noqa: ANN401 - an address or a distributed.Client
    lab: Lab | None = None,
    check_lookahead: bool = True,
    progress: Progress = None,
    **options: Unpack[Options],
) -> WalkForward:
    """Sweep over each training, and replay its best point on the test that follows.

    Parameters
    ----------
    source
        A session or a frame of ticks.
    strategy, parameters, metric
        As `fxlab.sweep` takes them; the point with the best metric in training is traded.
    train, test, folds, mode, embargo
        The windows: how long each training and test is, or how many tests; ``"rolling"`` moves
        the training along, ``"anchored"`` begins it at the start; `embargo` lies between the two.
        See `fxlab.backtester.metrics._validation.walk_forward`.
    symbols, start, end, execution, capital, return_interval, days_per_year, chunk_rows
        As `fxlab.backtest` takes them. Each test begins flat, with the equity of the one before;
        what a strategy looks back on lies inside its test. A position that is open where a test
        ends is marked, not sold, and the next test begins without it: `open_at_end` and the text
        say how many there were; ``Execution(close_at_end=True)`` sells them at their cost.
    search, points, seed, workers, scheduler, lab, check_lookahead, progress
        As `fxlab.sweep` takes them.

    Returns
    -------
    WalkForward
        A table of windows, the tests' results, and their equity as one account.

    Raises
    ------
    InvalidParameter, InvalidTimeRange, LookaheadFound, Cancelled
        As `fxlab.sweep` does; and if the windows do not fit into the time range.

    Examples
    --------
    >>> walk = fxlab.walk_forward(
    ...     ticks, "sma_cross", {"fast": [3, 5], "slow": [20]}, train="1m", folds=2
    ... )
    >>> walk.summary.height
    2
    """
    goal = check_objective(metric)
    asked = RunOptions.of(options)
    data = _kept(source, asked)
    first, last = span(data, asked.start, asked.end)
    windows = _validation.walk_forward(
        first, last + 1, train=train, test=test, folds=folds, mode=mode, embargo=embargo
    )
    chosen = get(strategy)
    train_on = partial(
        sweep,
        data,
        chosen,
        parameters,
        metric=goal,
        search=search,
        points=points,
        seed=seed,
        workers=workers,
        scheduler=scheduler,
        lab=lab,
    )
    walk = _Walk(data, chosen, train_on, goal, asked, asked.capital)
    with shown(progress, "walk_forward") as advance:
        for number, window in enumerate(windows):
            share = part(advance, number / len(windows), (number + 1) / len(windows))
            walk.step(window, share, check_lookahead=check_lookahead and not number)
    return walk.result()


@dataclass
class _Walk:
    """A walk under way."""

    source: TickSource
    strategy: Strategy
    train_on: Callable[..., Sweep]
    metric: str
    options: RunOptions
    equity: float
    rows: list[dict[str, Any]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    curves: list[pl.DataFrame] = field(default_factory=list)

    def step(self, window: SplitWindow, progress: Advance, *, check_lookahead: bool) -> None:
        """Choose on a window's training, trade its test."""
        row = {"fold": len(self.rows) + 1, **{name: getattr(window, name) for name in TIMES}}
        self.rows.append(row)
        if self.equity <= 0:
            row["reason"] = "nothing was left of the capital"
            return
        try:
            found = self.train_on(
                check_lookahead=check_lookahead,
                progress=part(progress, 0.0, 0.95),
                **self._options(window.train_start, window.train_end),
            )
            ranking = found.ranking()
            if ranking.is_empty():
                row["reason"] = f"no point has a {self.metric} in training"
                return
            if ranking["ruined"][0]:
                row["reason"] = "every point was ruined in training"
                return
            chosen = int(ranking["point"][0])
            best = found.table.filter(pl.col("point") == chosen).row(0, named=True)
            row |= {"point": chosen, **{f"train_{name}": best[name] for name in METRICS}}
            self._test(window, found.points[chosen].values, row)
        except EmptySession as error:
            row["reason"] = str(error)
        progress(1.0, f"window {row['fold']}")

    def _options(self, start: int, end: int) -> dict[str, Any]:
        """Return the options between two times, with the equity of now as the capital."""
        changed = {"start": from_micros(start), "end": from_micros(end), "capital": self.equity}
        return self.options.keywords() | changed

    def _test(self, window: SplitWindow, values: dict[str, Any], row: dict[str, Any]) -> None:
        row |= {column_of(name): value for name, value in values.items()}
        result = backtest(
            self.source,
            self.strategy,
            values,
            **self._options(window.test_start, window.test_end),
        )
        row |= {f"test_{name}": value for name, value in result.metrics.items()}
        row["open_at_end"] = open_positions(result)
        self.equity = result.metrics["final_equity"]
        self.results.append(result)
        curve = result.equity.select(
            pl.lit(row["fold"], pl.Int64).alias("fold"), "timestamp", "equity"
        )
        self.curves.append(curve)

    def result(self) -> WalkForward:
        """Return all windows."""
        columns = {column_of(p.name): p.kind for p in self.strategy.parameters.values()}
        order = ["fold", *TIMES, "point", *columns]
        metrics = [f"{when}_{name}" for when in ("train", "test") for name in METRICS]
        last = ("open_at_end", "reason")
        rows = [{name: row.get(name) for name in (*order, *metrics, *last)} for row in self.rows]
        kinds = {
            **dict.fromkeys(metrics, pl.Float64),
            "open_at_end": pl.Int64,
            "reason": pl.String,
            "point": pl.Int64,
        }
        table = pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None)
        schema = pl.Schema({"fold": pl.Int64(), "timestamp": UTC_MICROS, "equity": pl.Float64()})
        equity = pl.concat([pl.DataFrame(schema=schema), *self.curves])
        drawdown = (pl.col("equity") / pl.col("equity").cum_max() - 1).alias("drawdown")
        return WalkForward(
            strategy=self.strategy.name,
            session=self.source.id,
            metric=self.metric,
            capital=self.options.capital,
            table=table.with_columns(
                pl.col(TIMES).cast(UTC_MICROS), pl.col(metrics).fill_nan(None)
            ),
            results=self.results,
            equity=equity.with_columns(drawdown),
        )


def _kept(source: object, options: RunOptions) -> TickSource:
    """Return the source with all its ticks in memory, if they fit: windows overlap."""
    if isinstance(source, list | tuple):
        raise InvalidParameter(
            f"walk_forward goes over one session, not over {len(source)}; call it for each"
        )
    data = as_source(source)
    if isinstance(data, FrameSource):
        return data
    held = CachedSource(data)
    chosen = choose_symbols(held, options.symbols)
    for chunks in held.scan_many(chosen, start=options.start, end=options.end).values():
        for _ in chunks:
            pass
    return held
