"""Registry of venues by name, each loaded when it is first used; the list of what one trades."""

from __future__ import annotations

import importlib
from fnmatch import fnmatchcase
from typing import Final

import polars as pl

from fxlab._ticks import instruments_frame
from fxlab.collect.feed import Address, Clock, Feed
from fxlab.errors import VenueNotFound
from fxlab.schema import INSTRUMENT

VENUES: Final[dict[str, str]] = {
    "binance": "fxlab.collect.venues._binance:Binance",
    "binance_futures": "fxlab.collect.venues._binance:BinanceFutures",
    "bybit": "fxlab.collect.venues._bybit:Bybit",
    "bybit_linear": "fxlab.collect.venues._bybit:BybitLinear",
    "kraken": "fxlab.collect.venues._kraken:Kraken",
    "mexc": "fxlab.collect.venues._mexc:Mexc",
    "okx": "fxlab.collect.venues._okx:Okx",
    "okx_swap": "fxlab.collect.venues._okx:OkxSwap",
}
"""Name to module and class."""

BRIDGE: Final = "ccxt"


def open_feed(venue: str, *, url: str | None = None, clock: Clock | None = None) -> Feed:
    """Return the feed of a venue; nothing is connected yet.

    Parameters
    ----------
    venue
        One of `VENUES`, or ``ccxt:`` and the name of an exchange that ccxt knows.
    url
        Of a mock venue or a proxy that serves it under its name; the venue itself by default.
    clock
        Stamps arrivals.

    Raises
    ------
    VenueNotFound
        With near names.
    InvalidInput
        When `url` is no http address.
    """
    bridge, colon, exchange = venue.partition(":")
    if colon and bridge == BRIDGE and exchange:
        from fxlab.collect.venues._ccxt import CcxtFeed

        return CcxtFeed(exchange, address=_address(url, exchange), clock=clock or Clock())
    if venue not in VENUES:
        raise VenueNotFound.named(venue, VENUES)
    module, _, name = VENUES[venue].partition(":")
    kind = getattr(importlib.import_module(module), name)
    feed: Feed = kind(address=_address(url, venue), clock=clock or Clock())
    return feed


def _address(url: str | None, venue: str) -> Address | None:
    return None if url is None else Address.under(url, venue)


INSTRUMENTS: Final = {
    "symbol": pl.String(), "native": pl.String(), "status": pl.String(),
    "price_decimals": pl.Int64(), "quantity_decimals": pl.Int64(), "contract_size": pl.Float64(),
}  # fmt: skip
_TERMS: Final = [name for name in INSTRUMENT if name not in INSTRUMENTS]


async def list_instruments(feed: Feed, pattern: str) -> pl.DataFrame:
    """Return what a venue trades; see `fxlab.Lab.instruments`. The feed is closed."""
    async with feed:
        known = await feed.instruments()
    details = ("quantity_decimals", "contract_size")
    rows = [
        (one.symbol, one.native, one.status, one.price_decimals, *map(one.detail.get, details))
        for name, one in sorted(known.items())
        if fnmatchcase(name, pattern)
    ]
    listed = {one.symbol: one.terms for one in known.values()}
    terms = instruments_frame(listed).select("symbol", *_TERMS)
    found = pl.DataFrame(rows, schema=INSTRUMENTS, orient="row")
    return found.join(terms, on="symbol", how="left", maintain_order="left")
