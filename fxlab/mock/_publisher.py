"""Publisher of one protocol: frames to its clients, faults applied, and what was never sent.

Every copy of every frame passes here, so this is where faults are applied and counted, and where it
is known, trade by trade, what a perfect collector could have received.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from fxlab.mock._faults import FaultInjector, FaultLog, Faults, OutgoingFrame
from fxlab.mock._market import MarketEvent, MarketTrade, Truth
from fxlab.mock._protocols import Protocol
from fxlab.mock._sockets import Socket, framed


class Publisher:
    """Delivers the frames of one protocol.

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
