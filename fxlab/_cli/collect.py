"""Commands that record live data, verify and complete a recording, and run the mock venue.

The live view in a terminal shows the state, the numbers of each symbol, and what is to be stored.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fxlab._cli.common import (
    SIZES_SHOWN,
    command,
    command_words,
    live,
    own_variables,
    program,
    same_command,
    say,
    show_frame,
    show_newest,
    show_rows,
    signals_call,
    systemd_service,
    takes,
)
from fxlab._times import parse_duration
from fxlab.collect import status as words
from fxlab.collect._config import Plan
from fxlab.collect.status import COLLECTING, OUTAGE, CollectorStatus
from fxlab.errors import InvalidParameter

if TYPE_CHECKING:
    from fxlab.mock import MockVenue
    from fxlab.mock._exchange import Speed

_STYLES: Final = {
    COLLECTING: "bold green",
    "completed": "bold green",
    OUTAGE: "bold red",
    "aborted": "bold red",
    "failed": "bold red",
}
_LEFT_OUT: Final = (
    ("books/s", "resynced"), ("doubles", "backfilled"), ("bid", "ask"), ("books",), ("lag ms",),
    ("spread",), ("book age s",), ("gaps",), ("age s",),
)  # fmt: skip
"""Columns that a narrow terminal goes without, the first one first."""

_WIDEST: Final = 1_000

Venue = Annotated[
    str,
    typer.Argument(
        help="binance, bybit, kraken, mexc, okx, binance_futures, bybit_linear, okx_swap, ccxt:NAME"
    ),
]
Url = Annotated[str | None, typer.Option(help="Of a mock venue: see fxlab mock.")]


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
    command(app)(instruments)
    command(app)(verify)
    command(app)(backfill)
    app.command()(mock)


class RecordingWords:
    """The options of a recording."""

    duration: Annotated[str | None, typer.Option(help="10m, 8h; else until Ctrl-C.")] = None
    book_depth: Annotated[int, typer.Option(help="Levels: 0 none, 1 best prices, up to 10.")] = 10
    book_every: Annotated[str, typer.Option(help="At most one book in this time: 1s.")] = "0s"
    trades: Annotated[bool, typer.Option(help="Record trades.")] = True
    channel: Annotated[
        list[str] | None,
        typer.Option(
            help="Record also mark, funding, open_interest or liquidations; may be given again."
        ),
    ] = None
    backfill: Annotated[bool, typer.Option(help="Ask the venue for trades in gaps.")] = True
    rollover: Annotated[str | None, typer.Option(help="1d, 1h: a session for each.")] = None
    session_id: Annotated[str | None, typer.Option("--session", help="The session's id.")] = None
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --session.")] = False
    auto_resume: Annotated[
        bool, typer.Option("--auto-resume", help="The same if it is there; else begin it.")
    ] = False
    url: Url = None
    settle: Annotated[str, typer.Option(help="How long a gap in the ids may fill by itself.")] = (
        "6s"
    )
    journal_limit: Annotated[int, typer.Option(help="Bytes that may wait.")] = 2_000_000_000
    notes: Annotated[str, typer.Option(help="Free text kept with the session.")] = ""
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given again.")] = None


@takes(RecordingWords)
def collect(
    venue: Venue,
    symbols: Annotated[
        list[str], typer.Argument(help="Such as BTC_USDT, or '*_USDT' for all that are traded.")
    ],
    *,
    service: Annotated[
        bool,
        typer.Option(
            "--service",
            help="Record nothing: print a systemd unit that records --session, and goes on with "
            "it after each restart.",
        ),
    ] = False,
    options: dict[str, Any],
) -> None:
    """Record live trades and books of a venue until the duration is over or Ctrl-C."""
    from fxlab.collect.collector import wait_until_over
    from fxlab.lab import connect

    options["channels"] = tuple(options.pop("channel") or ())
    if options.pop("auto_resume"):
        options["resume"] = options["resume"] or "auto"
    if service:
        _print_service(venue, symbols, options)
        return
    with connect() as lab:
        for left in lab.recovered:
            say(f"session {left} was closed: its collector had been killed")
        tags = tuple(options.pop("tag") or ())
        collector = lab.collect(venue, symbols, tags=tags, **options)
        with signals_call(collector.request_stop) as signals:
            say(f"recording session {collector.session_id}; stop it with Ctrl-C")
            if collector.status().message:
                say(collector.status().message)
            with live(lambda: status_view(collector.status())):
                wait_until_over(collector)
                done = collector.wait()
    for session in done if isinstance(done, list) else [done]:
        say(
            f"session {session.id}: {session.status}, {session.prices_count:,} trades, "
            f"{session.orderbook_count:,} books, open gaps: {session.gaps_count}; "
            f"prove it with: fxlab verify {session.id}"
        )
    if signals:
        name = options["session_id"] if options["rollover"] else collector.session_id
        say(f"go on with it by: {same_command(session=name or collector.session_id, resume='')}")


def _print_service(venue: str, symbols: Sequence[str], options: Mapping[str, Any]) -> None:
    """Print what records a session for as long as the machine runs."""
    plain = {name: value for name, value in options.items() if name not in ("url", "tag")}
    Plan.of(venue, symbols, tags=options["tag"] or (), **plain)
    name, duration = options["session_id"], options["duration"]
    if name is None:
        raise InvalidParameter("--service needs --session NAME: what each restart goes on with")
    own = ("--service", "--resume", "--auto-resume")
    words = [*program(), *(word for word in command_words() if word not in own), "--auto-resume"]
    restart = "always" if duration is None else "on-failure"
    how = (f"Restart={restart}", "RestartSec=5", "TimeoutStopSec=120")
    unit = systemd_service(
        words, str(Path.cwd()), own_variables(words), f"fxlab recording {name}", how
    )
    typer.echo(f"# ~/.config/systemd/user/fxlab-{name}.service\n{unit}\n")
    typer.echo("[Install]\nWantedBy=default.target\n")
    enable = f"systemctl --user daemon-reload && systemctl --user enable --now fxlab-{name}"
    typer.echo(f"# The server must be up. It begins with:\n# {enable}")
    typer.echo("# and outlives your login with: loginctl enable-linger")


def instruments(
    venue: Venue,
    pattern: Annotated[str, typer.Argument(help="Of symbols, such as '*_USDT'.")] = "*",
    *,
    url: Url = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows to list.")] = 50,
) -> None:
    """List what a venue trades, as it says now."""
    from fxlab.lab import connect

    with connect() as lab:
        found = lab.instruments(venue, pattern, url=url)
    text_has = ("native", "status", "price_decimals", *SIZES_SHOWN)
    leave_out = [name for name in found.columns if name not in text_has]
    empty = f"{venue} has no symbol like {pattern}"
    show_newest(found, limit, empty=empty, leave_out=leave_out)


def verify(
    session_id: Annotated[str, typer.Argument(help="The id, with or without session_.")],
) -> None:
    """Compare a recording's receipt with what the database holds; exit code 1 if they differ."""
    from fxlab.lab import connect

    with connect() as lab:
        receipt = lab.verify(session_id)
    if not receipt.ids.is_empty():
        show_frame(receipt.ids, "trade ids", key="ids")
    if not receipt.gaps.is_empty():
        show_frame(receipt.gaps, "gaps", key="gaps")
    show_frame(receipt.lines, "receipt", key="receipt")
    say(str(receipt))
    if not receipt.whole:
        raise typer.Exit(1)


