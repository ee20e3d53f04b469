"""Binance spot and USD-M futures, as their public documentation says they speak.

Sources: https://github.com/binance/binance-spot-api-docs (web-socket-streams.md, rest-api.md) and
https://developers.binance.com/docs/derivatives/usds-margined-futures (websocket market streams,
market data). Spot prices and quantities have eight decimals, those of futures as many as the
symbol. A stream is known by its name on combined connections, and by a / before it on raw ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from fxlab.mock.market import BookChange, Deal, Happening
from fxlab.mock.protocols.base import Answer, Protocol, Query, Session, World, compact
from fxlab.mock.protocols.binance_frames import Frames
from fxlab.mock.protocols.binance_rest import BinanceRest


class Binance(Protocol):
    """Binance spot."""

    name: ClassVar[str] = "binance"
    sockets: ClassVar[tuple[str, ...]] = ("/stream", "/ws", "/ws/*")
    futures: ClassVar[bool] = False

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._frames = {
            symbol: Frames(listing, world.truth.books[symbol].id, futures=self.futures)
            for symbol, listing in world.listings.items()
        }
        self._symbols = {frames.stream: symbol for symbol, frames in self._frames.items()}
        self._rest = BinanceRest(world, self._frames, futures=self.futures)

    def encode(self, happening: Happening) -> Sequence[tuple[str, bytes]]:
        """Return frames of trades, diffs of the book and best prices."""
        if happening.frame is not None and not self.futures:
            return self._recorded(*happening.frame)
        frames = self._frames[happening.symbol]
        told = self._due(frames, happening.time) if frames.gathering else []
        if isinstance(happening, Deal):
            told += self._deal(frames, happening)
        elif isinstance(happening, BookChange):
            self._gather(frames, happening)
            key = f"{frames.stream}@bookTicker"
            if self._wanted(key):
                told += self._both(key, frames.ticker(self.world.truth.books[happening.symbol]))
        return told

    def _deal(self, frames: Frames, deal: Deal) -> list[tuple[str, bytes]]:
        trade, aggregate = frames.deal_keys
        told = self._both(trade, frames.trade(deal)) if self._wanted(trade) else []
        if self._wanted(aggregate):
            told += self._both(aggregate, frames.aggregate(deal))
        return told

    def _gather(self, frames: Frames, change: BookChange) -> None:
        for name, window in frames.windows.items():
            if self._wanted(f"{frames.stream}@{name}"):
                window.gather(change)
                frames.gathering = True
            else:
                window.skip(change)

    def _due(self, frames: Frames, time: int) -> list[tuple[str, bytes]]:
        told = []
        for name, window in frames.windows.items():
            if window.over(time):
                told += self._both(f"{frames.stream}@{name}", frames.depth(window))
                window.clear()
        return told

    def begin(self, stream: str, symbol: str) -> None:
        """Forget what was gathered for those who left before it was sent."""
        key = stream.lstrip("/")
        window = self._frames[symbol].windows.get(key.partition("@")[2])
        if window is not None and not self._wanted(key):
            window.id = self.world.truth.books[symbol].id
            window.clear()

    def finish(self) -> Iterator[tuple[str, bytes]]:
        """Return the diffs that were being gathered."""
        for frames in self._frames.values():
            yield from self._due(frames, 1 << 62)

    def _wanted(self, key: str) -> bool:
        return key in self.listened or f"/{key}" in self.listened

    def _both(self, key: str, data: bytes) -> list[tuple[str, bytes]]:
        told = []
        if key in self.listened:
            told.append((key, b'{"stream":"%b","data":%b}' % (key.encode(), data)))
        if f"/{key}" in self.listened:
            told.append((f"/{key}", data))
        return told

    def _recorded(self, key: str, frame: bytes) -> list[tuple[str, bytes]]:
        told = [(key, frame)] if key in self.listened else []
        if f"/{key}" in self.listened:
            told.append((f"/{key}", frame[frame.index(b'"data":') + 7 : -1]))
        return told

    def describe(self, frame: bytes) -> dict[str, Any]:
        """Return the ids of a frame: t or a of trades, U and u of diffs."""
        message = json.loads(frame)
        data = message.get("data", message)
        return {name: data[name] for name in ("t", "a", "U", "u") if name in data and "s" in data}

    def opened(self, session: Session, path: str, query: Query) -> None:
        """Subscribe to the streams that the address names."""
        combined = path.endswith("/stream")
        session.notes["combined"] = combined
        named = query.get("streams", "") if combined else path.rpartition("/ws")[2]
        self._subscribe(session, [name for name in named.strip("/").split("/") if name])

    def heard(self, session: Session, text: str) -> None:
        """Obey SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS."""
        try:
            request = json.loads(text)
            number, method = request.get("id"), request["method"]
            streams = [str(one) for one in request.get("params", ())]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            error = {"code": 2, "msg": "Invalid request: request must be a JSON object"}
            session.send(compact({"error": error, "id": None}))
            return
        session.send(compact(self._obey(session, method, streams) | {"id": number}))

    def _obey(self, session: Session, method: str, streams: Sequence[str]) -> dict[str, Any]:
        if method == "SUBSCRIBE":
            self._subscribe(session, streams)
        elif method == "UNSUBSCRIBE":
            for name in streams:
                session.unsubscribe(_key(session, name))
        elif method == "LIST_SUBSCRIPTIONS":
            return {"result": [key.lstrip("/") for key in session.streams]}
        else:
            return {"error": {"code": 2, "msg": f"Invalid request: unknown variant {method}"}}
        return {"result": None}

    def _subscribe(self, session: Session, streams: Sequence[str]) -> None:
        # An unknown stream is accepted and stays silent, as on the venue.
        for name in streams:
            symbol = self._symbols.get(name.partition("@")[0])
            if symbol is not None:
                session.subscribe(_key(session, name), symbol)

    def answer(self, path: str, query: Query) -> Answer | None:
        """Return an answer of the public market data API."""
        return self._rest.answer(path, query)


class BinanceFutures(Binance):
    """Binance USD-M perpetuals."""

    name: ClassVar[str] = "binance_futures"
    sockets: ClassVar[tuple[str, ...]] = tuple(
        f"{entry}{path}" for entry in ("", "/public", "/market") for path in Binance.sockets
    )
    futures: ClassVar[bool] = True


def _key(session: Session, name: str) -> str:
    return name if session.notes["combined"] else f"/{name}"
