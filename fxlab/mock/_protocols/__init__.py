"""Registry of the venue protocols that the mock serves, each loaded when it is served."""

from __future__ import annotations

from typing import Final

PROTOCOLS: Final = {
    "binance": "fxlab.mock._protocols.binance:BinanceProtocol",
    "binance_futures": "fxlab.mock._protocols.binance:BinanceFuturesProtocol",
    "kraken": "fxlab.mock._protocols.kraken:KrakenProtocol",
    "mexc": "fxlab.mock._protocols.mexc:MexcProtocol",
}
