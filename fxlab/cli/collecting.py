"""Commands that record live data, and that prove a recording."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from fxlab import progress
from fxlab.cli.output import command, live, same_command, say, show_frame

if TYPE_CHECKING:
    from fxlab.collect.collector import Collector


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(collect)
    command(app)(verify)


def collect(
    venue: Annotated[str, typer.Argument(help="binance, binance_futures, kraken, mexc, ccxt:NAME")],
    symbols: Annotated[list[str], typer.Argument(help="Such as BTC_USDT.")],
    *,
    duration: Annotated[str | None, typer.Option(help="10m, 8h; else until Ctrl-C.")] = None,
    book_depth: Annotated[int, typer.Option(help="Levels: 0 none, 1 best prices, up to 10.")] = 10,
    book_every: Annotated[str, typer.Option(help="At most one book in this time: 1s.")] = "0s",
    trades: Annotated[bool, typer.Option(help="Record trades.")] = True,
    backfill: Annotated[bool, typer.Option(help="Ask the venue for trades in gaps.")] = True,
    session_id: Annotated[str | None, typer.Option("--session", help="The session's id.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with --session.")] = False,
    url: Annotated[str | None, typer.Option(help="Of a mock venue: see fxlab mock.")] = None,
    settle: Annotated[str, typer.Option(help="How long a hole may fill by itself.")] = "6s",
    journal_limit: Annotated[int, typer.Option(help="Bytes that may wait.")] = 2_000_000_000,
    notes: Annotated[str, typer.Option(help="Free text kept with the session.")] = "",
    tag: Annotated[list[str] | None, typer.Option(help="A tag; may be given again.")] = None,
) -> None:
    """Record live trades and books of a venue until the duration is over or Ctrl-C."""
    from fxlab.cli.collect_view import CollectView
    from fxlab.collect.collector import wait_until_over
    from fxlab.connecting import connect

    with connect() as lab:
        for left in lab.recovered:
            say(f"session {left} was closed: its collector had been killed")
        collector = lab.collect(
            venue,
            symbols,
            url=url,
            duration=duration,
            book_depth=book_depth,
            book_every=book_every,
            trades=trades,
            backfill=backfill,
            session_id=session_id,
            resume=resume,
            settle=settle,
            journal_limit=journal_limit,
            notes=notes,
            tags=tuple(tag or ()),
        )
        say(f"recording session {collector.session_id}; stop it with Ctrl-C")
        if collector.status().message:
            say(collector.status().message)
        with _signals_stop(collector) as signals, live(CollectView(collector)):
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
    from fxlab.connecting import connect

    with connect() as lab, progress.terminal("verify") as advance:
        receipt = lab.verify(session_id, progress=advance)
    if not receipt.ids.is_empty():
        show_frame(receipt.ids, "trade ids", key="ids")
    show_frame(receipt.lines, "receipt", key="receipt")
    say(str(receipt))
    if not receipt.whole:
        raise typer.Exit(1)


@contextmanager
def _signals_stop(collector: Collector) -> Iterator[list[int]]:
    """Make Ctrl-C and SIGTERM end the recording well; those that came are in the list."""
    came: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        came.append(number)
        collector.request_stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
