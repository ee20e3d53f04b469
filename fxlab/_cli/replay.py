"""Command that replays a session, with its live view in a terminal: market time, prices, money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fxlab._cli.backtest import chosen_symbols, given, named
from fxlab._cli.common import INTERRUPTED, live, same_command, say, show_frame
from fxlab._html import show_number, show_time
from fxlab.errors import InvalidInput, InvalidParameter

if TYPE_CHECKING:
    from fxlab.replayer._player import ReplayBatch
    from fxlab.replayer.replay import Replay


class ReplayView:
    """Turns the batches of a replay into a picture of text; `rich.live.Live` redraws it."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._batch: ReplayBatch | None = None
        self._first: dict[str, float] = {}

    def take(self, batch: ReplayBatch) -> None:
        """Remember the newest batch."""
        self._batch = batch
        for symbol, price in batch.prices.items():
            self._first.setdefault(symbol, price)

    def __rich__(self) -> RenderableType:
        """Return the picture of the newest batch."""
        if self._batch is None:
            return Text(f"reading {self._replay.title}")
        parts: list[RenderableType] = [self._clock(self._batch), self._market(self._batch)]
        if self._batch.equity is not None:
            parts.append(self._money(self._batch))
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

    def _money(self, batch: ReplayBatch) -> Text:
        return Text(f"equity {batch.equity:,.2f}   {batch.fills_count:,} fills")


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
            progress=False,  # the live view has one
            **run,
            **options,
        )
        _play(playing)


def _run(strategy: str | None, words: list[str], costs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `fxlab.replay` that concern the strategy."""
    import fxlab
    from fxlab.backtester.strategy.strategy import get

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
        how = " as a new run" if playing.strategy is not None else ""
        say(f"{_where(playing)}; go on{how} with: {again}")
        raise typer.Exit(INTERRUPTED) from None
    say(_where(playing))
    if playing.strategy is not None:
        show_frame(playing.result.metrics.table(), playing.title)


def _where(playing: Replay) -> str:
    where = f"{show_time(playing.position)} UTC, {playing.progress:.1%} of {playing.total:,} ticks"
    return f"{playing.state} at {where}"