def backfill(
    session_id: Annotated[str, typer.Argument(help="The id, with or without session_.")],
    *,
    url: Url = None,
) -> None:
    """Ask a recording's venue again for the trades that are known to be missing."""
    from fxlab.lab import connect

    with connect() as lab:
        gaps = lab.backfill(session_id, url=url)
    show_frame(gaps, "gaps", empty="no gap of it can be asked for")


class FaultWords:
    """The options of faults that are numbers."""

    drop: Annotated[float, typer.Option(help="Share of frames never sent.")] = 0.0
    duplicate: Annotated[float, typer.Option(help="Share sent two or three times.")] = 0.0
    swap: Annotated[float, typer.Option(help="Share that changes places with the next.")] = 0.0
    delay: Annotated[float, typer.Option(help="Share that comes late.")] = 0.0
    delay_seconds: Annotated[float, typer.Option(help="How late at most.")] = 5.0
    garbage: Annotated[float, typer.Option(help="Share with a mutilated copy before it.")] = 0.0
    cut_every: Annotated[int | None, typer.Option(help="Frames between lost connections.")] = None
    cut_seconds: Annotated[float | None, typer.Option(help="Seconds between them.")] = None
    stall_at: Annotated[float | None, typer.Option(help="Second at which it falls silent.")] = None
    stall_seconds: Annotated[float, typer.Option(help="For how long.")] = 10.0
    id_restart_at: Annotated[
        int | None, typer.Option(help="Trades after which ids begin at 1 again.")
    ] = None
    stale_snapshots: Annotated[int, typer.Option(help="First book snapshots that are old.")] = 0
    bad_history: Annotated[
        int | None, typer.Option(min=1, help="Trades whose ids it divides are bad in history.")
    ] = None
    clock_skew_ms: Annotated[int, typer.Option(help="How far its clock is ahead.")] = 0


