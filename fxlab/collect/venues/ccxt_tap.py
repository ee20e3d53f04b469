"""Taps ccxt where it is lossless: beside its parsers, not behind its queues.

What ``watch_trades`` hands out comes from a ring of 1,000 trades, and ``watch_order_book`` hands
out a state that may have changed many times meanwhile: who only awaits them loses data without a
word. Inside, however, each trade is appended to a cache and each applied change of a book is
resolved. Both are overheard here, by a subclass of the exchange, for this instance alone.

These two seams are no public interface of ccxt: its minor version is pinned, and
``tests/test_ccxt_bridge.py`` holds that they are there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, cast

from fxlab.collect.address import Address
from fxlab.collect.feed import Instrument
from fxlab.errors import InvalidParameter, VenueNotFound
from fxlab.identifiers import is_symbol

RING: Final = 1_000

Raw = dict[str, Any]


def load(exchange: str) -> Any:  # noqa: ANN401 - ccxt is typed by half
    """Return ccxt's class of an exchange.

    Raises
    ------
    InvalidParameter
        Without ccxt.
    VenueNotFound
        If ccxt has no streams of that exchange.
    """
    try:
        import ccxt.pro
    except ImportError as error:
        raise InvalidParameter(
            f"venue 'ccxt:{exchange}' needs the package ccxt; install it with: "
            "pip install 'fxlab[ccxt]'"
        ) from error
    if exchange not in ccxt.pro.exchanges:
        raise VenueNotFound.named(f"ccxt:{exchange}", [f"ccxt:{one}" for one in ccxt.pro.exchanges])
    return getattr(sys.modules["ccxt.pro"], exchange)


def tapped(kind: Any, on_trade: Callable[[Raw], None], on_book: Callable[[Raw], None]) -> Any:  # noqa: ANN401
    """Return a subclass of an exchange that tells each trade and each state of a book.

    Parameters
    ----------
    kind
        ccxt's class.
    on_trade
        Gets each parsed trade, in the order in which ccxt parsed them.
    on_book
        Gets a book after each change that was applied; it must be read at once, as it goes on.
    """
    from ccxt.async_support.base.ws.cache import ArrayCache
    from ccxt.async_support.base.ws.order_book import OrderBook

    class TapCache(ArrayCache):  # type: ignore[misc]
        def append(self, item: Raw) -> None:
            on_trade(item)
            super().append(item)

    class Tapped(kind):  # type: ignore[misc]
        def client(self, url: str) -> Any:  # noqa: ANN401
            client = super().client(url)
            if "resolve" not in vars(client):
                client.resolve = _overheard(client.resolve, on_book, OrderBook)
            return client

        def tap_trades(self, symbol: str) -> None:
            """Put our cache where ccxt would put its own."""
            self.trades[symbol] = TapCache(RING)

        def holds_tap(self, symbol: str) -> bool:
            """Return whether ccxt still uses our cache."""
            return isinstance(self.trades.get(symbol), TapCache)

    return Tapped


def _overheard(
    resolve: Callable[[Any, Any], Any], on_book: Callable[[Raw], None], book_type: type
) -> Callable[[Any, Any], Any]:
    def overheard(result: Any, message_hash: Any = None) -> Any:  # noqa: ANN401 - as ccxt's
        if isinstance(result, book_type):
            on_book(cast("Raw", result))
        return resolve(result, message_hash)

    return overheard


def redirect(urls: Raw, address: Address) -> None:
    """Point all addresses of an exchange to a mock or a proxy; their paths stay."""
    for name, value in urls.items():
        if isinstance(value, dict):
            redirect(value, address)
        elif isinstance(value, str) and "://" in value:
            scheme, _, rest = value.partition("://")
            base = address.stream if scheme.startswith("ws") else address.rest
            slash, path = rest.partition("/")[1:]
            urls[name] = f"{base}{slash}{path}"


def instrument_of(market: Mapping[str, Any], precision_is_tick: bool) -> Instrument | None:  # noqa: FBT001
    """Return a market as an instrument, or None if it has no name that fxlab can keep.

    A contract keeps what it settles in: BTC/USDT:USDT is BTC_USDT:USDT.
    """
    symbol = str(market["symbol"]).replace("/", "_").upper()
    if not is_symbol(symbol):
        return None
    precision = (market.get("precision") or {}).get("price")
    return Instrument(
        symbol,
        market["symbol"],
        _decimals(precision, precision_is_tick),
        "inactive" if market.get("active") is False else "trading",
        {
            "contract_size": float(market.get("contractSize") or 1.0),
            "inverse": market.get("inverse") is True,
        },
    )


def _decimals(precision: float | None, precision_is_tick: bool) -> int | None:  # noqa: FBT001
    if precision is None:
        return None
    if not precision_is_tick:
        return int(precision)
    exponent = Decimal(str(precision)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else None
