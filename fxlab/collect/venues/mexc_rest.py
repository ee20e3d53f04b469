"""MEXC's REST interface for futures: contracts, time and snapshots of books.

https://www.mexc.com/api-docs/futures/market-endpoints
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from fxlab.collect.clock import Clock
from fxlab.collect.feed import BookSnapshot, Instrument
from fxlab.collect.rest import Rest
from fxlab.collect.venues.mexc_frames import levels_of, version_of
from fxlab.collect.venues.suspects import NOT_AS_DOCUMENTED, cause_of, listed, positive
from fxlab.errors import VenueRefused, VenueUnavailable

SNAPSHOT_LEVELS: Final = 1_000

_STATES: Final = {0: "trading", 1: "delivery", 2: "delivered", 3: "offline", 4: "paused"}
_TOO_OFTEN: Final = 510


class MexcRest:
    """MEXC's public questions.

    Parameters
    ----------
    base_url
        Without a slash at the end.
    clock
        Stamps arrivals.
    """

    def __init__(self, base_url: str, clock: Clock) -> None:
        self._rest = Rest(base_url, clock=clock)
        self._clock = clock

    async def close(self) -> None:
        """Close the connections."""
        await self._rest.close()

    async def server_time(self) -> int:
        """Return the venue's clock in microseconds; it tells milliseconds."""
        found = await self._ask("ping")
        try:
            return int(positive(found, "time")) * 1_000
        except NOT_AS_DOCUMENTED as error:
            raise self._odd("ping", error) from error

    async def instruments(self) -> dict[str, Instrument]:
        """Return the contracts, by fxlab's symbol, which is the venue's own."""
        found = await self._ask("detail")
        try:
            entries = [found] if isinstance(found, dict) else listed(found)
            return {one.symbol: one for one in map(_instrument, entries)}
        except NOT_AS_DOCUMENTED as error:
            raise self._odd("detail", error) from error

    async def snapshot(self, instrument: Instrument) -> BookSnapshot:
        """Return a contract's book."""
        what = f"depth/{instrument.native}"
        found = await self._ask(what, limit=SNAPSHOT_LEVELS)
        received = self._clock.now()
        try:
            return BookSnapshot(
                instrument.symbol,
                version_of(found["version"]),
                levels_of(found["bids"], instrument),
                levels_of(found["asks"], instrument),
                int(positive(found["timestamp"], "timestamp")) * 1_000,
                received,
            )
        except NOT_AS_DOCUMENTED as error:
            raise self._odd(what, error) from error

    async def _ask(self, what: str, **parameters: str | float) -> Any:  # noqa: ANN401 - any JSON
        answer = await self._rest.get(f"/api/v1/contract/{what}", **parameters)
        if isinstance(answer, dict) and answer.get("success") is True and "data" in answer:
            return answer["data"]
        said = f"{self._rest.host} answers {what} with {answer!r:.200}"
        if isinstance(answer, dict) and answer.get("code") == _TOO_OFTEN:
            raise VenueRefused(f"{said}; wait a minute, and run fewer collectors")
        raise VenueUnavailable(f"{said}; try again later")

    def _odd(self, what: str, error: Exception) -> VenueUnavailable:
        return VenueUnavailable(
            f"{self._rest.host} answers {what} not as documented ({cause_of(error)}); "
            "try again later, and report it if it stays"
        )


def _instrument(entry: Mapping[str, Any]) -> Instrument:
    size = Decimal(str(entry["contractSize"]))
    positive(float(size), "contractSize")
    return Instrument(
        str(entry["symbol"]).upper(),
        entry["symbol"],
        int(entry["priceScale"]),
        _STATES.get(entry["state"], f"state {entry['state']}"),
        {
            "contract_size": float(size),
            "quantity_decimals": _decimals(size) + int(entry.get("volScale", 0)),
            "inverse": entry.get("settleCoin") == entry["baseCoin"],
        },
    )


def _decimals(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
