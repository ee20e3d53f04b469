"""How Kraken writes: names, times, numbers with all their zeros, and the checksum of a book."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from fxlab.mock.market import Change, Deal, Listing

Sides = tuple[list[Change], list[Change]]
"""Bids and asks, best first."""

OLD_NAMES: Final = {"BTC": "XBT", "DOGE": "XDG"}
_CHECKED: Final = 10


def native(listing: Listing) -> str:
    """Return the name of a pair in WebSocket v2: BTC/USD."""
    return f"{listing.base}/{listing.quote}"


def key(listing: Listing) -> str:
    """Return the name of a pair in REST, which keeps the old names: XBTUSD."""
    return "".join(OLD_NAMES.get(one, one) for one in (listing.base, listing.quote))


def checksum(sides: Sides) -> int:
    """Return the CRC-32 of the ten best asks and bids.

    Prices and quantities are whole numbers of their last decimals, which is what the documented
    text of a level is: its digits without point and leading zeros.
    """
    bids, asks = sides
    levels = [*asks[:_CHECKED], *bids[:_CHECKED]]
    return zlib.crc32("".join(f"{price}{quantity}" for price, quantity in levels).encode())


def stamp(micros: int) -> str:
    """Return a time as the venue prints it: 2023-10-06T17:35:55.440295Z."""
    seconds, part = divmod(micros, 1_000_000)
    return f"{_second(seconds)}.{part:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def trade_text(deal: Deal, listing: Listing) -> str:
    """Return a trade as an entry of the channel ``trade``."""
    return (
        f'{{"symbol":"{native(listing)}","side":"{"buy" if deal.bought else "sell"}",'
        f'"price":{listing.price(deal.price)},"qty":{listing.quantity(deal.quantity)},'
        f'"ord_type":"market","trade_id":{deal.id},"timestamp":"{stamp(deal.time)}"}}'
    )


def book_text(kind: str, listing: Listing, sides: Sides, check: int, time: int | None) -> str:
    """Return a frame of the channel ``book``."""
    bids, asks = (",".join(_level(listing, change) for change in side) for side in sides)
    when = "" if time is None else f',"timestamp":"{stamp(time)}"'
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{native(listing)}",'
        f'"bids":[{bids}],"asks":[{asks}],"checksum":{check}{when}}}]}}'
    )


def _level(listing: Listing, change: Change) -> str:
    price, quantity = change
    return f'{{"price":{listing.price(price)},"qty":{listing.quantity(quantity)}}}'
