"""Binance message parser: frames of spot and USD-M futures to messages, as pure functions.

A busy market sends ten thousand frames a second, so each is decoded once and looked at with plain
comparisons. What is not as documented becomes an `Event` "quarantine" with its cause.

Spot: https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
USD-M futures: https://developers.binance.com/docs/derivatives/usds-margined-futures/
websocket-market-streams
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    BookSnapshot,
    ChannelRow,
    Event,
    Level,
    Quote,
    Trade,
    cause_of,
    listed,
    quarantine,
)
from fxlab.collect.venues._book_sync import Diff

SHUTDOWN: Final = Event(
    "venue_error", None, 0, 1, "the venue's server shuts down: its connections are made anew"
)
"""What the notice of a server's end becomes; it is told apart by its detail."""

Parsed = Trade | Quote | Diff | ChannelRow | Event | None

_SHUTDOWN: Final = "serverShutdown"
INFINITE: Final = float("inf")
LARGEST_ID: Final = 1 << 62
LATEST_MS: Final = 10_000_000_000_000
"""A time in milliseconds is below it until the year 2286."""

_raw_decode: Final = json.JSONDecoder().raw_decode


def parse(frame: str | bytes, received: int, symbols: Mapping[str, str]) -> Parsed:
    """Return what a frame of a combined stream says; None for acknowledgements.

    Parameters
    ----------
    frame
        As it came from the socket.
    received
        Its arrival, in microseconds.
    symbols
        fxlab's names by the venue's.
    """
    if isinstance(frame, bytes):
        return quarantine("binary", frame, received)
    try:
        whole = _decoded(frame)
        data = whole.get("data")
        kind = None if data is None else data.get("e")
        if data is None or kind == _SHUTDOWN:
            return _answer(data or whole, frame, received)
        if kind == "trade" or kind == "aggTrade":  # noqa: PLR1714 - a tuple would cost more
            return _trade(data, data["t" if kind == "trade" else "a"], received, symbols)
        if kind == "depthUpdate":
            return _diff(data, received, symbols)
        if kind in _OTHERS:
            return _OTHERS[kind](data, received, symbols)
        raise ValueError(f"unknown event {kind!r:.40}")
    except NOT_AS_DOCUMENTED as error:
        return quarantine(cause_of(error), frame, received, _symbol_in(frame, symbols))


def _decoded(frame: str) -> Any:  # noqa: ANN401 - JSON
    """Return what `json.loads` does; that would look for space around the frame, at some cost."""
    try:
        whole, end = _raw_decode(frame)
    except ValueError:
        return json.loads(frame)
    return whole if end == len(frame) else json.loads(frame)


def snapshot(answer: Any, symbol: str, received: int) -> BookSnapshot:  # noqa: ANN401 - JSON
    """Return the book that ``depth`` answers with.

    Spot gives no time for it, which leaves `received`.

    Raises
    ------
    ValueError, TypeError, LookupError, AttributeError
        When it is not as documented (`NOT_AS_DOCUMENTED`).
    """
    time = answer.get("T")
    bids, asks = levels(answer["bids"]), levels(answer["asks"])
    if not all(quantity for _, quantity in (*bids, *asks)):
        raise ValueError("a snapshot has a level without a quantity")
    micros = received if time is None else _micros(time)
    return BookSnapshot(symbol, _identity(answer["lastUpdateId"]), bids, asks, micros, received)


def levels(entries: Any) -> list[Level]:  # noqa: ANN401 - JSON
    """Return prices and quantities as numbers; a quantity may be 0.

    Raises
    ------
    ValueError, TypeError
        When one is no such pair.
    """
    found = []
    for price_text, quantity_text in listed(entries):
        if type(price_text) is not str or type(quantity_text) is not str:
            raise TypeError("a level is not two texts")
        price, quantity = float(price_text), float(quantity_text)
        if not (0.0 < price < INFINITE and 0.0 <= quantity < INFINITE):
            raise ValueError(
                f"level {price_text:.40} x {quantity_text:.40} is no price and quantity"
            )
        found.append((price, quantity))
    return found


def past_trade(
    entry: Mapping[str, Any], names: tuple[str, ...], symbol: str, received: int
) -> Trade:
    """Return a trade that was asked for.

    Parameters
    ----------
    names
        How its id, price, quantity, time and "buyer is maker" are called.

    Raises
    ------
    ValueError, TypeError, LookupError
        When it is not as documented.
    """
    number, price, quantity, time, maker = (entry[name] for name in names)
    data = {"p": price, "q": quantity, "T": time, "m": maker, "s": ""}
    return _trade(data, number, received, {"": symbol})._replace(origin="backfill")


def _trade(data: Any, number: Any, received: int, symbols: Mapping[str, str]) -> Trade:  # noqa: ANN401 - JSON
    price_text, quantity_text, time, maker = data["p"], data["q"], data["T"], data["m"]
    price, quantity = float(price_text), float(quantity_text)
    if not (
        0.0 < price < INFINITE
        and 0.0 < quantity < INFINITE
        and type(number) is int
        and 0 <= number < LARGEST_ID
        and type(time) is int
        and 0 < time < LATEST_MS
        and (maker is True or maker is False)
        and type(price_text) is str
        and type(quantity_text) is str
    ):
        raise ValueError("a trade's price, quantity, id, time or side is invalid")
    side = "sell" if maker else "buy"
    return Trade(symbols[data["s"]], number, side, price, quantity, time * 1000, received)


