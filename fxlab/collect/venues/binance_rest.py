"""What Binance answers to questions: what is traded, and trades of the past."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fxlab.collect.feed import Instrument
from fxlab.collect.venues.suspects import NOT_AS_DOCUMENTED, listed
from fxlab.errors import VenueUnavailable
from fxlab.identifiers import is_symbol


def instruments(answer: Any, contract: str | None) -> dict[str, Instrument]:  # noqa: ANN401 - JSON
    """Return what ``exchangeInfo`` lists, by fxlab's symbol.

    Names that fxlab's symbols cannot spell are left out.

    Parameters
    ----------
    answer
        As it came.
    contract
        The only ``contractType`` to keep; None on markets without contracts.

    Raises
    ------
    VenueUnavailable
        When it is not as documented.
    """
    try:
        found = {one.symbol: one for one in _listings(answer, contract)}
    except NOT_AS_DOCUMENTED as error:
        raise VenueUnavailable(
            f"exchangeInfo is not as documented ({error!r:.200}); try again, then report this"
        ) from error
    if not found:
        raise VenueUnavailable("exchangeInfo lists no symbols; try again later")
    return found


def _listings(answer: Any, contract: str | None) -> Iterator[Instrument]:  # noqa: ANN401 - JSON
    for entry in listed(answer["symbols"]):
        if contract is not None and entry["contractType"] != contract:
            continue
        symbol = f"{entry['baseAsset']}_{entry['quoteAsset']}"
        if is_symbol(symbol):
            status = entry["status"]
            yield Instrument(
                symbol,
                entry["symbol"],
                price_decimals=_decimals(entry),
                status="trading" if status == "TRADING" else str(status).lower(),
            )


def _decimals(entry: Any) -> int | None:  # noqa: ANN401 - JSON
    """Return the decimals of a symbol's tick size, such as 2 for "0.01000000"."""
    for rule in listed(entry.get("filters", [])):
        if rule.get("filterType") == "PRICE_FILTER":
            return len(str(rule["tickSize"]).rstrip("0").partition(".")[2])
    return None
