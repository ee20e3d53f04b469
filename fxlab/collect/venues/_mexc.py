"""MEXC futures feed: trades as they are pushed, books by version from a REST snapshot on.

Trades of MEXC ("deals") cannot be counted by their ids, nor asked for later, so each lost
connection leaves a gap in the prices, which is reported. Unmerged pushes are asked for: merged ones
would leave out deals. REST gives contracts, time and snapshots of books.

Quantities are contracts there; here they are units of the base coin, as everywhere in fxlab. What
is not as documented becomes a "quarantine" event with its cause.

The protocol:
https://www.mexc.com/api-docs/futures/market-endpoints
https://www.mexc.com/api-docs/futures/websocket-api
https://www.mexc.com/api-docs/futures/websocket-api/incremental-order-book-maintenance-mechanism
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from decimal import Decimal
from json.decoder import JSONDecoder
from typing import Any, ClassVar, Final

from fxlab._ticks import instrument_terms
from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    Address,
    BookSnapshot,
    Event,
    Instrument,
    Level,
    Message,
    Subscription,
    Trade,
    cause_of,
    frame_text,
    listed,
    native_of,
    no_constant,
    positive,
    quantity_of,
    quarantine,
    read_each,
)
from fxlab.collect.venues._book_sync import BestPrices, Diff, SyncedBook, TradeGapTracker
from fxlab.collect.venues._rest import NEWEST, HistoryPage, RestFeed
from fxlab.collect.venues._snapshot_run import Fetch, SnapshotRun
from fxlab.collect.venues._websocket import (
    ConnectionClosed,
    ConnectionOpened,
    Frame,
    ReconnectingWebSocket,
)

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
        By the venue's names; `Instrument.detail` as `Mexc.instruments` makes it.
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
    size = float(detail["contract_size"])
    if not contracts.is_integer():  # rounded to whole contracts, half of one would be none or one
        return float(Decimal(repr(contracts)) * Decimal(repr(size)))
    decimals: int = detail["quantity_decimals"]
    return round(contracts * size, decimals)


_decode: Final[Callable[[str], Any]] = JSONDecoder(parse_constant=no_constant).decode


def _deals(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    instrument = instruments[message["symbol"]]
    data = message["data"]
    # Older servers send one deal without a list around it.
    entries = [data] if isinstance(data, dict) else listed(data)
    found, bad = read_each(
        entries,
        lambda entry: deal_of(entry, received, instrument),
        received,
        lambda _: instrument.symbol,
    )
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


SNAPSHOT_LEVELS: Final = 1_000

_STATES: Final = {0: "trading", 1: "delivery", 2: "delivered", 3: "offline", 4: "paused"}
_TOO_OFTEN: Final = 510


class Mexc(RestFeed):
    """Trades, quotes and books of MEXC's perpetual contracts, in units of the base coin."""

    venue: ClassVar[str] = "mexc"
    ADDRESS: ClassVar[Address] = Address("https://api.mexc.com", "wss://contract.mexc.com")
    LIMIT: ClassVar[tuple[float, float] | None] = (18, 2.0)  # 20 are allowed

    def messages(self, wanted: Subscription) -> AsyncGenerator[Sequence[Message], None]:
        """Yield trades, quotes or books as they come; see `Feed.messages`."""
        self._run = MexcRun(self, wanted)
        return self._run.batches()

    def reconnect(self, symbol: str, data_type: str, reason: str) -> None:
        """Break the connection, so that it is made again."""
        self._run.reconnect(symbol, data_type, reason)

    async def latest(self, instrument: Instrument, data_type: str) -> Trade | BookSnapshot | None:
        """Return the newest trade, or the best levels of the book, as the venue has it now."""
        self.doubted.set()
        if data_type == "orderbook":
            return await self.snapshot(instrument, limit=5)
        what = f"deals/{instrument.native}"
        found = await self._ask(what, limit=NEWEST)
        received = self.clock.now()
        with self._documented(what):
            page = HistoryPage.read(
                what,
                listed(found),
                lambda entry: deal_of(entry, received, instrument),
                lambda entry: entry["i"],
            )
        newest = self._newest(what, page, first=True)
        return None if newest is None else newest._replace(origin="backfill")

    async def server_time(self) -> int:
        """Return the venue's clock in microseconds; it tells milliseconds."""
        found = await self._ask("ping")
        with self._documented("ping"):
            return int(positive(found, "time")) * 1_000

    async def instruments(self) -> dict[str, Instrument]:
        """Return the contracts, by fxlab's symbol, which is the venue's own."""
        found = await self._ask("detail")
        with self._documented("detail"):
            entries = [found] if isinstance(found, dict) else listed(found)
        return self._listings("detail", entries, _instrument, _names)

    async def snapshot(self, instrument: Instrument, limit: int) -> BookSnapshot:
        """Return a contract's book, so many levels of each side."""
        what = f"depth/{instrument.native}"
        found = await self._ask(what, limit=limit)
        received = self.clock.now()
        with self._documented(what):
            return BookSnapshot(
                instrument.symbol,
                version_of(found["version"]),
                levels_of(found["bids"], instrument),
                levels_of(found["asks"], instrument),
                int(positive(found["timestamp"], "timestamp")) * 1_000,
                received,
            )

    async def _ask(self, what: str, **parameters: str | float) -> Any:  # noqa: ANN401 - any JSON
        answer = await self._rest.get(f"/api/v1/contract/{what}", **parameters)
        told = answer if isinstance(answer, dict) else {}
        if told.get("success") is True and "data" in told:
            return told["data"]
        raise self._refusal(what, answer, too_often=told.get("code") == _TOO_OFTEN)


