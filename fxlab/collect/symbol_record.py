"""What is known of one symbol while it is recorded, and of the gaps that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from fxlab.backtester.decimals import find_decimals
from fxlab.backtester.quotes import mid_decimals
from fxlab.collect.book_track import BookRow, BookTrack
from fxlab.collect.event_rows import GapRow
from fxlab.collect.feed import Trade
from fxlab.collect.trade_ids import Hole
from fxlab.collect.trade_track import TradeTrack
from fxlab.schema import book_levels

BID: Final = book_levels().index("bid_price_1")
ASK: Final = book_levels().index("ask_price_1")
_BEST: Final = {"bid_price_1": pl.Float64, "ask_price_1": pl.Float64}


@dataclass(slots=True)
class Missing:
    """A gap in a symbol's trades that the venue's history may fill."""

    symbol: str
    hole: Hole
    gap: GapRow


@dataclass(frozen=True, slots=True)
class Asked:
    """What follows the trades that were asked for: how that ended."""

    missing: Missing
    outcome: str


@dataclass(slots=True)
class SymbolRecord:
    """All that is known of one symbol.

    Attributes
    ----------
    decimals
        Decimals that write all its prices so far; None if they have too many.
    of_mids
        Whether they are those of mids, because no trade has come.
    last_price, bid, ask
        None while unknown.
    lag
        Arrival minus venue time of the newest message, in microseconds.
    """

    trades: TradeTrack
    book: BookTrack | None
    decimals: int | None = 0
    of_mids: bool = True
    last_price: float | None = None
    bid: float | None = None
    ask: float | None = None
    lag: int | None = None

    def look_at_trades(self, trades: Sequence[Trade]) -> None:
        """Learn from trades that were stored."""
        last = trades[-1]
        if last.origin == "live":
            self.last_price, self.lag = last.price, last.received - last.time
        if self.of_mids:
            self.decimals, self.of_mids = 0, False
        prices = pl.Series([trade.price for trade in trades], dtype=pl.Float64)
        self.decimals = _most(self.decimals, find_decimals(prices))

    def look_at_books(self, rows: Sequence[BookRow]) -> None:
        """Learn from books that were stored."""
        newest = rows[-1]
        self.bid, self.ask = newest.levels[BID], newest.levels[ASK]
        self.lag = newest.received - newest.time
        if self.of_mids:
            best = [(row.levels[BID], row.levels[ASK]) for row in rows]
            found = mid_decimals(pl.DataFrame(best, _BEST, orient="row"))
            self.decimals = _most(self.decimals, found)

    def to_json(self) -> dict[str, Any]:
        """Return what a later collector needs to go on."""
        return {
            "trades": self.trades.to_json(),
            "book": self.book.to_json() if self.book is not None else None,
            "decimals": self.decimals,
            "of_mids": self.of_mids,
        }

    def load(self, found: dict[str, Any]) -> None:
        """Go on after what `to_json` described."""
        self.trades = TradeTrack.from_json(found["trades"])
        self.decimals, self.of_mids = found["decimals"], found["of_mids"]
        if self.book is not None and found["book"] is not None:
            self.book = BookTrack.from_json(found["book"], self.book.depth, self.book.every)


def _most(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else max(before, now)
