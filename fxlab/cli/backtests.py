"""Commands about strategies: list them, run one on a session."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fxlab import progress
from fxlab.cli import assumptions
from fxlab.cli.output import command, is_text, say, show_facts, show_frame
from fxlab.errors import InvalidInput, InvalidParameter

if TYPE_CHECKING:
    from fxlab.backtester.result import Result

EVERY: Final = 1_000_000
"""More rows than any list of the small tables has: how many there are is told."""

Parameters = Annotated[
    list[str] | None,
    typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="May be given again."),
]
Name = Annotated[str, typer.Argument(help="The strategy's name, or module:function.")]
Symbols = Annotated[str, typer.Option(help="ALL, or symbols with commas between.")]
Start = Annotated[str | None, typer.Option(help="First tick's time; naive is UTC.")]
End = Annotated[str | None, typer.Option(help="Ticks before this time.")]
Capital = Annotated[float | None, typer.Option(help="Money at the start.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(backtest)
    command(app)(strategies)
    command(app)(runs)
    app.command()(reproduce)


def strategies() -> None:
    """List the strategies and their parameters."""
    import fxlab

    show_frame(fxlab.strategies())


def backtest(
    session: Annotated[str | None, typer.Argument(help="The session's id.")] = None,
    strategy: Annotated[str | None, typer.Argument(help="Its name, or module:function.")] = None,
    *,
    parameter: Parameters = None,
    symbols: Symbols = "ALL",
    start: Start = None,
    end: End = None,
    capital: Capital = None,
    fill: assumptions.Fill = None,
    taker_bps: assumptions.Taker = None,
    maker_bps: assumptions.Maker = None,
    slippage_bps: assumptions.Slippage = None,
    latency: assumptions.Latency = None,
    execution: assumptions.More = None,
    report: Annotated[Path | None, typer.Option(help="Write a report to this folder.")] = None,
    save: Annotated[bool, typer.Option("--save", help="Keep the run in the database.")] = False,
) -> None:
    """Replay a session's ticks through a strategy and print the metrics."""
    import fxlab
    from fxlab.backtester.strategy import get

    if session is None or strategy is None:
        raise InvalidInput(
            "session_id is required: fxlab backtest SESSION STRATEGY; list the sessions with: "
            "fxlab sessions list"
        )
    chosen = get(strategy)
    values = chosen.parse(named(parameter or []))
    terms = assumptions.execution_from(
        execution,
        fill=fill,
        taker_bps=taker_bps,
        maker_bps=maker_bps,
        slippage_bps=slippage_bps,
        latency=latency,
    )
    options = given(start=start, end=end, capital=capital)
    with fxlab.connect() as lab:
        with progress.terminal("backtest") as advance:
            result = fxlab.backtest(
                lab.session(session),
                chosen,
                values,
                symbols=chosen_symbols(symbols),
                execution=terms,
                progress=advance,
                **options,
            )
        saved = result.save(lab) if save else None
        _show_result(result, saved, report)  # a report reads prices: the lab must be open


def runs(
    *,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to list, newest first.")] = 20,
) -> None:
    """List the saved backtests, newest first."""
    import fxlab

    with fxlab.connect() as lab:
        found = lab.runs(limit=EVERY)
    show_frame(
        found.head(limit),
        empty="no saved runs; save one with: fxlab backtest SESSION STRATEGY --save",
        total=found.height,
        more="--limit shows more",
        leave_out=("fingerprint", "execution", "options", "metrics", "fxlab_version"),
    )


def reproduce(
    run_id: Annotated[str, typer.Argument(help="Id of a saved run; fxlab runs lists them.")],
) -> None:
    """Run a saved backtest again and compare every bit; exit code 1 if one differs."""
    import fxlab

    with fxlab.connect() as lab, progress.terminal("reproduce") as advance:
        found = lab.reproduce(run_id, progress=advance)
    say(str(found))
    if found.difference:
        raise typer.Exit(1)


def _show_result(result: Result, saved: str | None, report: Path | None) -> None:
    from fxlab.backtester.summary import ruin

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
    said = ruin(result)
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
