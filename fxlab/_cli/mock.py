"""Command of the mock venue: an exchange on this machine, with injected faults."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fxlab._cli.common import say, show_rows, signals_call, takes
from fxlab._times import parse_duration
from fxlab.errors import InvalidParameter

if TYPE_CHECKING:
    from fxlab.mock import MockVenue
    from fxlab.mock._exchange import Speed


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(mock)


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
