"""Commands that record live data and verify a recording, with the live status view in a terminal.

The view shows the state, the numbers of each symbol, and what waits to be stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fxlab._cli.common import command, live, same_command, say, show_frame, signals_call, takes
from fxlab.collect import status as words
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


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(collect)
    command(app)(verify)


class RecordingWords:
    """The options of a recording."""

    duration: Annotated[str | None, typer.Option(help="10m, 8h; else until Ctrl-C.")] = None
    book_depth: Annotated[int, typer.Option(help="Levels: 0 none, 1 best prices, up to 10.")] = 10
    book_every: Annotated[str, typer.Option(help="At most one book in this time: 1s.")] = "0s"
    trades: Annotated[bool, typer.Option(help="Record trades.")] = True
    backfill: Annotated[bool, typer.Option(help="Ask the venue for trades in gaps.")] = True
    session_id: Annotated[str | None, typer.Option("--session", help="The session's id.")] = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --session.")] = False
    url: Annotated[str | None, typer.Option(help="Of a mock venue: see fxlab mock.")] = None
    settle: Annotated[str, typer.Option(help="How long a gap in the ids may fill by itself.")] = (
        "6s"
    )
    journal_limit: Annotated[int, typer.Option(help="Bytes that may wait.")] = 2_000_000_000
    notes: Annotated[str, typer.Option(help="Free text kept with the session.")] = ""
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given again.")] = None


@takes(RecordingWords)
def collect(
    venue: Annotated[str, typer.Argument(help="binance, binance_futures, kraken, mexc, ccxt:NAME")],
    symbols: Annotated[list[str], typer.Argument(help="Such as BTC_USDT.")],
    *,
    options: dict[str, Any],
) -> None:
    """Record live trades and books of a venue until the duration is over or Ctrl-C."""
    from fxlab.collect.collector import wait_until_over
    from fxlab.lab import connect

    with connect() as lab:
        for left in lab.recovered:
            say(f"session {left} was closed: its collector had been killed")
        tags = tuple(options.pop("tag") or ())
        collector = lab.collect(venue, symbols, tags=tags, **options)
        say(f"recording session {collector.session_id}; stop it with Ctrl-C")
        if collector.status().message:
            say(collector.status().message)
        with (
            signals_call(collector.request_stop) as signals,
            live(lambda: status_view(collector.status())),
        ):
            wait_until_over(collector)
            session = collector.wait()
    say(
        f"session {session.id}: {session.status}, {session.prices_count:,} trades, "
        f"{session.orderbook_count:,} books, gaps not filled: {session.gaps_count}; "
        f"prove it with: fxlab verify {session.id}"
    )
    if signals:
        say(f"go on with it by: {same_command(session=session.id, resume='')}")


def verify(
    session_id: Annotated[str, typer.Argument(help="The id, with or without session_.")],
) -> None:
    """Compare a recording's receipt with what the database holds; exit code 1 if they differ."""
    from fxlab.lab import connect

    with connect() as lab:
        receipt = lab.verify(session_id)
    if not receipt.ids.is_empty():
        show_frame(receipt.ids, "trade ids", key="ids")
    show_frame(receipt.lines, "receipt", key="receipt")
    say(str(receipt))
    if not receipt.whole:
        raise typer.Exit(1)
