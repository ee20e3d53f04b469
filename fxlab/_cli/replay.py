"""Command that replays a session, with its live view in a terminal: market time, prices, money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fxlab._cli.backtest import RunWords, Words, named, run_options
from fxlab._cli.common import INTERRUPTED, live, same_command, say, show_frame, takes
from fxlab._html import show_number, show_time
from fxlab.errors import InvalidInput, InvalidParameter

if TYPE_CHECKING:
    from fxlab.replayer._cursor import ReplayBatch
    from fxlab.replayer.replay import Replay


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


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(replay)


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
