"""Binance USD-M futures, perpetual contracts: trades, order books and best quotes.

https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams
https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api

Trades are the documented ``aggTrade``: what one order took at one price is one trade, and its ids
rise by one without holes. The undocumented ``trade`` stream is finer, but spends ids on records
that are no trades (price 0, ``X`` = "NA"), which a recorder would have to report as missing; and
its past is only told to holders of a key, while ``aggTrades`` tells everybody by id.

A change's ``pu`` is the ``u`` of the change before it ("How to manage a local order book
correctly"). Books come from ``/public`` and trades from ``/market`` since April 2026 ("Important
WebSocket Change Notice").
"""

from __future__ import annotations

from typing import ClassVar

from fxlab.collect.address import Address
from fxlab.collect.venues.binance import Binance
from fxlab.collect.venues.binance_plan import Terms


class BinanceFutures(Binance):
    """Binance USD-M perpetual futures."""

    venue: ClassVar[str] = "binance_futures"

    ADDRESS: ClassVar[Address] = Address(
        rest="https://fapi.binance.com", stream="wss://fstream.binance.com"
    )
    API: ClassVar[str] = "/fapi/v1"
    TERMS: ClassVar[Terms] = Terms(
        trade_stream="aggTrade",
        trade_path="/market/stream",
        book_path="/public/stream",
        snapshot_levels=1000,
    )
    CONTRACT: ClassVar[str | None] = "PERPETUAL"
    HISTORY: ClassVar[str] = "aggTrades"
    PAST_NAMES: ClassVar[tuple[str, ...]] = ("a", "p", "q", "T", "m")
