"""Commands of single runs: backtest, reproduce, cost ladder, compare, look-ahead check, replay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fxlab._cli.common import (
    INTERRUPTED,
    ListsByDefault,
    command,
    for_shell,
    is_text,
    live,
    same_command,
    say,
    show_facts,
    show_frame,
    show_newest,
    show_rows,
    takes,
)
from fxlab._html import show_number, show_time
from fxlab.errors import InvalidInput, InvalidParameter

if TYPE_CHECKING:
    from fxlab.backtester.execution import Execution
    from fxlab.backtester.result import Result
    from fxlab.replayer._cursor import ReplayBatch
    from fxlab.replayer.replay import Replay

SUFFIX: Final = ".toml"


def execution_from(words: list[str] | None, **options: Any) -> Execution:  # noqa: ANN401
    """Return the assumptions that the words of ``--execution`` and the other options make.

    Raises
    ------
    InvalidParameter
        For an unknown name, with those that are near, or a value that is out of range.
    """
    from fxlab.backtester.options import execution_of, parse_assumption, read_assumptions

    values: dict[str, Any] = {}
    for word in words or []:
        is_file = word.lower().endswith(SUFFIX) and "=" not in word
        values |= read_assumptions(Path(word)) if is_file else dict([parse_assumption(word)])
    return execution_of(values | options)


EVERY: Final = 1_000_000
"""More rows than any list of the small tables has: all are counted."""

Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="May be given again."),
]
Name = Annotated[str, typer.Argument(help="The strategy's name, or module:function.")]
Symbols = Annotated[str, typer.Option(help="ALL, or symbols with commas between.")]
Start = Annotated[str | None, typer.Option(help="First tick's time; naive is UTC.")]
End = Annotated[str | None, typer.Option(help="Ticks before this time.")]
Limit = Annotated[int, typer.Option(min=1, help="Most rows to list, newest first.")]
SAVE_ONE: Final = "fxlab backtest SESSION STRATEGY --save"
NO_DELETED: Final = "none is deleted"

Deleted = Annotated[bool, typer.Option("--deleted", help="Those that are deleted.")]
RunText = Annotated[str, typer.Option("--text", help="Words in id, session, parameters, ...")]
RunId = Annotated[str, typer.Argument(help="Id of a saved run; see fxlab runs list.")]


class RunWords:
    """The options of a run, as every command that runs a strategy takes them."""

    symbols: Symbols = "ALL"
    start: Start = None
    end: End = None
    capital: Annotated[float | None, typer.Option(help="Money at the start.")] = None
    fill: Annotated[
        str | None, typer.Option(help="next_trade, or book: cross the spread, walk it.")
    ] = None
    taker_bps: Annotated[
        float | None, typer.Option("--taker-bps", "--fee-bps", help="Fee of each market order.")
    ] = None
    maker_bps: Annotated[
        float | None, typer.Option(help="Fee of resting limit orders; else the taker's.")
    ] = None
    slippage_bps: Annotated[
        float | None, typer.Option(help="How far fills are worse than prints.")
    ] = None
    latency: Annotated[
        str | None,
        typer.Option(help="To the market: 50ms, measured, lognormal:20ms,0.5, uniform:10ms,40ms."),
    ] = None
    execution: Annotated[
        list[str] | None,
        typer.Option(
            "--execution",
            "-x",
            metavar="FILE.toml|NAME=VALUE",
            help="Anything else of fxlab.Execution: a TOML file, or max_leverage=2. May be given "
            "again; later words and the options above win.",
        ),
    ] = None


Words = dict[str, Any]
"""What was typed, by the names of options."""


def run_options(
    *,
    symbols: str,
    start: str | None,
    end: str | None,
    capital: float | None,
    execution: list[str] | None,
    **assumptions: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return the words of a run, checked, as `fxlab.backtest` and its like take them."""
    run = given(symbols=chosen_symbols(symbols), start=start, end=end, capital=capital)
    assumed = given(**assumptions)
    if assumed or execution:
        run["execution"] = execution_from(execution, **assumed)
    return run


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(backtest)
    command(app)(strategies)
    group = typer.Typer(cls=ListsByDefault, rich_markup_mode=None, help="List and show saved runs.")
    command(group, "list")(list_runs)
    command(group, "show")(show_run)
    command(group, "delete")(delete_run)
    command(group, "undelete")(undelete_run)
    app.add_typer(group, name="runs")
    app.command()(reproduce)
    command(app, "cost-ladder")(cost_ladder)
    command(app, "compare-runs")(compare_runs)
    app.command("check-lookahead")(check_lookahead)
    app.command()(replay)
    # as they were spelled before 0.4; until 0.5
    command(app, "ladder", hidden=True)(cost_ladder)
    command(app, "compare", hidden=True)(compare_runs)
    app.command("check", hidden=True)(check_lookahead)


