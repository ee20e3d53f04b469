"""Recorded market: Binance frames as they came, served again with the truth that they hold.

Every frame is sent byte for byte in its stream. The order book of the recording's one REST
snapshot, followed by its diffs, is what later snapshots are taken from, so that the documented rule
for joining snapshot and stream works anywhere in the recording.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from math import gcd
from pathlib import Path
from typing import Any, Final

from fxlab.errors import ImportRefused
from fxlab.mock._market import (
    BookChange,
    Change,
    Listing,
    MarketEvent,
    MarketTrade,
    MockMarket,
    OpeningBook,
    RawFrame,
)

_QUOTES: Final = ("FDUSD", "USDT", "USDC", "BTC", "ETH", "BNB", "EUR", "TRY", "BRL")
_DECIMALS: Final = 8
_TIMES: Final = re.compile(rb'"([ET])":(\d{13})')
Frame = tuple[bytes, dict[str, Any]]


class Recorded(MockMarket):
    """A recorded market of one symbol; see `recorded`."""

    def __init__(self, frames: Sequence[Frame], native: str, *, retime: bool) -> None:
        self._frames = [frame for frame in frames if "stream" in frame[1]]
        snapshots = [message for _, message in frames if "lastUpdateId" in message]
        self._units = _Units([message for _, message in frames])
        listing = Listing(_symbol(native), self._units.price_decimals, self._units.decimals)
        self.listings = {listing.symbol: listing}
        self._symbol = listing.symbol
        self._first = next(time for time in map(_time_us, self._frames) if time)
        self.start = None if retime else self._first
        self._opening = self._book(snapshots[0] if snapshots else None)

    def opening(self, symbol: str) -> OpeningBook:
        """Return the book of the recorded snapshot."""
        del symbol
        return self._opening

    def events(self, start: int) -> Iterator[MarketEvent]:
        """Return the frames in their order; their times are moved by whole milliseconds."""
        shift = (start - self._first) // 1_000
        time = self._first
        for text, message in self._frames:
            time = max(time, _time_us((text, message)))
            frame = (message["stream"], _retimed(text, shift) if shift else text)
            yield self._event(message["data"], time + shift * 1_000, frame, shift)

    def _event(
        self, data: Mapping[str, Any], time: int, frame: tuple[str, bytes], shift: int
    ) -> MarketEvent:
        units = self._units
        if data.get("e") == "trade":
            price, quantity = units.price(data["p"]), units.quantity(data["q"])
            dealt = (data["T"] + shift) * 1_000
            return MarketTrade(
                self._symbol, data["t"], dealt, price, quantity, not data["m"], frame
            )
        if data.get("e") == "depthUpdate":
            bids, asks = units.levels(data["b"]), units.levels(data["a"])
            return BookChange(self._symbol, data["u"], time, data["U"], bids, asks, frame)
        return RawFrame(self._symbol, int(data.get("u", 0)), time, frame)

    def _book(self, snapshot: Mapping[str, Any] | None) -> OpeningBook:
        if snapshot is None:
            firsts = (message["data"].get("U") for _, message in self._frames)
            return OpeningBook(next((one - 1 for one in firsts if one), 0), {}, {})
        bids, asks = (dict(self._units.levels(snapshot[side])) for side in ("bids", "asks"))
        return OpeningBook(snapshot["lastUpdateId"], bids, asks)


class _Units:
    """Texts with eight decimals as whole numbers of the last decimal that is ever used."""

    def __init__(self, messages: Sequence[Mapping[str, Any]]) -> None:
        pairs = chain.from_iterable(map(_pairs, messages))
        price = quantity = 0
        for price_text, quantity_text in pairs:
            price = gcd(price, _whole(price_text))
            quantity = gcd(quantity, _whole(quantity_text))
        self.price_decimals, self._price = _unit(price)
        self.decimals, self._quantity = _unit(quantity)

    def price(self, text: str) -> int:
        return _whole(text) // self._price

    def quantity(self, text: str) -> int:
        return _whole(text) // self._quantity

    def levels(self, levels: Sequence[Sequence[str]]) -> tuple[Change, ...]:
        return tuple((self.price(price), self.quantity(quantity)) for price, quantity in levels)


def recorded(path: Path | str, *, retime: bool = False) -> MockMarket:
    """Return a recorded market.

    Parameters
    ----------
    path
        A file of Binance spot frames of one symbol, gzipped or not: in each line the local time in
        nanoseconds, a space, and a frame of a combined stream or a REST depth snapshot.
    retime
        Whether its times are moved so that it begins at the first subscription.

    Raises
    ------
    ImportRefused
        For a line that is not such a frame, for none at all, or for several symbols.
    """
    path = Path(path)
    frames = [_frame(path, number, line) for number, line in enumerate(_lines(path), start=1)]
    natives = {message["data"]["s"] for _, message in frames if "stream" in message}
    if len(natives) != 1:
        raise ImportRefused(
            f"{path.name} holds frames of {len(natives)} symbols; a tape is of one: split it"
        )
    return Recorded(frames, natives.pop(), retime=retime)


def _lines(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImportRefused(
            f"the tape {path} cannot be read: {error.strerror}; give a file of recorded frames"
        ) from error
    try:
        return (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).splitlines()
    except (OSError, EOFError) as error:
        raise ImportRefused(f"{path.name} is cut or damaged: {error}; copy it again") from error


def _frame(path: Path, number: int, line: bytes) -> Frame:
    text = line.partition(b" ")[2]
    try:
        message = json.loads(text)
        if "lastUpdateId" in message or (message["stream"] and message["data"]["s"]):
            return text, message
    except (ValueError, TypeError, KeyError):
        pass  # said below, with every other line that is not a frame
    raise ImportRefused(
        f"{path.name}, line {number} is not a recorded frame: {line[:80]!r}; "
        "each line is: nanoseconds, a space, a frame of a combined stream"
    )


def _symbol(native: str) -> str:
    quote = next((one for one in _QUOTES if native.endswith(one)), native[-3:])
    return f"{native.removesuffix(quote)}_{quote}"


def _time_us(frame: Frame) -> int:
    return int(frame[1]["data"].get("E", 0)) * 1_000


def _retimed(text: bytes, shift_ms: int) -> bytes:
    return _TIMES.sub(lambda one: b'"%b":%d' % (one[1], int(one[2]) + shift_ms), text)


def _pairs(message: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    data = message.get("data", message)
    if "p" in data:
        yield data["p"], data["q"]
    for side in ("bids", "asks") if "bids" in data else ("b", "a"):
        if isinstance(data.get(side), list):
            yield from data[side]


def _whole(text: str) -> int:
    whole, _, part = text.partition(".")
    return int(whole + part.ljust(_DECIMALS, "0"))


def _unit(divisor: int) -> tuple[int, int]:
    decimals = _DECIMALS
    while divisor and decimals > 1 and divisor % 10 == 0:
        divisor //= 10
        decimals -= 1
    return decimals, 10 ** (_DECIMALS - decimals)
