"""Binance's REST answers about the market; see `fxlab.mock.protocols.binance` for the sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from fxlab.mock.market import Deal, Listing
from fxlab.mock.protocols.base import Answer, Query, World
from fxlab.mock.protocols.binance_frames import Frames

_NO_SYMBOL: Final = Answer.of({"code": -1121, "msg": "Invalid symbol."}, 400)
_NO_KEY: Final = Answer.of({"code": -2014, "msg": "API-key format invalid."}, 401)
_MOST: Final = 1_000


class BinanceRest:
    """Answers for spot under /api/v3, for futures under /fapi/v1."""

    def __init__(self, world: World, frames: Mapping[str, Frames], *, futures: bool) -> None:
        self._world = world
        self._frames = {one.native: one for one in frames.values()}
        self._futures = futures
        self._root = "/fapi/v1" if futures else "/api/v3"
        self._general: dict[str, Callable[[Query], Answer]] = {
            "/ping": lambda _: Answer.of({}),
            "/time": lambda _: Answer.of({"serverTime": self._now_ms()}),
            "/exchangeInfo": self._instruments,
        }
        self._of_symbol: dict[str, Callable[[Frames, Query], Answer]] = {
            "/depth": self._depth,
            "/trades": self._trades,
            "/historicalTrades": self._historical,
            "/aggTrades": self._aggregates,
        }

    def answer(self, path: str, query: Query) -> Answer | None:
        """Return the answer, None for an unknown path."""
        if not path.startswith(f"{self._root}/"):
            return None
        name = path.removeprefix(self._root)
        if general := self._general.get(name):
            return general(query)
        if (about := self._of_symbol.get(name)) is None:
            return None
        frames = self._frames.get(query.get("symbol", ""))
        try:
            return _NO_SYMBOL if frames is None else about(frames, query)
        except ValueError:
            return Answer.of(
                {"code": -1100, "msg": "Illegal characters found in a parameter."}, 400
            )

    def _now_ms(self) -> int:
        return self._world.now() // 1_000

    def _instruments(self, query: Query) -> Answer:
        names = list(self._frames)
        if not self._futures and "symbol" in query:
            names = [query["symbol"]]
        elif not self._futures and "symbols" in query:
            names = json.loads(query["symbols"])
        if any(name not in self._frames for name in names):
            return _NO_SYMBOL
        symbols = [self._instrument(self._frames[name]) for name in names]
        return Answer.of({"timezone": "UTC", "serverTime": self._now_ms(), "symbols": symbols})

    def _instrument(self, frames: Frames) -> dict[str, Any]:
        listing = frames.listing
        trading = listing.symbol not in self._world.delisted
        detail = _futures_detail(listing) if self._futures else _SPOT_DETAIL
        return {
            "symbol": frames.native,
            "status": "TRADING" if trading else "SETTLING" if self._futures else "BREAK",
            "baseAsset": listing.base,
            "quoteAsset": listing.quote,
            **detail,
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": frames.price(1)},
                {"filterType": "LOT_SIZE", "stepSize": frames.quantity(1)},
            ],
        }

    def _depth(self, frames: Frames, query: Query) -> Answer:
        limit = int(query.get("limit", "500" if self._futures else "100"))
        book = self._world.book(frames.listing.symbol)
        bids, asks = book.top(min(limit, 1_000 if self._futures else 5_000))
        time = book.time // 1_000
        times = f'"E":{time},"T":{time},' if self._futures else ""
        text = (
            f'{{"lastUpdateId":{book.id},{times}'
            f'"bids":{frames.levels(bids)},"asks":{frames.levels(asks)}}}'
        )
        return Answer(text.encode())

    def _trades(self, frames: Frames, query: Query) -> Answer:
        deals = self._world.truth.deals[frames.listing.symbol].last(_limit(query))
        return Answer.of([self._row(frames, deal) for deal in deals])

    def _historical(self, frames: Frames, query: Query) -> Answer:
        # On futures it is documented as MARKET_DATA: it wants a key in a header.
        if self._futures:
            return _NO_KEY
        return Answer.of([self._row(frames, deal) for deal in self._asked(frames, query)])

    def _aggregates(self, frames: Frames, query: Query) -> Answer:
        return Answer.of([self._aggregate(frames, deal) for deal in self._asked(frames, query)])

    def _asked(self, frames: Frames, query: Query) -> list[Deal]:
        deals, limit = self._world.truth.deals[frames.listing.symbol], _limit(query)
        if "fromId" in query:
            return deals.from_id(int(query["fromId"]), limit)
        if "startTime" in query:
            return deals.after(int(query["startTime"]) * 1_000 - 1, limit)
        return deals.last(limit)

    def _row(self, frames: Frames, deal: Deal) -> dict[str, Any]:
        row = {
            "id": deal.id,
            "price": frames.price(deal.price),
            "qty": frames.quantity(deal.quantity),
            "quoteQty": frames.worth(deal),
            "time": deal.time // 1_000,
            "isBuyerMaker": not deal.bought,
        }
        return row if self._futures else {**row, "isBestMatch": True}

    def _aggregate(self, frames: Frames, deal: Deal) -> dict[str, Any]:
        row = {
            "a": deal.id,
            "p": frames.price(deal.price),
            "q": frames.quantity(deal.quantity),
            "f": deal.id,
            "l": deal.id,
            "T": deal.time // 1_000,
            "m": not deal.bought,
        }
        return row if self._futures else {**row, "M": True}


_SPOT_DETAIL: Final = {
    "baseAssetPrecision": 8,
    "quotePrecision": 8,
    "quoteAssetPrecision": 8,
    "isSpotTradingAllowed": True,
    "isMarginTradingAllowed": False,
    "permissions": [],
    "permissionSets": [["SPOT"]],
}


def _futures_detail(listing: Listing) -> dict[str, Any]:
    return {
        "pair": listing.base + listing.quote,
        "contractType": "PERPETUAL",
        "marginAsset": listing.quote,
        "pricePrecision": listing.price_decimals,
        "quantityPrecision": listing.quantity_decimals,
    }


def _limit(query: Query) -> int:
    return max(1, min(int(query.get("limit", "500")), _MOST))
