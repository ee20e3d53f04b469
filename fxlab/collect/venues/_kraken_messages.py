"""Kraken message parser (WebSocket v2, spot), and the order book with the venue's CRC-32 checksum.

Kraken numbers no updates. Instead each one carries a CRC-32 of the ten best levels as they are
after it, made of the prices and quantities as they were printed. A lost or wrong update is thus
found at once, but only if the printed digits are kept: floats have lost the zeros. So numbers stay
as they are printed until the checksum has read them. Frames are parsed by pure functions of their
text; what is not as documented becomes a "quarantine" event with its cause, of a frame with several
trades only the bad ones.

https://docs.kraken.com/exchange/guides/websockets/book-checksum-v2
https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/trade
https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/book
https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/instrument
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from json.decoder import JSONDecoder
from typing import Any, Final, NamedTuple

from fxlab._times import to_micros
from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    Event,
    Instrument,
    Level,
    Trade,
    cause_of,
    frame_text,
    listed,
    no_constant,
    positive,
    quantity_of,
    quarantine,
    read_each,
)

CHECKED = 10
"""Levels of a side that the checksum covers, whatever the depth of the subscription."""


class PrintedLevel(NamedTuple):
    """A level, and what the checksum reads of it."""

    price: float
    quantity: float
    digits: str


def digits(number: str, decimals: int | None) -> str:
    """Return a printed number as the checksum reads it: no point, no zeros in front.

    Parameters
    ----------
    number
        As it was printed: ``0.00100000`` gives ``100000``.
    decimals
        The instrument's decimals, to which a number printed shorter is filled with zeros.
    """
    if "e" in number or "E" in number:
        number = f"{Decimal(number):f}"
    whole, _, part = number.partition(".")
    if decimals is not None and len(part) < decimals:
        part = part.ljust(decimals, "0")
    return (whole + part).lstrip("0")


class CheckedBook:
    """The levels of one symbol, down to the subscribed depth.

    Parameters
    ----------
    depth
        Levels of each side that the venue tells about.
    """

    def __init__(self, depth: int = CHECKED) -> None:
        self._bids = _Side(depth, -1)
        self._asks = _Side(depth, 1)

    def reset(self, bids: Iterable[PrintedLevel], asks: Iterable[PrintedLevel]) -> None:
        """Begin with the levels of a snapshot."""
        for side, levels in ((self._bids, bids), (self._asks, asks)):
            side.clear()
            side.apply(levels)

    def apply(
        self, bids: Iterable[PrintedLevel], asks: Iterable[PrintedLevel]
    ) -> tuple[list[Level], list[Level]]:
        """Follow an update.

        Returns
        -------
        tuple of list
            The changes of bids and of asks that lead from the book before to the book after, in
            their order. Levels that fell below the depth are taken away in them: the venue will
            not speak of them again, and who kept them would have levels that are long gone.
        """
        return self._bids.apply(bids), self._asks.apply(asks)

    @property
    def checksum(self) -> int:
        """Return the CRC-32 that the venue must have sent with this book."""
        return zlib.crc32(f"{self._asks.digits}{self._bids.digits}".encode())

    @property
    def levels(self) -> tuple[list[Level], list[Level]]:
        """Return bids and asks, best first."""
        return self._bids.levels, self._asks.levels


class _Side:
    """Levels in the order of `sign` x price: a bid's best is its highest price."""

    def __init__(self, depth: int, sign: int) -> None:
        self._depth = depth
        self._sign = sign
        self._keys: list[float] = []
        self._levels: list[PrintedLevel] = []

    def clear(self) -> None:
        self._keys.clear()
        self._levels.clear()

    def apply(self, changes: Iterable[PrintedLevel]) -> list[Level]:
        told = []
        for level in changes:
            self._put(level)
            told.append((level.price, level.quantity))
        told.extend((level.price, 0.0) for level in self._levels[self._depth :])
        del self._levels[self._depth :], self._keys[self._depth :]
        return told

    def _put(self, level: PrintedLevel) -> None:
        key = self._sign * level.price
        at = bisect_left(self._keys, key)
        known = at < len(self._keys) and self._keys[at] == key
        if not level.quantity:
            if known:
                del self._keys[at], self._levels[at]
        elif known:
            self._levels[at] = level
        else:
            self._keys.insert(at, key)
            self._levels.insert(at, level)

    @property
    def digits(self) -> str:
        return "".join([level.digits for level in self._levels[:CHECKED]])

    @property
    def levels(self) -> list[Level]:
        return [level[:2] for level in self._levels]


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
        channel = message.get("channel")
        if channel in _CHANNELS:
            return _CHANNELS[channel](message, received, instruments)
        if channel == "heartbeat":
            return []
        if "method" in message or "error" in message:
            return _answer(message, received, instruments)
        raise ValueError(f"unknown channel {channel!r:.40}")
    except NOT_AS_DOCUMENTED as error:
        return [quarantine(cause_of(error), frame, received)]


_decode = JSONDecoder(parse_float=Printed, parse_constant=no_constant).decode


def _trades(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    found, bad = read_each(
        listed(message["data"]),
        lambda entry: _trade(entry, received, instruments),
        received,
        lambda entry: _symbol_of(entry, instruments),
    )
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


_CHANNELS: Final[Mapping[str, _Reader]] = {
    "trade": _trades,
    "book": _book,
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