def _diff(data: Any, received: int, symbols: Mapping[str, str]) -> Diff:  # noqa: ANN401 - JSON
    first, last = _identity(data["U"]), _identity(data["u"])
    if last < first:
        raise ValueError("an update ends before it begins")
    # Futures name the event before; on spot ids have no gaps.
    previous = _identity(data["pu"]) if "pu" in data else first - 1
    if previous >= last:
        raise ValueError("an update follows itself")
    time = _micros(data.get("T", data["E"]))
    bids, asks = levels(data["b"]), levels(data["a"])
    return Diff(symbols[data["s"]], previous, first, last, bids, asks, time, received)


def _quote(data: Any, received: int, symbols: Mapping[str, str]) -> Quote:  # noqa: ANN401 - JSON
    pair = levels([[data["b"], data["B"]], [data["a"], data["A"]]])
    time = _micros(data["T"]) if "T" in data else received
    return Quote(symbols[data["s"]], *pair[0], *pair[1], _identity(data["u"]), time, received)


def _mark(data: Any, received: int, symbols: Mapping[str, str]) -> ChannelRow:  # noqa: ANN401 - JSON
    values = {
        "mark_price": _decimal(data["p"]),
        "index_price": _decimal(data["i"]),
        "settle_price": _decimal(data["P"]),
        "funding_rate": _decimal(data["r"]),
        "next_funding": _micros(data["T"]) if data["T"] else None,  # 0 where nothing is funded
    }
    if not (values["mark_price"] or 0.0) > 0.0:
        raise ValueError("a mark price is not above zero")
    return ChannelRow(symbols[data["s"]], "mark", values, _micros(data["E"]), received)


def _liquidation(data: Any, received: int, symbols: Mapping[str, str]) -> ChannelRow:  # noqa: ANN401 - JSON
    order = data["o"]
    values = {
        "side": {"BUY": "buy", "SELL": "sell"}[order["S"]],
        "price": _decimal(order["p"]),
        "average_price": _decimal(order["ap"]),
        "volume": _decimal(order["q"]),
        "filled": _decimal(order["z"]),
    }
    return ChannelRow(symbols[order["s"]], "liquidations", values, _micros(order["T"]), received)


def open_interest(answer: Any, symbol: str, received: int) -> ChannelRow:  # noqa: ANN401 - JSON
    """Return what ``openInterest`` answers with.

    Raises
    ------
    ValueError, TypeError, LookupError
        When it is not as documented.
    """
    values = {"open_interest": _decimal(answer["openInterest"])}
    return ChannelRow(symbol, "open_interest", values, _micros(answer["time"]), received)


def funding(entry: Any, symbol: str, received: int) -> ChannelRow:  # noqa: ANN401 - JSON
    """Return an entry of ``fundingRate``: what was charged; raises as `open_interest` does."""
    rate = _decimal(entry["fundingRate"])
    if rate is None:
        raise ValueError("a funding has no rate")
    values = {"rate": rate, "mark_price": _decimal(entry.get("markPrice", ""))}
    time = _micros(entry["fundingTime"])
    return ChannelRow(symbol, "funding", values, time, received, "backfill")


def _decimal(text: Any) -> float | None:  # noqa: ANN401 - JSON
    """Return a number that is told as text; None for an empty one."""
    if type(text) is not str:
        raise TypeError(f"{text!r:.40} is no text")
    value = float(text) if text else None
    if value is not None and not -INFINITE < value < INFINITE:
        raise ValueError(f"{text:.40} is no number")
    return value


_OTHERS: Final[dict[str | None, Callable[[Any, int, Mapping[str, str]], Parsed]]] = {
    None: _quote,  # spot's has no kind
    "bookTicker": _quote,
    "markPriceUpdate": _mark,
    "forceOrder": _liquidation,
}


def _answer(whole: Any, frame: str, received: int) -> Event | None:  # noqa: ANN401 - JSON
    """Return nothing for an answer to a request, or the error in it."""
    error = whole.get("error")
    if error is not None or ("code" in whole and "msg" in whole):
        return Event("venue_error", None, received, 1, f"a request was refused: {frame[:300]}")
    if "result" in whole and "id" in whole:
        return None
    if _SHUTDOWN in (whole.get("e"), (whole.get("event") or {}).get("e")):
        return SHUTDOWN._replace(time=received)
    raise ValueError("no data and no answer")


def _identity(value: Any) -> int:  # noqa: ANN401 - JSON
    if type(value) is not int or not 0 <= value < LARGEST_ID:
        raise ValueError(f"{value!r:.40} is no id")
    return value


def _micros(milliseconds: Any) -> int:  # noqa: ANN401 - JSON
    if type(milliseconds) is not int or not 0 < milliseconds < LATEST_MS:
        raise ValueError(f"{milliseconds!r:.40} is no time")
    return milliseconds * 1000


def _symbol_in(frame: str, symbols: Mapping[str, str]) -> str | None:
    """Return which symbol a damaged frame speaks of, as far as its stream's name tells."""
    native = frame[:60].removeprefix('{"stream":"').partition("@")[0].upper()
    return symbols.get(native)
