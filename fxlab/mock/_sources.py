"""Market sources of the venue in the box: generated out of a seed, or a recording served again.

Generated: the same seed gives the same trades, books and bytes on any machine. Prices walk on a
grid of ticks, trades come in bursts that share a millisecond, as real ones do, and print at the
best bid or ask of a book that moves with them.

Recorded: every Binance frame is sent byte for byte in its stream, to those who speak with Binance's
spot or futures as the recording did; what other protocols and streams tell is made of its trades
and diffs. The order book of the recording's one REST snapshot, followed by its diffs, is what later
snapshots are taken from, so that the documented rule for joining snapshot and stream works anywhere
in the recording.
"""

from __future__ import annotations

import gzip
import heapq
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from math import gcd
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fxlab.errors import ImportRefused, InvalidParameter
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

Whole = npt.NDArray[np.int64]

LEVELS: Final = 25
"""Levels of each side that a generated book is refilled to."""
_BLOCK_US: Final = 1_000_000
_FIRST_PRICES: Final = {"BTC": 6_183_763, "ETH": 268_412, "SOL": 15_402}


class Walk:
    """One symbol: its trades and changes of its book, block after block of a second."""

    def __init__(
        self, listing: Listing, seed: Sequence[int], rate: float, book_rate: float
    ) -> None:
        self._listing = listing
        self._random = np.random.default_rng(seed)
        self._rate, self._book_rate = rate, book_rate
        self._bid = _FIRST_PRICES.get(listing.base, 50_000)
        self._next_id = 10_000_000 + int(self._random.integers(1, 1_000_000_000))
        self.book = GeneratedBook(self._random, self._bid)

    def block(self, start: int) -> list[MarketEvent]:
        """Return what happens in the second from `start` on, by time."""
        times = self._times(start, self._rate)
        bids = self._bid + np.cumsum(self._steps(len(times)))
        deals = self._deals(times, bids)
        changes = self._changes(self._times(start, self._book_rate), times, bids)
        self._bid = int(bids[-1]) if len(bids) else self._bid
        # Sorting is stable: at one time the book moves first.
        return sorted([*changes, *deals], key=attrgetter("time")) if changes else list(deals)

    def _times(self, start: int, rate: float) -> Whole:
        # About three of four share their millisecond with the one before, as on real venues.
        count = int(self._random.poisson(rate))
        starts = self._random.integers(0, 1_000, size=max(1, -(-count // 4)))
        chosen = np.sort(starts[self._random.integers(0, len(starts), size=count)])
        return start + chosen.astype(np.int64) * 1_000

    def _steps(self, count: int) -> Whole:
        moves = self._random.integers(-3, 4, size=count)
        moves[self._random.random(count) > 0.2] = 0
        # A price that nears zero is pushed back up.
        return np.abs(moves) if self._bid < 5_000 else moves

    def _deals(self, times: Whole, bids: Whole) -> list[MarketTrade]:
        count = len(times)
        bought = self._random.random(count) < 0.5
        quantities = 1 + self._random.exponential(5_000, size=count).astype(np.int64)
        first, self._next_id = self._next_id, self._next_id + count
        columns = (times, bids + bought, quantities, bought)
        rows = zip(range(first, first + count), *(one.tolist() for one in columns), strict=True)
        symbol = self._listing.symbol
        return [MarketTrade(symbol, *row) for row in rows]

    def _changes(self, times: Whole, trade_times: Whole, bids: Whole) -> list[BookChange]:
        before = np.searchsorted(trade_times, times, side="left") - 1
        symbol, made = self._listing.symbol, []
        for time, at in zip(times.tolist(), before.tolist(), strict=True):
            bid = int(bids[at]) if at >= 0 else self._bid
            made.append(self.book.move(symbol, time, bid))
        return made


class GeneratedBook:
    """A book that follows the best bid: levels come, change and go, and it never crosses."""

    def __init__(self, random: np.random.Generator, bid: int) -> None:
        self._random = random
        self.id = 1_000_000 + int(random.integers(1, 1_000_000_000))
        self._bids = {bid - place: self._quantity() for place in range(LEVELS)}
        self._asks = {bid + 1 + place: self._quantity() for place in range(LEVELS)}

    def opening(self) -> OpeningBook:
        """Return it as it is."""
        return OpeningBook(self.id, dict(self._bids), dict(self._asks))

    def move(self, symbol: str, time: int, bid: int) -> BookChange:
        """Follow the best bid to a price, and change a few levels."""
        bids = self._side(self._bids, [bid - place for place in range(LEVELS)])
        asks = self._side(self._asks, [bid + 1 + place for place in range(LEVELS)])
        first = self.id + 1
        self.id += len(bids) + len(asks)
        return BookChange(symbol, self.id, time, first, bids, asks)

    def _side(self, side: dict[int, int], wanted: list[int]) -> tuple[Change, ...]:
        ahead = wanted[0] - wanted[1]
        gone = [price for price in side if (price - wanted[0]) * ahead > 0]
        missing = [price for price in wanted if price not in side]
        far = [price for price in side if (wanted[0] - price) * ahead >= 2 * LEVELS]
        touched = [wanted[int(self._random.integers(0, LEVELS))]]
        changed = {price: self._quantity() for price in (wanted[0], *missing, *touched)}
        side.update(changed)
        for price in (*gone, *far):
            del side[price]
        return (*((price, 0) for price in (*gone, *far)), *changed.items())

    def _quantity(self) -> int:
        return 1 + int(self._random.exponential(100_000))


class Generated(MockMarket):
    """Several walks in one market; see `generated`."""

    def __init__(
        self,
        listings: Sequence[Listing],
        *,
        seed: int,
        rate: float,
        book_rate: float,
        start: int | None,
        trades: int | None,
    ) -> None:
        self.listings = {one.symbol: one for one in listings}
        self.start = start
        self._seed, self._rate, self._book_rate = seed, rate, book_rate
        self._trades = trades
        self._openings = {name: walk.book.opening() for name, walk in self._walks().items()}

    def _walks(self) -> dict[str, Walk]:
        return {
            listing.symbol: Walk(listing, [self._seed, place], self._rate, self._book_rate)
            for place, listing in enumerate(self.listings.values())
        }

    def opening(self, symbol: str) -> OpeningBook:
        """Return a walk's first book."""
        return self._openings[symbol]

    def events(self, start: int) -> Iterator[MarketEvent]:
        """Return the walks, merged by time."""
        walks = list(self._walks().values())
        streams = [self._limited(_endless(walk, start)) for walk in walks]
        if len(streams) == 1:
            return iter(streams[0])
        return heapq.merge(*streams, key=attrgetter("time"))

    def _limited(self, events: Iterator[MarketEvent]) -> Iterator[MarketEvent]:
        if self._trades is None:
            yield from events
            return
        left = self._trades
        for event in events:
            if isinstance(event, MarketTrade):
                left -= 1
            if left < 0:
                return
            yield event


def generated(
    symbols: Sequence[str] = ("BTC_USDT",),
    *,
    seed: int = 1,
    rate: float = 100.0,
    books: bool = True,
    book_rate: float = 50.0,
    start: int | None = None,
    trades: int | None = None,
) -> MockMarket:
    """Return a market that is made up, the same one for the same arguments.

    Parameters
    ----------
    symbols
        fxlab's names: ``["BTC_USDT", "ETH_USDT"]``.
    rate
        Trades a second of market time, for each symbol, on average.
    books, book_rate
        Whether books change at all, and how often a second.
    start
        Microseconds since the epoch; None for the first subscription.
    trades
        Trades of each symbol after which nothing happens any more; None for no end.

    Raises
    ------
    InvalidParameter
        Without a symbol, for a symbol that is not BASE_QUOTE, or for a rate that is not positive.
    """
    for symbol in symbols:
        if symbol.count("_") != 1 or not all(symbol.split("_")):
            raise InvalidParameter(f"symbol {symbol!r} is not BASE_QUOTE, such as BTC_USDT")
    if not symbols or len(set(symbols)) != len(symbols):
        raise InvalidParameter(f"symbols={list(symbols)}: name at least one, each of them once")
    if rate <= 0 or book_rate < 0:
        raise InvalidParameter(f"rate={rate}, book_rate={book_rate}: give rates above 0")
    return Generated(
        [Listing(symbol) for symbol in symbols],
        seed=seed,
        rate=rate,
        book_rate=book_rate if books else 0.0,
        start=start,
        trades=trades,
    )


def _endless(walk: Walk, start: int) -> Iterator[MarketEvent]:
    while True:
        yield from walk.block(start)
        start += _BLOCK_US


_QUOTES: Final = ("FDUSD", "USDT", "USDC", "BTC", "ETH", "BNB", "EUR", "TRY", "BRL")
_DECIMALS: Final = 8
_TIMES: Final = re.compile(rb'"([ET])":(\d{13})')
Frame = tuple[bytes, dict[str, Any]]


class Recorded(MockMarket):
    """A recorded market of one symbol; see `recorded`."""

    def __init__(self, frames: Sequence[Frame], native: str, *, retime: bool) -> None:
        self._frames = [frame for frame in frames if "stream" in frame[1]]
        told = [message["data"] for _, message in self._frames]
        self._deals = "trade" if any(data.get("e") == "trade" for data in told) else "aggTrade"
        snapshots = [message for _, message in frames if "lastUpdateId" in message]
        self._units = _Units([message for _, message in frames])
        streams = {message["stream"] for _, message in self._frames}
        listing = Listing(
            _symbol(native),
            self._units.price_decimals,
            self._units.decimals,
            native,
            # Aggregates beside trades have ids that the truth does not: they are made of trades.
            frozenset(one for one in streams if self._deals in one or "aggTrade" not in one),
            futures=any("pu" in data for data in told),
        )
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
        # Futures' stream of trades has records that are none, of price 0.
        if data.get("e") == self._deals and (price := units.price(data["p"])):
            number, quantity = data["t" if "t" in data else "a"], units.quantity(data["q"])
            dealt = (data["T"] + shift) * 1_000
            return MarketTrade(self._symbol, number, dealt, price, quantity, not data["m"], frame)
        if data.get("e") == "depthUpdate":
            bids, asks = units.levels(data["b"]), units.levels(data["a"])
            return BookChange(self._symbol, data["u"], time, _first_id(data), bids, asks, frame)
        return RawFrame(self._symbol, int(data.get("u", 0)), time, frame)

    def _book(self, snapshot: Mapping[str, Any] | None) -> OpeningBook:
        if snapshot is None:
            changes = (message["data"] for _, message in self._frames if "U" in message["data"])
            return OpeningBook(next((_first_id(one) - 1 for one in changes), 0), {}, {})
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
        A file of Binance frames of one symbol, spot or futures, gzipped or not: in each line the
        local time in nanoseconds, a space, and a frame of a combined stream or a REST depth
        snapshot.
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


def _first_id(data: Mapping[str, Any]) -> int:
    """Return the first update id that a diff covers; on futures ids are left out between diffs."""
    return int(data["pu"]) + 1 if "pu" in data else int(data["U"])


def _symbol(native: str) -> str:
    """Return fxlab's name; one with a _, such as ETHUSD_PERP or BTCUSDT_240927, stays whole."""
    if "_" in native:
        return native
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
