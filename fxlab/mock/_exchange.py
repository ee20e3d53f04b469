"""Exchange of the mock venue: event loop that plays a market to clients, with scheduled faults.

Time on the exchange is market time. A paced exchange moves it with the clock whether or not anybody
listens, as a venue does; at speed "max" it moves as fast as the clients take frames. Either begins
when enough streams are subscribed, and stands still at the second that it was given until it is
told to go on: a request meanwhile is about a market that does not move.

Faults of the venue as a whole (cuts, stalls, delistings) happen between two market events, never by
a timer, so that the same seed cuts, stalls and delists at the same trade.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from fxlab.errors import InvalidParameter, SymbolNotFound, VenueNotFound
from fxlab.mock._faults import FaultInjector, FaultLog, Faults, OutgoingFrame
from fxlab.mock._market import MarketEvent, MarketTrade, MockMarket, Truth
from fxlab.mock._protocols import PROTOCOLS, Protocol, Socket, World, framed

Planned = tuple[int, Callable[[], None]]
"""A market time (us), and what is done then."""


def renumbered(
    events: Iterable[MarketEvent], after: int, ledger: FaultLog
) -> Iterator[MarketEvent]:
    """Yield events in which the trade ids of each symbol begin at 1 again after so many trades.

    A recorded frame that says another id is left out in favour of a made one.
    """
    seen: dict[str, int] = {}
    for event in events:
        if not isinstance(event, MarketTrade):
            yield event
            continue
        symbol = event.symbol
        count = seen[symbol] = seen.get(symbol, 0) + 1
        if count == after + 1:
            ledger.add("id_restart", symbol=symbol, id=1, previous=event.id - 1)
        yield event if count <= after else event._replace(id=count - after, frame=None)


def without(events: Iterable[MarketEvent], symbol: str, end: int) -> Iterator[MarketEvent]:
    """Yield events, of which none happens to a symbol from a time (us) on."""
    return (one for one in events if one.symbol != symbol or one.time < end)


def with_plans(events: Iterable[MarketEvent], plans: Iterator[Planned]) -> Iterator[MarketEvent]:
    """Yield events, and do what is planned as they pass the times of the plans."""
    upcoming = next(plans, None)
    for event in events:
        while upcoming is not None and event.time >= upcoming[0]:
            upcoming[1]()
            upcoming = next(plans, None)
        yield event


def cuts(faults: Faults, start: int, cut: Callable[[], None]) -> Iterator[Planned]:
    """Yield a cut every `Faults.cut_seconds`, half as long to half as long again."""
    if faults.cut_seconds is None:
        return
    chance, time = random.Random(faults.seed), start  # noqa: S311
    while True:
        time += int(faults.cut_seconds * chance.uniform(0.5, 1.5) * 1e6)
        yield time, cut


Speed = float | Literal["max"]

_BATCH: Final = 256
_BACKLOG: Final = 1 << 18
_SLOW: Final = 1 << 26
_PING_SECONDS: Final = 20.0
_LONGEST_SLEEP: Final = 0.05
_STANDING: Final = 0.005


class Publisher:
    """Delivers the frames of one protocol, with its faults, and keeps what was never sent.

    Every copy of every frame passes here, so here it is known, trade by trade, what a perfect
    collector could have received.

    Attributes
    ----------
    sockets
        All open connections.
    silent
        While True, connections stay open and nothing is sent.
    frames
        How many frames were sent by stream, copies for several connections counted once.
    """

    def __init__(
        self,
        protocol: Protocol,
        truth: Truth,
        faults: Faults,
        ledger: FaultLog,
        started: Callable[[], None],
    ) -> None:
        self.protocol = protocol
        self.sockets: set[Socket] = set()
        self.silent = False
        self.frames: Counter[str] = Counter()
        self._truth = truth
        self._faults = faults
        self._ledger = ledger
        self._started = started
        self._listeners: dict[str, list[Socket]] = {}
        self._silenced: set[tuple[str, Socket]] = set()
        self._since: dict[str, int] = {}
        self._told = {symbol: bytearray() for symbol in truth.listings}
        self._injector = FaultInjector(faults, protocol.name, ledger, protocol.describe)
        self._damaging = faults.damages_frames
        self._until_cut = faults.cut_every

    @property
    def heard(self) -> bool:
        """Return whether anybody listens to anything."""
        return bool(self._listeners)

    @property
    def streams(self) -> int:
        """Return how many streams have listeners."""
        return len(self._listeners)

    def subscribed(self, socket: Socket, stream: str, symbol: str) -> None:
        """Add a listener."""
        if stream not in self._listeners:
            self.protocol.begin(stream, symbol)
        self._listeners.setdefault(stream, []).append(socket)
        self.protocol.listened[stream] = len(self._listeners[stream])
        if _tells_deals(stream):
            self._since.setdefault(symbol, len(self._truth.deals[symbol]))
        self._started()

    def unsubscribed(self, socket: Socket, stream: str) -> None:
        """Take a listener away."""
        left = [one for one in self._listeners.get(stream, ()) if one is not socket]
        if left:
            self._listeners[stream] = left
            self.protocol.listened[stream] = len(left)
        else:
            self._listeners.pop(stream, None)
            self.protocol.listened.pop(stream, None)

    def gone(self, socket: Socket) -> None:
        """Forget a connection that ended."""
        self.sockets.discard(socket)
        for stream in list(socket.streams):
            self.unsubscribed(socket, stream)
            self._silenced.discard((stream, socket))

    def deliver(self, event: MarketEvent) -> None:
        """Send the frames of an event to their listeners, as far as the faults allow."""
        symbol, number, time = event[:3]
        place = len(self._truth.deals[symbol]) - 1 if type(event) is MarketTrade else None
        if not self._damaging:
            for stream, payload in self.protocol.encode(event):
                self._send(stream, payload, symbol, place)
            return
        self._send_all(self._injector.due(time))
        for stream, payload in self.protocol.encode(event):
            parcel = OutgoingFrame(stream, payload, symbol, number, time, place)
            self._send_all(self._injector.send(parcel))

    def finish(self) -> None:
        """Send what was yet to come when the market ends."""
        for stream, payload in self.protocol.finish():
            self.tell(stream, payload)
        self._send_all(self._injector.due(None))

    def tell(self, stream: str, payload: bytes) -> None:
        """Send a frame without faults."""
        self._send(stream, payload, "", None)

    def cut(self, half: bytes = b"{}" * 40) -> None:
        """Lose all connections in the middle of a frame."""
        if not self.sockets:
            return
        self._ledger.add("cut", venue=self.protocol.name, connections=len(self.sockets))
        for socket in list(self.sockets):
            socket.cut(half)
            self.gone(socket)

    def mute(self, *, silent: bool) -> None:
        """Fall silent, or speak again."""
        self.silent = silent
        for socket in self.sockets:
            socket.flush()  # what counts as sent is sent before the silence
            socket.silent = silent

    def shut_down(self, seconds: float) -> None:
        """Announce the end of all present connections, and cut them so many real seconds later."""
        ending = [*self.sockets]
        self._ledger.add("shutdown", venue=self.protocol.name, connections=len(ending))
        for socket in ending if self.protocol.notice else ():
            socket.waiting.append(framed(self.protocol.notice))

        def cut() -> None:
            for socket in self.sockets.intersection(ending):
                socket.cut(b"{}")
                self.gone(socket)

        asyncio.get_running_loop().call_later(seconds, cut)

    def silence(self, part: str) -> None:
        """Send streams with this part in their name to none of their present listeners."""
        for stream, sockets in self._listeners.items():
            if part in stream:
                self._silenced.update((stream, socket) for socket in sockets)

    def state(self) -> dict[str, Any]:
        """Return by symbol what could be heard: counts, and the ids that were never sent."""
        return {symbol: self._heard(symbol, since) for symbol, since in self._since.items()}

    def _heard(self, symbol: str, since: int) -> dict[str, Any]:
        deals = self._truth.deals[symbol]
        told = self._told[symbol].ljust(len(deals), b"\0")[since:]
        return {
            "sent_first_id": deals.id_at(since),
            "happened": len(told),
            "sent": len(told) - told.count(0),
            "unsent": [
                [deals.id_at(since + first), deals.id_at(since + last)]
                for first, last in _runs_of_zero(told)
            ],
        }

    def _send_all(self, parcels: Iterable[OutgoingFrame]) -> None:
        for parcel in parcels:
            place = parcel.place if parcel.good else None
            self._send(parcel.stream, parcel.payload, parcel.symbol, place)

    def _send(self, stream: str, payload: bytes, symbol: str, place: int | None) -> None:
        listeners = self._listeners.get(stream)
        if listeners is None or self.silent or self._cut_due(payload):
            return
        if self._silenced:
            listeners = [one for one in listeners if (stream, one) not in self._silenced]
            if not listeners:
                return
        data = framed(payload)
        for socket in listeners:
            socket.waiting.append(data)
        self.frames[stream] += 1
        if place is not None and _tells_deals(stream):
            self._mark(symbol, place)

    def _cut_due(self, payload: bytes) -> bool:
        if self._until_cut is None:
            return False
        self._until_cut -= 1
        if self._until_cut >= 0:
            return False
        self._until_cut = self._faults.cut_every
        self.cut(payload)
        return True

    def _mark(self, symbol: str, place: int) -> None:
        told = self._told[symbol]
        if place >= len(told):
            told.extend(bytes(place + 1 - len(told)))
        told[place] = 1


@cache
def _tells_deals(stream: str) -> bool:
    """Return whether a stream carries trades: all venues say it in its key."""
    return "trade" in stream.lower() or "deal" in stream


def _runs_of_zero(told: bytearray) -> list[tuple[int, int]]:
    runs, end = [], 0
    while (start := told.find(0, end)) >= 0:
        end = told.find(1, start)
        end = len(told) if end < 0 else end
        runs.append((start, end - 1))
    return runs


class Ban(NamedTuple):
    """A status with which all questions are refused, until a monotonic time."""

    status: int
    end: float
    told: bool


class Exchange:
    """Everything of a mock venue but its door.

    Attributes
    ----------
    publishers
        By the name of the venue.
    begun, ended
        Set at the first subscription, and when nothing more will happen.
    still
        Whether all has happened up to the moment at which the market stands still.
    """

    def __init__(
        self,
        market: MockMarket,
        venues: Sequence[str],
        *,
        speed: Speed,
        faults: Faults,
        ledger: Path | None,
        listeners: int = 1,
        until: float | None = None,
    ) -> None:
        if speed != "max" and not float(speed) > 0:
            raise InvalidParameter(f"speed={speed!r}: give a number above 0, or 'max'")
        if faults.delist is not None and faults.delist[0] not in market.listings:
            raise SymbolNotFound.named(faults.delist[0], market.listings)
        self.market, self.speed, self.faults = market, speed, faults
        self.truth = Truth(market)
        self.ledger = FaultLog(ledger, faults.wanted())
        self.world = World(self.truth, faults, self.ledger, self.now)
        self.publishers = {name: self._publisher(name) for name in venues}
        self._open = list(self.publishers.values())
        self.begun, self.ended = asyncio.Event(), asyncio.Event()
        self._heard, self._speaking = asyncio.Event(), asyncio.Event()
        self._speaking.set()
        self._listeners, self._until, self.still = listeners, until, False
        self.banned: Ban | None = None
        self._start: int | None = None
        self._anchor = 0.0
        self._reached = 0

    def _publisher(self, name: str) -> Publisher:
        if name not in PROTOCOLS:
            raise VenueNotFound.named(name, PROTOCOLS)
        module, _, made = PROTOCOLS[name].partition(":")
        protocol = getattr(import_module(module), made)(self.world)
        return Publisher(protocol, self.truth, self.faults, self.ledger, self._begin)

    def now(self) -> int:
        """Return market time in microseconds: the wall clock before the market begins."""
        if self._start is None:
            begins = self.market.start
            return self._wall() if begins is None else begins
        if self.speed == "max":
            return max(self._reached, self._start)
        now = self._start + int((time.monotonic() - self._anchor) * float(self.speed) * 1e6)
        return now if self._hold is None else min(now, self._hold)

    @property
    def _hold(self) -> int | None:
        """Return the time at which the market stands still."""
        if self._until is None or self._start is None:
            return None
        return self._start + _us(self._until)

    def go_on(self, until: float | None) -> None:
        """Let the market move on from where it is, up to so many seconds after its beginning."""
        if self._start is not None and self.speed != "max":
            stood = (self.now() - self._start) / 1e6 / float(self.speed)
            self._anchor = time.monotonic() - stood
        self._until, self.still = until, False

    def stand_still(self) -> None:
        """Let the market stand still where it is."""
        self._until = None if self._start is None else (self.now() - self._start) / 1e6

    def _wall(self) -> int:
        return time.time_ns() // 1_000 + self.faults.clock_skew_ms * 1_000

    def _begin(self) -> None:
        self._heard.set()
        streams = sum(publisher.streams for publisher in self.publishers.values())
        if self._start is None and streams >= self._listeners:
            # Whole milliseconds: what venues with coarse clocks say is the truth, too.
            self._start = self.now() // 1_000 * 1_000
            self._anchor = time.monotonic()
            for book in self.truth.books.values():
                book.time = self._start
            self.begun.set()

    def state(self) -> dict[str, Any]:
        """Return what happened and what was done wrong, for reconciliation; see `MockVenue`."""
        deals = self.truth.deals
        return {
            "header": self.ledger.header,
            "symbols": {symbol: one.summary() for symbol, one in deals.items()},
            "venues": {name: publisher.state() for name, publisher in self.publishers.items()},
            "frames": {name: dict(publisher.frames) for name, publisher in self.publishers.items()},
            "counts": dict(self.ledger.counts),
            "faults": list(self.ledger.faults),
            "running": self.begun.is_set() and not self.ended.is_set() and not self.still,
        }

    def cut(self) -> None:
        """Cut all connections in the middle of a frame."""
        for publisher in self.publishers.values():
            publisher.cut()

    def mute(self, *, silent: bool) -> None:
        """Fall silent with all connections open, or speak again."""
        self.ledger.add("stall" if silent else "speaks", time=self.now())
        self._speaking.clear() if silent else self._speaking.set()
        for publisher in self.publishers.values():
            publisher.mute(silent=silent)

    def ban(self, status: int, seconds: float, *, told: bool = True) -> None:
        """Refuse all REST questions for so many real seconds, and say for how long or not."""
        self.ledger.add("ban", status=status, seconds=seconds, time=self.now())
        self.banned = Ban(status, time.monotonic() + seconds, told)

    def shut_down(self, seconds: float) -> None:
        """Announce the end of all present connections, and cut them so many real seconds later."""
        for publisher in self.publishers.values():
            publisher.shut_down(seconds)

    def silence(self, part: str) -> None:
        """Send some streams to none of their present listeners, whose connections stay open."""
        self.ledger.add("silence", part=part, time=self.now())
        for publisher in self.publishers.values():
            publisher.silence(part)

    async def run(self) -> None:
        """Play the market from the first subscription to its end."""
        pings = asyncio.get_running_loop().create_task(self._ping())
        try:
            await self.begun.wait()
            assert self._start is not None  # noqa: S101 - set before the event
            events = self._misled(self.market.events(self._start), self._start)
            await (self._race(events) if self.speed == "max" else self._walk(events))
            for publisher in self.publishers.values():
                publisher.finish()
            self._flush()
            self.ended.set()
        finally:
            pings.cancel()

    def _misled(self, events: Iterator[MarketEvent], start: int) -> Iterator[MarketEvent]:
        faults = self.faults
        if faults.id_restart_at is not None:
            events = renumbered(events, faults.id_restart_at, self.ledger)
        if faults.delist is not None:
            events = without(events, faults.delist[0], start + _us(faults.delist[1]))
        plans = heapq.merge(
            sorted(self._plans(start), key=_when), cuts(faults, start, self.cut), key=_when
        )
        return with_plans(events, plans)

    def _plans(self, start: int) -> Iterator[Planned]:
        if self.faults.delist is not None:
            symbol, second = self.faults.delist
            end = start + _us(second)
            yield end, lambda: self._delist(symbol, end)
        if self.faults.silence is not None:
            part, second = self.faults.silence
            yield start + _us(second), lambda: self.silence(part)
        if self.faults.ban is not None:
            status, second, seconds = self.faults.ban
            yield start + _us(second), lambda: self.ban(status, seconds)
        if self.faults.stall_at is not None:
            yield start + _us(self.faults.stall_at), self._stall

    def _stall(self) -> None:
        self.mute(silent=True)
        loop = asyncio.get_running_loop()
        loop.call_later(self.faults.stall_seconds, lambda: self.mute(silent=False))

    def _delist(self, symbol: str, end: int) -> None:
        self.world.delisted[symbol] = end
        self.ledger.add("delist", symbol=symbol, time=end)
        for publisher in self.publishers.values():
            for stream, frame in publisher.protocol.delist(symbol):
                publisher.tell(stream, frame)

    async def _race(self, events: Iterator[MarketEvent]) -> None:
        while batch := list(islice(events, _BATCH)):
            while not any(publisher.heard for publisher in self.publishers.values()):
                self._heard.clear()
                await self._heard.wait()
            await self._speaking.wait()
            for event in batch:
                while self._hold is not None and event.time > self._hold:
                    self._reached = self._hold
                    self._flush()
                    self.still = True
                    await asyncio.sleep(_STANDING)
                self._happen(event)
            await self._drained()

    async def _walk(self, events: Iterator[MarketEvent]) -> None:
        for event in events:
            while (ahead := event.time - self.now()) > 0:
                self._flush()
                self._hurry()
                self.still = self.now() == self._hold
                pause = ahead / float(self.speed) / 1e6
                await asyncio.sleep(min(max(pause, 0.001), _LONGEST_SLEEP))
            self.still = False
            self._happen(event)
            if len(self.truth.deals[event.symbol]) % _BATCH == 0:
                self._flush()
                self._hurry()
                await asyncio.sleep(0)

    def _happen(self, event: MarketEvent) -> None:
        self._reached = event.time
        self.truth.add(event)
        for publisher in self._open:
            if publisher.heard:
                publisher.deliver(event)

    def _flush(self) -> list[asyncio.Future[None]]:
        return [
            written
            for publisher in self.publishers.values()
            for socket in publisher.sockets
            if (written := socket.flush()) is not None and socket.backlog > _BACKLOG
        ]

    async def _drained(self) -> None:
        waiting = self._flush()
        if waiting:
            await asyncio.wait(waiting)  # which does not cancel them with itself, as gather would
        await asyncio.sleep(0)

    def _hurry(self) -> None:
        for name, publisher in self.publishers.items():
            for socket in [one for one in publisher.sockets if one.backlog > _SLOW]:
                self.ledger.add("slow_client", venue=name, backlog=socket.backlog)
                socket.abort()

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_PING_SECONDS)
            for publisher in self.publishers.values():
                for socket in publisher.sockets:
                    socket.ping()


def _us(seconds: float) -> int:
    return int(seconds * 1e6)


def _when(plan: Planned) -> int:
    return plan[0]
