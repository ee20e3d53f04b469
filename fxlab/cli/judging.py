"""Commands that doubt a result: other costs, other runs, a look into the future."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fxlab import progress
from fxlab.cli import assumptions
from fxlab.cli.backtests import (
    Capital,
    End,
    Name,
    Parameters,
    Start,
    Symbols,
    chosen_symbols,
    given,
    named,
)
from fxlab.cli.output import command, say, show_frame

Session = Annotated[str, typer.Argument(help="The session's id.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(ladder)
    command(app)(compare)
    app.command()(check)


def ladder(
    session: Session,
    strategy: Name,
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
) -> None:
    """Replay the same signals under no, half, all and double costs, and under longer delays."""
    import fxlab

    chosen, values = _strategy(strategy, parameter)
    costs = {"maker_bps": maker_bps, "slippage_bps": slippage_bps, "latency": latency}
    terms = assumptions.execution_from(execution, fill=fill, taker_bps=taker_bps, **costs)
    options = given(start=start, end=end, capital=capital)
    with fxlab.connect() as lab, progress.terminal("ladder") as advance:
        found = fxlab.cost_ladder(
            lab.session(session),
            chosen,
            values,
            symbols=chosen_symbols(symbols),
            execution=terms,
            progress=advance,
            **options,
        )
    show_frame(
        found.table,
        f"{chosen.describe(values)} on {session}; {terms}",
        leave_out=("execution",),
    )


def compare(
    runs: Annotated[list[str], typer.Argument(help="Ids of saved runs; fxlab runs lists them.")],
) -> None:
    """Show saved runs side by side: what made them differ, and every figure."""
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


def check(
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
    with fxlab.connect() as lab, progress.terminal("check") as advance:
        found = fxlab.check_lookahead(
            lab.session(session),
            chosen,
            values,
            symbols=chosen_symbols(symbols),
            progress=advance,
            **options,
        )
    say(str(found))


def _strategy(name: str, words: list[str] | None) -> tuple[Any, dict[str, Any]]:
    """Return the strategy, and all its parameters as the words of ``-p`` set them."""
    from fxlab.backtester.strategy import get

    chosen = get(name)
    return chosen, chosen.check(chosen.parse(named(words or [])))
