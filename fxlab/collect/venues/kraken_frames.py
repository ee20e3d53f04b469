"""What Kraken's frames say, as messages: pure functions of a frame's text.

Numbers are kept as they are printed until the checksum has read them. What is not as documented
becomes a "quarantine" event with its cause; of a frame with several trades only the bad ones.

The protocol (WebSocket v2, spot):
https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/trade
https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/book
https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/instrument
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from json.decoder import JSONDecoder
from typing import Any, Final, NamedTuple, NoReturn

from fxlab.collect.feed import Event, Instrument, Trade
from fxlab.collect.quarantine import quarantine
from fxlab.collect.venues.kraken_checksum import PrintedLevel, digits
from fxlab.collect.venues.suspects import (
    NOT_AS_DOCUMENTED,
    cause_of,
    frame_text,
    listed,
    positive,
    quantity_of,
)
from fxlab.times import to_micros

HALTED: Final = frozenset({"cancel_only", "delisted", "maintenance", "work_in_progress"})
"""States of an instrument in which nothing is traded."""

_SIDES: Final = frozenset({"buy", "sell"})


class BookFrame(NamedTuple):
    """A snapshot or an update of a book, not yet checked."""

    symbol: str
    snapshot: bool
    bids: list[PrintedLevel]
    asks: list[PrintedLevel]
    checksum: int
    time: int
    received: int


class TradesFrame(NamedTuple):
    """Trades of the past that the venue sends first, after a subscription."""

    trades: list[Trade]


Parsed = Trade | BookFrame | TradesFrame | Event
_Reader = Callable[[Mapping[str, Any], int, Mapping[str, Instrument]], list[Parsed]]


class Printed(str):
    """A JSON number with a point, as it was printed; a type of its own, apart from texts."""

    __slots__ = ()


def parse(frame: str | bytes, received: int, instruments: Mapping[str, Instrument]) -> list[Parsed]:
    """Return what a frame says; nothing for heartbeats and acknowledgements.

    Parameters
    ----------
    frame
        As it came from the socket.
    received
        When, in microseconds.
    instruments
        By the venue's names; `Instrument.detail` has ``quantity_decimals``.
    """
    try:
        message = _decode(frame_text(frame))
        read = _CHANNELS.get(message.get("channel"))
        if read is not None:
            return read(message, received, instruments)
        if "method" in message or "error" in message:
            return _answer(message, received, instruments)
        raise ValueError(f"unknown channel {message.get('channel')!r:.40}")
    except NOT_AS_DOCUMENTED as error:
        return [quarantine(cause_of(error), frame, received)]


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


_decode = JSONDecoder(parse_float=Printed, parse_constant=_no_constant).decode


def _trades(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    found: list[Trade] = []
    bad: list[Parsed] = []
    for entry in listed(message["data"]):
        try:
            found.append(_trade(entry, received, instruments))
        except NOT_AS_DOCUMENTED as error:
            symbol = _symbol_of(entry, instruments)
            bad.append(quarantine(cause_of(error), json.dumps(entry), received, symbol))
    if message["type"] == "snapshot":
        return [TradesFrame([trade._replace(origin="backfill") for trade in found]), *bad]
    return [*found, *bad]


def _trade(entry: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]) -> Trade:
    side, number = entry["side"], entry["trade_id"]
    if side not in _SIDES:
        raise ValueError(f"side {side!r:.40} is neither buy nor sell")
    if type(number) is not int or number < 0:
        raise ValueError(f"trade_id {number!r:.40} is no whole number")
    return Trade(
        instruments[entry["symbol"]].symbol,
        number,
        side,
        positive(_printed(entry["price"]), "price"),
        positive(_printed(entry["qty"]), "qty"),
        _micros(entry["timestamp"]),
        received,
    )


def _book(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    (entry,) = message["data"]
    kind, check = message["type"], entry["checksum"]
    if kind not in {"snapshot", "update"} or type(check) is not int:
        raise ValueError("a book must be a snapshot or an update, with a checksum")
    instrument = instruments[entry["symbol"]]
    stamp = entry.get("timestamp")
    return [
        BookFrame(
            instrument.symbol,
            kind == "snapshot",
            _levels(entry["bids"], instrument),
            _levels(entry["asks"], instrument),
            check,
            received if stamp is None else _micros(stamp),
            received,
        )
    ]


def _levels(levels: list[Mapping[str, Any]], instrument: Instrument) -> list[PrintedLevel]:
    price_decimals = instrument.price_decimals
    quantity_decimals = instrument.detail.get("quantity_decimals")
    found = []
    for level in listed(levels):
        price, quantity = _printed(level["price"]), _printed(level["qty"])
        found.append(
            PrintedLevel(
                positive(price, "price"),
                quantity_of(quantity, "qty"),
                digits(price, price_decimals) + digits(quantity, quantity_decimals),
            )
        )
    return found


def _status(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    del instruments
    state = message["data"][0]["system"]
    if state == "online":
        return []
    return [Event("venue_error", None, received, 1, f"the venue says of itself: {state!s:.100}")]


def _instrument(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    return [
        Event("delisted", instruments[pair["symbol"]].symbol, received, 1, f"status {state!s:.40}")
        for pair in message["data"]["pairs"]
        if pair["symbol"] in instruments and (state := pair["status"]) in HALTED
    ]


def _answer(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    if message.get("method") == "pong" or message.get("success") is True:
        return []
    symbol = _symbol_of(message, instruments)
    return [Event("venue_error", symbol, received, 1, str(message["error"])[:300])]


def _silent(*_: object) -> list[Parsed]:
    return []


_CHANNELS: Final[Mapping[str, _Reader]] = {
    "trade": _trades,
    "book": _book,
    "heartbeat": _silent,
    "status": _status,
    "instrument": _instrument,
}


def _symbol_of(entry: Any, instruments: Mapping[str, Instrument]) -> str | None:  # noqa: ANN401
    native = entry.get("symbol") if isinstance(entry, dict) else None
    known = instruments.get(native) if isinstance(native, str) else None
    return known.symbol if known else None


def _printed(value: object) -> str:
    if type(value) is Printed:
        return value
    if type(value) is int:
        return str(value)
    raise TypeError(f"{value!r:.40} is no number")


def _micros(text: str) -> int:
    return to_micros(datetime.fromisoformat(text))
