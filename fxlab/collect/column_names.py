"""What vendors call the columns of ticks, so that a refusal says all that has to change at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from fxlab.collect.checks import Place
from fxlab.errors import did_you_mean
from fxlab.schema import BOOK_DEPTH

BARS: Final = frozenset(("open", "high", "low", "close"))

_CALLED: Final[dict[str, str]] = {
    "timestamp": "time ts date datetime transacttime tradetime eventtime exchangetimestamp "
    "exchangetime unixtime unix epoch localtime gmttime utctime utc tickstime",
    "received_at": "localtimestamp receivetime receivetimestamp receivedtime recvtime arrivaltime",
    "symbol": "ticker pair instrument market instid instrumentname product currencypair",
    "price": "px tradeprice lastprice rate",
    "volume": "size quantity vol sz tradesize lastsize lastqty baseqty basevolume tradeqty",
    "quote_volume": "quoteqty quoteamount quotesize foreignnotional turnover",
    "trade_id": "id tid tradeid aggtradeid trdmatchid matchid tradeseq fillid",
    "side": "takerside aggressorside takersidetype",
    "buyer_is_maker": "isbuyermaker buyermaker ismaker",
    "bid": "bidprice bidpx bestbidprice",
    "ask": "askprice askpx offer bestaskprice",
    "bid_size": "bidvolume bidvol bidqty bidquantity bidamount bidsz bestbidqty bestbidsize",
    "ask_size": "askvolume askvol askqty askquantity askamount asksz bestaskqty bestasksize",
    "last_update_id": "lastupdateid updateid finalupdateid",
    "first_update_id": "firstupdateid",
}
_MEANINGS: Final = {
    **{ours.replace("_", ""): ours for ours in _CALLED},
    **{name: ours for ours, names in _CALLED.items() for name in names.split()},
}
_LEVEL: Final = re.compile(r"(bid|ask)s?\[(\d+)\]\.(price|amount|size|qty|quantity)")
_SHOWN: Final = 12


def meanings(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Return fxlab's name for each column that a vendor calls otherwise."""
    found = {name: _meaning(name) for name in names if name not in known}
    return {name: ours for name, ours in found.items() if ours is not None}


def _meaning(name: str) -> str | None:
    lowered = name.strip().lower()
    level = _LEVEL.fullmatch(lowered)
    if level is not None:
        number = int(level[2]) + 1  # vendors count from 0
        what = "price" if level[3] == "price" else "qty"
        return f"{level[1]}_{what}_{number}" if number <= BOOK_DEPTH else None
    return _MEANINGS.get(re.sub(r"[^a-z0-9]", "", lowered))


def refuse_bars(place: Place, names: Iterable[str]) -> None:
    """Refuse candles by what they are."""
    if {name.strip().lower() for name in names} >= BARS:
        place.refuse(
            "it holds bars (open, high, low, close), and fxlab needs the ticks they were made of; "
            "get the vendor's trades or quotes of the same time"
        )


def listed(names: Sequence[str]) -> str:
    """Return column names for an error, whole ones."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:80] for name in names[:_SHOWN]) + more


def renaming(meant: Mapping[str, str]) -> list[str]:
    """Return which columns to rename, in words; nothing if there are none."""
    pairs = ", ".join(f"{name!r} to {ours!r}" for name, ours in meant.items())
    return [f"rename {pairs}"] if pairs else []


def wrong(
    names: Sequence[str],
    meant: Mapping[str, str],
    known: Collection[str],
    shape: str,
    one_of: Iterable[Collection[str]],
) -> list[str]:
    """Return all that is wrong with the columns of a shape."""
    called = [meant.get(name, name) for name in names]
    found = renaming(meant)
    odd = [name for name, ours in zip(names, called, strict=True) if ours not in known]
    if len(odd) == 1:
        hint = did_you_mean(odd[0], known) or "rename it or take it out of the file"
        found.append(f"column {odd[0][:80]!r} has no place among {shape} and would be lost; {hint}")
    elif odd:
        shown = ", ".join(repr(name[:80]) for name in odd)
        found.append(f"columns {shown} have no place among {shape}: take them out of the file")
    same = [(called.count(name), name) for name in dict.fromkeys(called)]
    found += [f"{count} columns mean {name}: keep one of them" for count, name in same if count > 1]
    for group in one_of:
        both = [name for name in group if name in called]
        if len(both) > 1:
            found.append(f"columns {' and '.join(both)} say the same; take one out of the file")
    return found
