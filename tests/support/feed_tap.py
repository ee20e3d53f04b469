"""Listens to a feed until enough was heard, and knows what a mock's market must have shown."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence

import polars as pl

from fxlab.collect.feed import (
    BookDelta,
    BookSnapshot,
    Event,
    Feed,
    Gap,
    Message,
    Quote,
    Subscription,
    Trade,
)
from fxlab.mock import MockVenue, generated
from fxlab.mock._market import Book, BookChange

PATIENCE = 120.0


class Heard(list[Message]):
    """What a feed said, in its order."""

    def of(self, kind: type | tuple[type, ...], symbol: str | None = None) -> list:
        """Return messages of a kind, of one symbol or of all."""
        return [one for one in self if isinstance(one, kind) and symbol in (None, one.symbol)]

    def trades(self, symbol: str | None = None) -> list[Trade]:
        """Return the trades."""
        return self.of(Trade, symbol)

    def books(self, symbol: str) -> list[BookSnapshot | BookDelta]:
        """Return what tells a book."""
        return self.of((BookSnapshot, BookDelta), symbol)

    def quotes(self, symbol: str) -> list[Quote]:
        """Return best bids and asks."""
        return self.of(Quote, symbol)

    def gaps(self, symbol: str | None = None) -> list[Gap]:
        """Return the gaps, each twice if it was closed."""
        return self.of(Gap, symbol)

    def events(self, kind: str) -> list[Event]:
        """Return the events of a kind."""
        return [one for one in self.of(Event) if one.kind == kind]


async def listen(
    feed: Feed,
    enough: Callable[[Heard], bool],
    *,
    symbols: Sequence[str] | None = None,
    trades: bool = True,
    book_depth: int = 10,
    meanwhile: Callable[[Heard], object] | None = None,
) -> Heard:
    """Return what a feed says until it was enough; `meanwhile` is called after each batch."""
    known = await feed.instruments()
    wanted = tuple(known[symbol] for symbol in symbols or known)
    heard = Heard()
    batches = aiter(feed.messages(Subscription(wanted, trades, book_depth)))
    coming: asyncio.Future | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            # Asked again without news too: what is enough may depend on the mock's tape.
            while not (heard and enough(heard)):
                coming = coming or asyncio.ensure_future(anext(batches))
                await asyncio.wait({coming}, timeout=0.05)
                if coming.done():
                    heard.extend(coming.result())
                    coming = None
                    if meanwhile is not None:
                        meanwhile(heard)
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await batches.aclose()
    return heard


def mutations(*good: str, count: int = 1_500) -> Iterator[bytes]:
    """Yield damaged frames: good ones in which one to four bytes are others."""
    rng = random.Random(7)
    for _ in range(count):
        text = bytearray(rng.choice(good).encode())
        for _ in range(rng.randint(1, 4)):
            text[rng.randrange(len(text))] = rng.randrange(256)
        yield bytes(text)


def all_trades(mock: MockVenue, venue: str, books: int = 0) -> Callable[[Heard], bool]:
    """Return whether all that was sent has come, once the tape is over or stands still."""

    def enough(heard: Heard) -> bool:
        said = mock.ledger()
        told = said["venues"][venue].values()
        if said["running"] or not told:
            return False
        come = len({(one.symbol, one.id) for one in heard.trades()})
        return come >= sum(one["sent"] for one in told) and len(heard.of(BookSnapshot)) >= books

    return enough


def standing(mock: MockVenue, ready: Callable[[Heard], bool]) -> Callable[[Heard], None]:
    """Return what lets a market without an end stand still once enough of it was heard.

    A tape of so many seconds would race the listener: a slow one finds it over.
    """
    over: list[bool] = []

    def look(heard: Heard) -> None:
        if not over and ready(heard):
            over.append(True)
            mock.stand_still()

    return look


def truth_of(mock: MockVenue, venue: str, symbol: str) -> list[tuple]:
    """Return what a venue traded since somebody listened: id, time, price, quantity, bought."""
    first = mock.ledger()["venues"][venue][symbol]["sent_first_id"]
    frame = mock.truth.deals[symbol].frame().filter(pl.col("id") >= first)
    return list(frame.select("id", "time", "price", "quantity", "bought").iter_rows())


def told(trades: Sequence[Trade]) -> list[tuple]:
    """Return trades in the form of `truth_of`."""
    return [
        (number_of(one.id), one.time, one.price, one.volume, one.side == "buy") for one in trades
    ]


def number_of(identity: int | str | None) -> int:
    """Return the market's number of a trade, with which the mock's UUIDs end."""
    text = str(identity)
    return int(text[-12:], 16) if "-" in text else int(text)


def tops(mock: MockVenue, symbol: str, depth: int = 10) -> list[tuple]:
    """Return each state of the best levels of a book so far, from its opening on."""
    market, end = mock._exchange.market, mock.truth.books[symbol].id
    listing, book = market.listings[symbol], Book(market.opening(symbol))
    scales = 10**listing.price_decimals, 10**listing.quantity_decimals
    found = [_state(book, depth, scales)]
    for event in market.events(0):
        if book.id >= end:
            break
        if isinstance(event, BookChange) and event.symbol == symbol:
            book.apply(event)
            if (state := _state(book, depth, scales)) != found[-1]:
                found.append(state)
    return found


def _state(book: Book, depth: int, scales: tuple[int, int]) -> tuple:
    return tuple(
        tuple((price / scales[0], quantity / scales[1]) for price, quantity in side)
        for side in book.top(depth)
    )


def rebuilt(messages: Sequence[BookSnapshot | BookDelta], depth: int = 10) -> list[tuple]:
    """Return the best levels after each message, by nothing but dictionaries."""
    sides: tuple[dict, dict] = ({}, {})
    found = []
    for message in messages:
        for side, levels in zip(sides, (message.bids, message.asks), strict=True):
            if isinstance(message, BookSnapshot):
                side.clear()
            for price, quantity in levels:
                side[price] = quantity
                if not quantity:
                    del side[price]
        bids = sorted(sides[0].items(), reverse=True)[:depth]
        found.append((tuple(bids), tuple(sorted(sides[1].items())[:depth])))
    return found


def places(states: Sequence[tuple], among: Sequence[tuple]) -> list[int]:
    """Return where each state stands among all; a state that never was is an error."""
    known = {state: place for place, state in enumerate(among)}
    assert len(known) == len(among), "a state came twice: places would be ambiguous"
    return [known[state] for state in states]


def check_follows(messages: Sequence[BookSnapshot | BookDelta]) -> None:
    """Hold that each change of a book without gaps begins where what came before it ended."""
    for before, after in itertools.pairwise(messages):
        assert isinstance(after, BookDelta)
        assert after.first_update_id <= before.update_id + 1 <= after.update_id


def check_pairs(gaps: Sequence[Gap]) -> None:
    """Hold that gaps open and close in turns; the last one may be open."""
    for opened, closed in zip(gaps[::2], gaps[1::2], strict=False):
        assert opened.to_time is None
        missing = 0 if closed.missing == 0 else opened.missing  # its history was found
        assert closed == opened._replace(to_time=closed.to_time, missing=missing)
        assert closed.to_time >= opened.from_time


def venue(name: str, *, trades=600, rate=None, book_rate=None, speed="max", **options):
    """Return a mock of one venue with two busy symbols, and its market.

    A market that moves with the clock is calmer: a machine that is busy has to keep up with it.
    """
    rates = (2_000.0, 400.0) if speed == "max" else (300.0, 200.0)
    rate, book_rate = (
        rates[0] if rate is None else rate,
        rates[1] if book_rate is None else book_rate,
    )
    market = generated(["BTC_USDT", "ETH_USDT"], rate=rate, book_rate=book_rate, trades=trades)
    return MockVenue(market, venues=[name], speed=speed, **options), market


def hear(mock: MockVenue, feed, enough, **wanted) -> Heard:
    """Return what a feed says until it is enough; `feed` makes it from the mock."""

    async def run() -> Heard:
        async with feed(mock) as opened:
            return await listen(opened, enough, **wanted)

    return asyncio.run(run())