def strategies() -> None:
    """List the strategies and their parameters."""
    import fxlab

    show_frame(fxlab.strategies())


@takes(RunWords)
def backtest(
    session: Annotated[str | None, typer.Argument(help="The session's id.")] = None,
    strategy: Annotated[str | None, typer.Argument(help="Its name, or module:function.")] = None,
    *,
    parameter: Parameters = None,
    options: Words,
    report: Annotated[Path | None, typer.Option(help="Write a report to this folder.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Keep the run in the database.")] = False,
) -> None:
    """Replay a session's ticks through a strategy and print the metrics."""
    import fxlab
    from fxlab.backtester.strategy.strategy import get

    if session is None or strategy is None:
        raise InvalidInput(
            "session_id is required: fxlab backtest SESSION STRATEGY; list the sessions with: "
            "fxlab sessions list"
        )
    chosen = get(strategy)
    values = chosen.parse(named(parameter or []))
    asked = run_options(**options)
    with fxlab.connect() as lab:
        result = fxlab.backtest(lab.session(session), chosen, values, **asked)
        saved = result.save(lab) if save else None
        _show_result(result, saved, report)  # a report reads prices: the lab must be open


def list_runs(*, limit: Limit = 20, text: RunText = "", deleted: Deleted = False) -> None:
    """List the saved backtests, newest first."""
    import fxlab

    with fxlab.connect() as lab:
        found = lab.runs(limit=EVERY, text=text, deleted=deleted)
    none = "no saved run" + " has all these words" * bool(text)
    show_newest(
        found,
        limit,
        empty=NO_DELETED if deleted else f"{none}; save one with: {SAVE_ONE}",
        leave_out=("fingerprint", "execution", "options", "metrics", "fxlab_version"),
    )


def show_run(run_id: RunId) -> None:
    """Show one saved run: what made it, and its metrics."""
    import fxlab

    with fxlab.connect() as lab:
        run = lab.run(run_id)
        gone = run.session_deleted
    facts = dict(run)
    metrics = facts.pop("metrics")
    show_facts(facts.items(), "run", key="run")
    show_rows(("metric", "value"), metrics.items(), "metrics", key="metrics")
    if gone:
        say(for_shell(gone))


def delete_run(run_id: RunId) -> None:
    """Hide a saved run; nothing of it is lost, and undelete brings it back."""
    import fxlab

    with fxlab.connect() as lab:
        lab.delete_run(run_id)
    say(f"{run_id} is deleted; fxlab runs undelete {run_id} brings it back")


def undelete_run(
    run_id: Annotated[str, typer.Argument(help="The id; see fxlab runs list --deleted.")],
) -> None:
    """Bring a deleted run back."""
    import fxlab

    with fxlab.connect() as lab:
        say(f"{lab.undelete_run(run_id).run_id} is back")


def reproduce(
    run_id: RunId,
) -> None:
    """Run a saved backtest again and compare every bit; exit code 1 if one differs."""
    import fxlab

    with fxlab.connect() as lab:
        found = lab.reproduce(run_id)
    say(str(found))
    if found.difference:
        raise typer.Exit(1)


