"""The command that plays a session back, with a live view in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fxlab.cli.backtests import chosen_symbols, given, named
from fxlab.cli.output import INTERRUPTED, live, same_command, say, show_frame
from fxlab.errors import InvalidInput, InvalidParameter
from fxlab.html import show_time

if TYPE_CHECKING:
    from fxlab.replayer import Replay

BATCH_SIZE: Final = 10_000  # a terminal shows moments, not ticks


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


def replay(
    session: Annotated[str | None, typer.Argument(help="The session's id.")] = None,
    *,
    speed: Annotated[float, typer.Option(help="Market seconds a second; inf never waits.")] = 1.0,
    symbols: Annotated[str, typer.Option(help="ALL, or symbols with commas between.")] = "ALL",
    start: Annotated[str | None, typer.Option(help="First tick's time; naive is UTC.")] = None,
    end: Annotated[str | None, typer.Option(help="Ticks before this time.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Run it on the ticks: its name, or module:function.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "--parameter", "-p", metavar="NAME=VALUE", help="May be given again."
        ),
    ] = None,
    capital: Annotated[float | None, typer.Option(help="Money at the start.")] = None,
    taker_bps: Annotated[
        float | None, typer.Option("--taker-bps", "--fee-bps", help="Fee of each fill.")
    ] = None,
    slippage_bps: Annotated[float | None, typer.Option(help="Added to each fill.")] = None,
    latency: Annotated[str | None, typer.Option(help="To the market, such as 50ms.")] = None,
) -> None:
    """Play a session's ticks back in their own time; Ctrl-C stops it and says where."""
    import fxlab

    if session is None:
        raise InvalidInput(
            "session_id is required: fxlab replay SESSION; list the sessions with: "
            "fxlab sessions list"
        )
    costs = given(taker_bps=taker_bps, slippage_bps=slippage_bps, latency=latency)
    run = _run(strategy, parameter or [], costs)
    options = given(start=start, end=end, capital=capital)
    with fxlab.connect() as lab:
        playing = fxlab.replay(
            lab.session(session),
            speed=speed,
            symbols=chosen_symbols(symbols),
            batch_size=BATCH_SIZE,
            **run,
            **options,
        )
        _play(playing)


def _run(strategy: str | None, words: list[str], costs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fxlab.replay` that concern the strategy."""
    import fxlab
    from fxlab.backtester.strategy import get

    if strategy is None:
        if words or costs:
            raise InvalidParameter(
                "--set and costs belong to a strategy; name it as well: --strategy sma_cross"
            )
        return {}
    chosen = get(strategy)
    values = chosen.parse(named(words))
    return {"strategy": chosen, "parameters": values, "execution": fxlab.Execution(**costs)}


def _play(playing: Replay) -> None:
    from fxlab.cli.replay_view import ReplayView

    view = ReplayView(playing)
    try:
        with live(view):
            for batch in playing:
                view.take(batch)
                if batch.progress < 1.0:
                    for symbol in batch.ended:
                        say(f"{symbol} has no ticks after {show_time(batch.timestamp)} UTC")
    except KeyboardInterrupt:
        playing.stop()
        again = same_command(start=playing.position.isoformat())
        anew = " as a new run" if playing.strategy is not None else ""
        say(f"{_where(playing)}; go on{anew} with: {again}")
        raise typer.Exit(INTERRUPTED) from None
    say(_where(playing))
    if playing.strategy is not None:
        show_frame(playing.result.metrics.table(), playing.title)


def _where(playing: Replay) -> str:
    where = f"{show_time(playing.position)} UTC, {playing.progress:.1%} of {playing.total:,} ticks"
    return f"{playing.state} at {where}"
