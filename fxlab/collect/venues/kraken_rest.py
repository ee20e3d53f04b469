"""Kraken's REST interface: pairs, time, and trades of the past by their ids.

Trades can only be asked for by time, a thousand at a time, oldest first. Which time an id had is
found from the pace of the trades that are already known.

https://docs.kraken.com/api-reference/market-data/get-recent-trades
https://docs.kraken.com/api-reference/market-data/get-tradable-asset-pairs
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fxlab.collect.clock import Clock
from fxlab.collect.feed import Instrument, Trade
from fxlab.collect.rest import Rest
from fxlab.collect.venues.suspects import NOT_AS_DOCUMENTED, cause_of, positive
from fxlab.errors import VenueRefused, VenueUnavailable

PAUSE: Final = 1.0
"""Seconds between two questions: about one a second is allowed."""
STEPS_BACK: Final = 12

_NEW_NAMES: Final = {"XBT": "BTC", "XDG": "DOGE"}
_SIDES: Final = {"b": "buy", "s": "sell"}
_LIMITS: Final = ("Rate limit", "Too many requests")


class KrakenRest:
    """Kraken's public questions.

    Parameters
    ----------
    base_url
        Without a slash at the end.
    clock
        Stamps arrivals.
    pause
        Seconds between two questions.
    """

    def __init__(self, base_url: str, clock: Clock, *, pause: float = PAUSE) -> None:
        self._rest = Rest(base_url, clock=clock)
        self._clock = clock
        self._pause = pause

    async def close(self) -> None:
        """Close the connections."""
        await self._rest.close()

    async def server_time(self) -> int:
        """Return the venue's clock in microseconds: the middle of the second that it tells."""
        found = await self._ask("Time")
        try:
            return int(found["unixtime"]) * 1_000_000 + 500_000
        except NOT_AS_DOCUMENTED as error:
            raise self._odd("Time", error) from error

    async def instruments(self) -> dict[str, Instrument]:
        """Return the pairs that have a stream, by fxlab's symbol."""
        pairs = await self._ask("AssetPairs")
        try:
            found = [_instrument(key, pair) for key, pair in pairs.items() if "wsname" in pair]
        except NOT_AS_DOCUMENTED as error:
            raise self._odd("AssetPairs", error) from error
        return {one.symbol: one for one in found}

    async def trades(self, instrument: Instrument, first_id: int, last_id: int) -> list[Trade]:
        """Return the trades with these ids, both included, as far as the venue still has them."""
        page = await self._page_with(instrument, first_id)
        found: dict[int, Trade] = {}
        while page:
            new = {_id(trade): trade for trade in page if first_id <= _id(trade) <= last_id}
            end = page[-1]
            if _id(end) >= last_id:
                return list((found | new).values())
            found |= new
            # Trades of one microsecond may lie on both sides of a page's end.
            page = await self._next_page(instrument, end.time - 1)
            if page and _id(page[-1]) == _id(end):
                break
        return list(found.values())

    async def _page_with(self, instrument: Instrument, first_id: int) -> list[Trade]:
        """Return trades that begin at or before an id, if there are any so old."""
        page = await self._page(instrument)
        reach = 1.5
        for _ in range(STEPS_BACK):
            if not page or _id(page[0]) <= first_id:
                break
            since = page[0].time - int(reach * _distance(page, first_id))
            earlier = await self._next_page(instrument, max(since, 0))
            if not earlier or since <= 0:
                return earlier or page
            reach = reach * 2 if _id(earlier[0]) >= _id(page[0]) else 1.5
            page = earlier
        return page

    async def _next_page(self, instrument: Instrument, since: int) -> list[Trade]:
        await asyncio.sleep(self._pause)
        return await self._page(instrument, since=str(since * 1_000))

    async def _page(self, instrument: Instrument, **parameters: str) -> list[Trade]:
        key = instrument.detail["rest"]
        found = await self._ask("Trades", pair=key, **parameters)
        try:
            received = self._clock.now()
            return [_trade(row, instrument.symbol, received) for row in found[key]]
        except NOT_AS_DOCUMENTED as error:
            raise self._odd("Trades", error) from error

    async def _ask(self, what: str, **parameters: str) -> Any:  # noqa: ANN401 - any JSON
        answer = await self._rest.get(f"/0/public/{what}", **parameters)
        errors = answer.get("error") if isinstance(answer, dict) else ["no JSON object"]
        if not errors:
            return answer.get("result")
        said = f"{self._rest.host} answers {what} with {errors!r:.200}"
        if any(limit in str(errors) for limit in _LIMITS):
            raise VenueRefused(f"{said}; wait a minute, and run fewer collectors")
        raise VenueUnavailable(f"{said}; try again later")

    def _odd(self, what: str, error: Exception) -> VenueUnavailable:
        return VenueUnavailable(
            f"{self._rest.host} answers {what} not as documented ({cause_of(error)}); "
            "try again later, and report it if it stays"
        )


def _instrument(key: str, pair: Mapping[str, Any]) -> Instrument:
    names = [_NEW_NAMES.get(name, name) for name in pair["wsname"].split("/")]
    base, quote = names
    status = pair.get("status", "online")
    return Instrument(
        f"{base}_{quote}".upper(),
        f"{base}/{quote}",
        int(pair["pair_decimals"]),
        "trading" if status == "online" else str(status),
        {"rest": key, "quantity_decimals": int(pair["lot_decimals"])},
    )


def _trade(row: Sequence[Any], symbol: str, received: int) -> Trade:
    price, volume, time, side, *_, number = row
    if type(number) is not int:
        raise TypeError(f"trade id {number!r:.40} is no whole number")
    return Trade(
        symbol,
        number,
        _SIDES[side],
        positive(price, "price"),
        positive(volume, "volume"),
        _micros(time),
        received,
        "backfill",
    )


def _micros(seconds: float) -> int:
    """Return microseconds as the stream prints them: cut off, never rounded up."""
    whole, _, part = repr(float(seconds)).partition(".")
    return int(whole) * 1_000_000 + int(part[:6].ljust(6, "0"))


def _distance(page: list[Trade], first_id: int) -> float:
    """Return how many microseconds before a page an id must lie, by the pace of the page."""
    pace = (page[-1].time - page[0].time + 1_000) / len(page)
    return (_id(page[0]) - first_id + 1) * pace + 1_000_000


def _id(trade: Trade) -> int:
    assert isinstance(trade.id, int)  # noqa: S101 - `_trade` saw to it
    return trade.id