def _show_result(result: Result, saved: str | None, report: Path | None) -> None:
    from fxlab.backtester.report._summary import caveats

    page = None if report is None else result.report(report)
    facts = {
        "run": result.run_id,
        "fingerprint": result.fingerprint,
        "saved": saved,
        "report": page,
    }
    if not is_text():
        show_facts({"title": result.title, **facts}.items(), "run", key="run")
    show_frame(result.metrics.table(), result.title, key="metrics")
    said = caveats(result)
    if said:
        say(said)
    say(f"run {result.run_id}, fingerprint {result.fingerprint}")
    for name in ("saved", "report"):
        if facts[name] is not None:
            say(f"{name}: {facts[name]}")


def chosen_symbols(text: str) -> str | list[str]:
    """Return ALL as it is, else the list of symbols."""
    if text.strip().upper() == "ALL":
        return "ALL"
    return [symbol.strip().upper() for symbol in text.split(",") if symbol.strip()]


def named(words: list[str], option: str = "-p") -> dict[str, str]:
    """Return name and value of each NAME=VALUE word of an option."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(f"{option} {word!r} is not NAME=VALUE, such as {option} fast=50")
        if name in values:
            raise InvalidParameter(f"{option} {name} is given twice")
        values[name.strip()] = value
    return values


def given(**options: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever the options hold
    """Return the options that were given, so that each default stands in one place only."""
    return {name: value for name, value in options.items() if value is not None}


Session = Annotated[str, typer.Argument(help="The session's id.")]


@takes(RunWords)
def cost_ladder(
    session: Session,
    strategy: Name,
    *,
    parameter: Parameters = None,
    options: Words,
) -> None:
    """Replay the same signals under no, half, all and double costs, and under longer delays."""
    import fxlab

    chosen, values = _strategy(strategy, parameter)
    asked = run_options(**options)
    with fxlab.connect() as lab:
        found = fxlab.cost_ladder(lab.session(session), chosen, values, **asked)
    show_frame(
        found.table,
        f"{chosen.describe(values)} on {session}; {found.results['as given'].execution}",
        leave_out=("execution",),
    )


def compare_runs(
    runs: Annotated[list[str], typer.Argument(help="Ids of saved runs; see fxlab runs list.")],
) -> None:
    """Show saved runs side by side: what made them differ, and every metric."""
    import fxlab

    with fxlab.connect() as lab:
        found = fxlab.compare_runs([lab.run(run_id) for run_id in runs])
    show_frame(
        found.differences,
        "what differs",
        empty="nothing that made these runs differs",
        key="differences",
    )
    show_frame(found.table, "figures", key="figures")


def check_lookahead(
    session: Session,
    strategy: Name,
    *,
    parameter: Parameters = None,
    symbols: Symbols = "ALL",
    start: Start = None,
    end: End = None,
    cuts: Annotated[int | None, typer.Option(min=1, help="Cuts of each symbol's ticks.")] = None,
    rows: Annotated[int | None, typer.Option(min=2, help="Only so many first ticks.")] = None,
) -> None:
    """Change the future at many ticks; exit code 1 if the strategy notices."""
    import fxlab

    chosen, values = _strategy(strategy, parameter)
    options = given(start=start, end=end, cuts=cuts, sample_rows=rows)
    with fxlab.connect() as lab:
        found = fxlab.check_lookahead(
            lab.session(session),
            chosen,
            values,
            symbols=chosen_symbols(symbols),
            **options,
        )
    say(str(found))


def _strategy(name: str, words: list[str] | None) -> tuple[Any, dict[str, Any]]:
    """Return the strategy, and all its parameters as the words of ``-p`` set them."""
    from fxlab.backtester.strategy.strategy import get

    chosen = get(name)
    return chosen, chosen.check(chosen.parse(named(words or [])))


class ReplayView:
    """Turns the batches of a replay into a picture of text."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._batch: ReplayBatch | None = None
        self._first: dict[str, float] = {}

    def take(self, batch: ReplayBatch) -> None:
        """Remember the newest batch."""
        self._batch = batch
        for symbol, price in batch.prices.items():
            self._first.setdefault(symbol, price)

    def picture(self) -> RenderableType:
        """Return the picture of the newest batch."""
        if self._batch is None:
            return Text(f"reading {self._replay.title}")
        parts: list[RenderableType] = [self._clock(self._batch), self._market(self._batch)]
        if self._batch.equity is not None:
            money = f"equity {self._batch.equity:,.2f}   {self._batch.fills_count:,} fills"
            parts.append(Text(money))
        return Group(*parts)

    def _clock(self, batch: ReplayBatch) -> Table:
        line = Table.grid(padding=(0, 2))
        behind = f"{batch.lag:.1f} s behind" if batch.lag > 0.5 else ""
        line.add_row(
            Text(f"{batch.timestamp:%Y-%m-%d %H:%M:%S} UTC", style="bold"),
            ProgressBar(total=1.0, completed=batch.progress, width=30),
            Text(f"{batch.progress:.1%} of the ticks"),
            Text(f"speed {self._replay.speed:g}"),
            Text(behind, style="yellow"),
        )
        return line

    def _market(self, batch: ReplayBatch) -> Table:
        trading = batch.positions is not None
        columns = ["symbol", "price", "change", *(["position"] if trading else []), ""]
        table = Table(*columns, title=Text(self._replay.title), title_justify="left", min_width=60)
        for symbol, price in batch.prices.items():
            change = price / self._first[symbol] - 1
            cells = [symbol, show_number(price), f"{change:+.2%}"]
            if batch.positions is not None:
                cells.append(show_number(batch.positions[symbol]))
            ended = "ended" if symbol in self._replay.ended else ""
            texts = [Text(cells[0]), *(Text(cell, justify="right") for cell in cells[1:])]
            table.add_row(*texts, Text(ended, style="dim"))
        return table