def _names(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return fxlab's name of a contract, and the venue's."""
    native = native_of(entry)
    return native.upper(), native


def _instrument(entry: Mapping[str, Any]) -> Instrument:
    size = Decimal(str(entry["contractSize"]))
    positive(float(size), "contractSize")
    inverse = entry.get("settleCoin") == entry["baseCoin"]
    return Instrument(
        *_names(entry),
        int(entry["priceScale"]),
        _STATES.get(entry["state"], f"state {entry['state']}"),
        {
            "contract_size": float(size),
            "quantity_decimals": _decimals(size) + int(entry.get("volScale", 0)),
            "inverse": inverse,
        },
        _terms(entry, size, inverse=inverse),
    )


def _terms(entry: Mapping[str, Any], size: Decimal, *, inverse: bool) -> dict[str, Any]:
    """Return sizes and fees; those of an inverse contract are no steps of base units."""
    sizes = {} if inverse else {"lot_size": entry.get("volUnit"), "min_qty": entry.get("minVol")}
    return instrument_terms(
        contract=size,
        fee_bps=10_000,
        kind="perpetual",
        base=entry["baseCoin"],
        quote=entry.get("quoteCoin"),
        settle=entry.get("settleCoin"),
        contract_size=size,
        tick_size=entry.get("priceUnit"),
        **sizes,
        taker_bps=entry.get("takerFeeRate"),
        maker_bps=entry.get("makerFeeRate"),
    )


def _decimals(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


HEARTBEAT: Final = ('{"method":"ping"}', 15.0)
"""Without a ping within a minute the venue closes; ten to twenty seconds are advised."""


class MexcRun(SnapshotRun[None]):
    """Runs one subscription; `close` it in the end.

    Parameters
    ----------
    feed
        Gives snapshots and states.
    wanted
        What to record.
    """

    def __init__(self, feed: Mexc, wanted: Subscription) -> None:
        self._instruments = {one.symbol: one for one in wanted.instruments}
        booked = self._instruments if wanted.book_depth else ()
        depth = wanted.book_depth
        books = {symbol: SyncedBook(symbol, depth=depth) for symbol in booked}
        super().__init__(feed, self._instruments, books)
        self._feed, self._wanted = feed, wanted
        self._by_native = wanted.by_native
        self._best = BestPrices() if wanted.book_depth == 1 else None
        self._trade_gaps = TradeGapTracker()
        self._lost: str | None = None

    def connections(self) -> list[tuple[None, ReconnectingWebSocket]]:
        """Return the one socket."""
        url = f"{self._feed.address.stream}/edge"
        wire = ReconnectingWebSocket(
            url, clock=self._clock, opening=self._opening, heartbeat=HEARTBEAT
        )
        return [(None, wire)]

    def _opening(self) -> list[str]:
        channels = ["sub.deal"] if self._wanted.trades else []
        channels += ["sub.depth"] if self._wanted.book_depth else []
        return [
            json.dumps({"method": channel, "param": {"symbol": native, "compress": False}})
            for native in self._by_native
            for channel in channels
        ]

    def levels(self, waiting: int) -> tuple[int, float]:  # noqa: ARG002 - all cost the same
        """Return how many levels a snapshot should have, and its cost."""
        return SNAPSHOT_LEVELS, 1

    async def snapshot(self, symbol: str, levels: int) -> BookSnapshot:
        """Return a book as the venue gives it now."""
        return await self._feed.snapshot(self._instruments[symbol], levels)

    async def listed(self, symbols: Collection[str]) -> dict[str, Instrument]:  # noqa: ARG002
        """Return what the venue says of its contracts: it tells of all at once."""
        return await self._feed.instruments()

    def frames(self, frames: list[Frame]) -> list[Message]:
        """Return what frames mean."""
        messages: list[Message] = []
        gaps, instruments = self._trade_gaps, self._by_native
        for payload, received in frames:
            for found in parse(payload, received, instruments):
                if type(found) is Trade:
                    messages += gaps.take(found)
                elif type(found) is Diff:
                    messages += self._shown(self.change(found))
                elif isinstance(found, Event):
                    messages.append(found)
        return messages

    def offered(self, snapshot: BookSnapshot, fetch: Fetch, levels: int) -> list[Message]:
        """Return what a snapshot means."""
        return self._shown(super().offered(snapshot, fetch, levels))

    def _shown(self, messages: list[Message]) -> list[Message]:
        return messages if self._best is None else self._best.of(messages)

    def opened(self, connection: None, opened: ConnectionOpened) -> list[Message]:  # noqa: ARG002
        """Tell of a reconnect, and ask for the snapshots of all books."""
        for symbol in self._books:
            self.synchronise(symbol)
        if self._wanted.trades:
            self._trade_gaps.listen(self._instruments, opened.time)
        reason, self._lost = self._lost, None
        if reason is None or opened.number == 1:
            return []
        return [Event("reconnect", None, opened.time, 1, reason)]

    def closed(self, connection: None, closed: ConnectionClosed) -> list[Message]:  # noqa: ARG002
        """Tell what is lost until the connection stands again."""
        if self._lost is not None:
            return []
        self._lost = closed.reason
        for symbol in self._books:
            self.abandon(symbol)
        lost = [gap for book in self._books.values() for gap in book.lose(closed.reason)]
        return lost + self._trade_gaps.lose(closed.reason)