@takes(FaultWords)
def mock(
    *,
    tape: Annotated[
        Path | None, typer.Option(help="Recorded Binance frames, instead of a made-up market.")
    ] = None,
    retime: Annotated[
        bool, typer.Option("--retime", help="Move the recording's times to now.")
    ] = False,
    symbol: Annotated[list[str] | None, typer.Option(help="BTC_USDT; may be given again.")] = None,
    rate: Annotated[float, typer.Option(help="Trades a second of each symbol.")] = 100.0,
    book_rate: Annotated[float, typer.Option(help="Book changes a second of each symbol.")] = 50.0,
    trades: Annotated[int | None, typer.Option(min=1, help="Trades of each, then silence.")] = None,
    speed: Annotated[str, typer.Option(help="1, 10, ... or max: as fast as it is read.")] = "1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is a free one.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the market and of the faults.")] = 1,
    options: dict[str, Any],
    rest_error: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND=COUNT", help="429=2, 503=1, malformed=1, '403 depth'=1."),
    ] = None,
    delist: Annotated[
        str | None, typer.Option(metavar="SYMBOL@SECOND", help="Trades no more from then on.")
    ] = None,
    ledger: Annotated[Path | None, typer.Option(help="File of JSON lines for the ledger.")] = None,
    duration: Annotated[
        str | None, typer.Option("--for", help="Stop after 60s, 5m, ...; else at Ctrl-C.")
    ] = None,
) -> None:
    """Serve an exchange on loopback: real protocols, a made-up or recorded market, faults by seed.

    Ctrl-C stops it and shows what happened, what was sent and what was done wrong.
    """
    from fxlab.mock import Faults, MockVenue, generated, recorded

    faults = Faults(
        seed=seed,
        rest_errors=dict(_count(word) for word in rest_error or ()),
        delist=None if delist is None else _delisting(delist),
        **options,
    )
    symbols = symbol or ["BTC_USDT"]
    market = (
        generated(symbols, seed=seed, rate=rate, book_rate=book_rate, trades=trades)
        if tape is None
        else recorded(tape, retime=retime)
    )
    seconds = None if duration is None else parse_duration(duration, "--for") / 1e6
    venue = MockVenue(market, speed=_speed(speed), faults=faults, ledger=ledger, port=port)
    _serve(venue, seconds)


def _serve(venue: MockVenue, seconds: float | None) -> None:
    stop = threading.Event()
    with signals_call(stop.set), venue:
        say(f"mock venue at {venue.url} ({', '.join(venue.venues)})")
        symbols = " ".join(venue.truth.listings)
        say(f"collect from it with: fxlab collect {venue.venues[0]} {symbols} --url {venue.url}")
        stop.wait(seconds)
    _show(venue)


def _show(venue: MockVenue) -> None:
    said = venue.ledger()
    columns = ("trades", "first_id", "last_id", "sum_qty", "checksum")
    rows = [(name, *(one[key] for key in columns)) for name, one in said["symbols"].items()]
    show_rows(("symbol", *columns), rows, "what happened")
    heard = [
        (venue_name, symbol, one["sent_first_id"], one["happened"], one["sent"])
        for venue_name, symbols in said["venues"].items()
        for symbol, one in symbols.items()
    ]
    if heard:
        show_rows(("venue", "symbol", "from id", "happened", "sent"), heard, "what could be heard")
    if said["counts"]:
        show_rows(("fault", "times"), said["counts"].items(), "what was done wrong")


def _speed(text: str) -> Speed:
    try:
        return "max" if text == "max" else float(text)
    except ValueError:
        raise InvalidParameter(f"--speed {text}: give a number, or max") from None


def _count(text: str) -> tuple[str, int]:
    kind, _, count = text.rpartition("=")
    if not kind or not count.isdecimal():
        raise InvalidParameter(f"--rest-error {text}: give a kind and how often, such as 429=2")
    return kind, int(count)


def _delisting(text: str) -> tuple[str, float]:
    symbol, _, second = text.partition("@")
    try:
        return symbol, float(second)
    except ValueError:
        raise InvalidParameter(
            f"--delist {text}: give a symbol and a second, such as BTC_USDT@5"
        ) from None