BATCH_SIZE: Final = 10_000  # a terminal shows moments, not ticks


@takes(RunWords)
def replay(
    session: Annotated[str | None, typer.Argument(help="The session's id.")] = None,
    *,
    speed: Annotated[float, typer.Option(help="Market seconds a second; inf never waits.")] = 1.0,
    options: Words,
    strategy: Annotated[
        str | None, typer.Option(help="Run it on the ticks: its name, or module:function.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "--parameter", "-p", metavar="NAME=VALUE", help="May be given again."
        ),
    ] = None,
) -> None:
    """Play a session's ticks back in their own time; Ctrl-C stops it and says where."""
    import fxlab
    from fxlab.backtester.strategy.strategy import get

    if session is None:
        raise InvalidInput(
            "session_id is required: fxlab replay SESSION; list the sessions with: "
            "fxlab sessions list"
        )
    asked = run_options(**options)
    if strategy is not None:
        chosen = get(strategy)
        asked |= {"strategy": chosen, "parameters": chosen.parse(named(parameter or []))}
    elif parameter or "execution" in asked:
        raise InvalidParameter(
            "--set and costs belong to a strategy; name it as well: --strategy sma_cross"
        )
    with fxlab.connect() as lab:
        playing = fxlab.replay(
            lab.session(session),
            speed=speed,
            batch_size=BATCH_SIZE,
            progress=False,  # the live view has one
            **asked,
        )
        _play(playing)


def _play(playing: Replay) -> None:
    view = ReplayView(playing)
    try:
        with live(view.picture):
            for batch in playing:
                view.take(batch)
                for symbol in batch.ended:
                    if batch.progress < 1.0 or playing.ended[symbol] < batch.timestamp:
                        say(f"{symbol} has no ticks after {show_time(playing.ended[symbol])} UTC")
    except KeyboardInterrupt:
        playing.stop()
        again = same_command(start=playing.position.isoformat())
        how = " as a new run" if playing.strategy is not None else ""
        say(f"{_where(playing)}; go on{how} with: {again}")
        raise typer.Exit(INTERRUPTED) from None
    say(_where(playing))
    if playing.strategy is not None:
        show_frame(playing.result.metrics.table(), playing.title)


def _where(playing: Replay) -> str:
    where = f"{show_time(playing.position)} UTC, {playing.progress:.1%} of {playing.total:,} ticks"
    return f"{playing.state} at {where}"
