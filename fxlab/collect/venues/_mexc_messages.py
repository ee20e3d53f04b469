"""MEXC futures message parser: frames to messages, as pure functions.

Quantities are contracts there; here they are units of the base coin, as everywhere in fxlab. What
is not as documented becomes a "quarantine" event with its cause.

The protocol:
https://www.mexc.com/api-docs/futures/websocket-api
https://www.mexc.com/api-docs/futures/websocket-api/incremental-order-book-maintenance-mechanism
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from json.decoder import JSONDecoder
from typing import Any, Final

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
)
from fxlab.collect.venues._book_sync import Diff

_SIDES: Final = {1: "buy", 2: "sell"}


Parsed = Trade | Diff | Event
_Reader = Callable[[Mapping[str, Any], int, Mapping[str, Instrument]], list[Parsed]]


def parse(frame: str | bytes, received: int, instruments: Mapping[str, Instrument]) -> list[Parsed]:
    """Return what a frame says; nothing for pongs and acknowledgements.

    Parameters
    ----------
    frame
        As it came from the socket.
    received
        When, in microseconds.
    instruments
        By the venue's names; `Instrument.detail` as `mexc_rest.MexcRest.instruments` makes it.
    """
    try:
        message = _decode(frame_text(frame))
        channel = message["channel"]
        if channel in _CHANNELS:
            return _CHANNELS[channel](message, received, instruments)
        if channel == "pong" or channel.startswith("rs."):
            return []
        raise ValueError(f"unknown channel {channel!r:.40}")
    except NOT_AS_DOCUMENTED as error:
        return [quarantine(cause_of(error), frame, received)]


def levels_of(entries: object, instrument: Instrument) -> list[Level]:
    """Return levels of a book; each is a list of price, contracts and number of orders.

    Raises
    ------
    ValueError, TypeError, LookupError, ArithmeticError
        If they are none.
    """
    found = []
    for entry in listed(entries):
        price = positive(_number(listed(entry)[0]), "price")
        contracts = quantity_of(_number(entry[1]), "quantity")
        found.append((price, base_units(contracts, price, instrument)))
    return found


def base_units(contracts: float, price: float, instrument: Instrument) -> float:
    """Return how much of the base coin some contracts are; inverse ones are worth quote units."""
    detail = instrument.detail
    if detail["inverse"]:
        return contracts * float(detail["contract_size"]) / price
    decimals: int = detail["quantity_decimals"]
    return round(contracts * float(detail["contract_size"]), decimals)


_decode: Final[Callable[[str], Any]] = JSONDecoder(parse_constant=no_constant).decode


def _deals(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    instrument = instruments[message["symbol"]]
    data = message["data"]
    # Older servers send one deal without a list around it.
    entries = [data] if isinstance(data, dict) else listed(data)
    found: list[Trade] = []
    bad: list[Parsed] = []
    for entry in entries:
        try:
            found.append(deal_of(entry, received, instrument))
        except NOT_AS_DOCUMENTED as error:
            text = json.dumps(entry)
            bad.append(quarantine(cause_of(error), text, received, instrument.symbol))
    if len(found) > 1 and _newest_first(found):
        found.reverse()
    return [*found, *bad]


def deal_of(entry: Mapping[str, Any], received: int, instrument: Instrument) -> Trade:
    """Return a deal as a trade; raises what `levels_of` raises."""
    price = positive(_number(entry["p"]), "p")
    contracts = positive(_number(entry["v"]), "v")
    return Trade(
        instrument.symbol,
        _identity(entry.get("i")),
        _SIDES[entry["T"]],
        price,
        base_units(contracts, price, instrument),
        _micros(entry["t"]),
        received,
    )


def _newest_first(trades: list[Trade]) -> bool:
    first, last = trades[0], trades[-1]
    if first.time == last.time and isinstance(first.id, int) and isinstance(last.id, int):
        return first.id > last.id
    return first.time > last.time


def _identity(value: object) -> int | str | None:
    """Return a deal's number, which the documents do not promise but servers send as text."""
    if value is None or type(value) is int:
        return value
    if isinstance(value, str) and 0 < len(value) <= 64:
        return int(value) if value.isdecimal() and len(value) < 19 else value
    raise ValueError(f"i {value!r:.40} is no number of a deal")


def _depth(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    instrument = instruments[message["symbol"]]
    data = message["data"]
    last = version_of(data["version"])
    # Merged changes say at which version they begin.
    first = version_of(data.get("begin", last))
    return [
        Diff(
            instrument.symbol,
            first - 1,
            first,
            last,
            levels_of(data["bids"], instrument),
            levels_of(data["asks"], instrument),
            _micros(message["ts"]),
            received,
        )
    ]


def _error(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    del instruments
    return [Event("venue_error", None, received, 1, str(message["data"])[:300])]


_CHANNELS: Final[Mapping[str, _Reader]] = {
    "push.deal": _deals,
    "push.depth": _depth,
    "rs.error": _error,
}


def _number(value: object) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    raise TypeError(f"{value!r:.40} is no number")


def version_of(value: object) -> int:
    """Return the version of a book.

    Raises
    ------
    ValueError
        If it is no whole number.
    """
    if type(value) is not int or value < 0:
        raise ValueError(f"version {value!r:.40} is no whole number")
    return value


def _micros(milliseconds: object) -> int:
    if type(milliseconds) is not int or milliseconds <= 0:
        raise ValueError(f"{milliseconds!r:.40} is no time in milliseconds")
    return milliseconds * 1_000
