"""What a terminal shows of a running replay: the market's clock, prices, money, how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fxlab.html import show_number

if TYPE_CHECKING:
    from fxlab.batches import Batch
    from fxlab.replayer import Replay


class ReplayView:
    """Turns the batches of a replay into a picture of text; `rich.live.Live` draws it anew."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self._batch: Batch | None = None
        self._first: dict[str, float] = {}

    def take(self, batch: Batch) -> None:
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

    def _clock(self, batch: Batch) -> Table:
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

    def _market(self, batch: Batch) -> Table:
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

    def _money(self, batch: Batch) -> Text:
        return Text(f"equity {batch.equity:,.2f}   {batch.fills_count:,} fills")
