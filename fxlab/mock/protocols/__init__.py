"""The venues that the mock can speak for, by name; each is loaded when it is served."""

from __future__ import annotations

from typing import Final

PROTOCOLS: Final = {
    "binance": "fxlab.mock.protocols.binance:Binance",
    "binance_futures": "fxlab.mock.protocols.binance:BinanceFutures",
    "kraken": "fxlab.mock.protocols.kraken:Kraken",
    "mexc": "fxlab.mock.protocols.mexc:Mexc",
}
