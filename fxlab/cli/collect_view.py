"""What a terminal shows of a running recording: state, numbers of each symbol, what waits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fxlab.collect import status_words as words
from fxlab.collect.status import COLLECTING, OUTAGE, CollectorStatus

_STYLES: Final = {
    COLLECTING: "bold green",
    "completed": "bold green",
    OUTAGE: "bold red",
    "aborted": "bold red",
    "failed": "bold red",
}
_LEFT_OUT: Final = (
    ("books/s",), ("doubles", "backfilled"), ("bid", "ask"), ("books",), ("lag ms",), ("spread",),
    ("gaps",),
)  # fmt: skip
"""Columns that a narrow terminal goes without, the first one first."""

_WIDEST: Final = 1_000


class Watched(Protocol):
    """Anything with a status: a `fxlab.collect.collector.Collector`."""

    def status(self) -> CollectorStatus:
        """Return the recording at this moment."""


class CollectView:
    """A recording as a picture of text; `rich.live.Live` draws it anew.

    Parameters
    ----------
    collector
        Asked for its status at each drawing.
    """

    def __init__(self, collector: Watched) -> None:
        self._collector = collector

    def __rich__(self) -> RenderableType:
        """Return the picture of this moment."""
        return status_view(self._collector.status())


def status_view(status: CollectorStatus) -> RenderableType:
    """Return a status as something that rich can print; no text in it is taken for markup."""
    named = Text(f"{status.exchange}, session {status.session_id}: {words.totals(status)}")
    parts = [_head(status), named, SymbolTable(status), _foot(status)]
    said = (status.message, words.newest(status.newest))
    return Group(*parts, *(Text(text, style="yellow") for text in said if text))


class SymbolTable:
    """One row a symbol, with as many columns as there is room for.

    Parameters
    ----------
    status
        The recording at one moment.
    """

    def __init__(self, status: CollectorStatus) -> None:
        self._status = status

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield the widest table that fits."""
        for count in range(len(_LEFT_OUT) + 1):
            out = {name for group in _LEFT_OUT[:count] for name in group}
            table = self._table([name for name in words.COLUMNS if name not in out])
            wanted = Measurement.get(console, options.update(max_width=_WIDEST), table).maximum
            if wanted <= options.max_width:
                break
        yield table

    def _table(self, names: Sequence[str]) -> Table:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for name in names:
            table.add_column(name, justify="left" if name == "symbol" else "right", no_wrap=True)
        places = [words.COLUMNS.index(name) for name in names]
        for row in words.rows(self._status):
            table.add_row(*(Text(row[place]) for place in places))
        return table


def _head(status: CollectorStatus) -> RenderableType:
    line = Table.grid(padding=(0, 2))
    cells: list[RenderableType] = [
        Text(words.state(status), style=_STYLES.get(status.state, "bold yellow")),
        Text(words.elapsed(status)),
    ]
    share = words.share(status)
    if share is not None:
        cells.append(ProgressBar(total=1.0, completed=share, width=20))
    line.add_row(*cells)
    return line


def _foot(status: CollectorStatus) -> RenderableType:
    style = "bold red" if status.state == OUTAGE else "dim"
    return Text(f"{words.backlog(status)}; {words.skew(status)}", style=style)
