"""Trades of one symbol on their way to the journal: checked, once each, with their `seq`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from operator import index
from typing import Any, Final, Self

from fxlab.collect.checksum import SIDE_CODES
from fxlab.collect.feed import Trade
from fxlab.collect.trade_ids import Hole, Recent, TradeIds

EARLIEST_US: Final = 946_684_800_000_000
LATEST_US: Final = 4_102_444_800_000_000
"""The years 2000 to 2099: a time outside is no trade's."""

MOST_ID: Final = 2**63
LONGEST_ID: Final = 200


@dataclass(slots=True)
class Numbered:
    """Trades that are new, and the identity of each row."""

    trades: list[Trade] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    refused: list[tuple[Trade, str]] = field(default_factory=list)
    """Trades that are none, and why."""
    restarted: list[Trade] = field(default_factory=list)
    """The first trades of a new count of ids."""

    def take(self, trade: Trade, seq: int) -> None:
        """Add one that is new."""
        self.trades.append(trade)
        self.seqs.append(seq)


@dataclass(slots=True)
class TradeTrack:
    """What is known of a symbol's trades.

    Attributes
    ----------
    ids
        The ranges of ids that were seen, on a venue that counts by one; else None.
    doubles
        Trades that came again.
    counter
        The last `seq` given to a trade without a number.
    """

    ids: TradeIds | None
    recent: Recent = field(default_factory=Recent)
    doubles: int = 0
    counter: int = 0

    def take(self, trades: Sequence[Trade]) -> Numbered:
        """Return the new ones among trades of this symbol, in the order they came."""
        found = Numbered()
        good = _checked(trades, found)
        if not good:
            return found
        if self.ids is None:
            self._take_plain(good, found)
        else:
            self._take_counted(self.ids, good, found)
        return found

    def _take_counted(self, ids: TradeIds, trades: list[Trade], found: Numbered) -> None:
        numbers = [trade.id for trade in trades]
        if ids.add_run(numbers, [trade.time for trade in trades]):  # type: ignore[arg-type]
            found.trades, found.seqs = trades, numbers  # type: ignore[assignment]  # checked
            return
        for trade in trades:
            if not isinstance(trade.id, int):
                found.refused.append((trade, f"id {trade.id!r} is not a whole number"))
                continue
            verdict = ids.add(trade.id, trade.time, trade.received)
            if verdict in ("new", "restart"):
                found.take(trade, trade.id)
            if verdict == "restart":
                found.restarted.append(trade)
            elif verdict == "double":
                self.doubles += 1
            elif verdict == "conflict":
                found.refused.append((trade, f"id {trade.id} came before with another time"))

    def _take_plain(self, trades: Iterable[Trade], found: Numbered) -> None:
        """Take trades whose ids tell no holes; those with an id are still known when doubled."""
        for trade in trades:
            if trade.id is not None:
                identity = str(trade.id)
                if self.recent.time_of(identity) == trade.time:
                    self.doubles += 1
                    continue
                self.recent.add((identity,), (trade.time,))
            if isinstance(trade.id, int):
                found.take(trade, trade.id)
            else:
                self.counter += 1
                found.take(trade, self.counter)

    def settled(self, until: int) -> list[Hole]:
        """Return the holes that were noticed up to a time and did not fill."""
        return self.ids.settled(until) if self.ids is not None else []

    def to_json(self) -> dict[str, Any]:
        """Return what a later collector needs to go on."""
        ids = self.ids.to_json() if self.ids is not None else None
        return {"ids": ids, "doubles": self.doubles, "counter": self.counter}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Return what `to_json` described."""
        ids = TradeIds.from_json(found["ids"]) if found["ids"] is not None else None
        track = cls(ids, doubles=found["doubles"], counter=found["counter"])
        track.recent.add(*found.get("recent", ((), ())))
        return track


def is_time(value: object) -> bool:
    """Return whether a number is a time that can be stored: whole microseconds of this century."""
    return type(value) is int and EARLIEST_US <= value < LATEST_US


def _checked(trades: Sequence[Trade], found: Numbered) -> list[Trade]:
    """Return those that can be stored; a float that is none would become null in the database."""
    good = []
    for trade in trades:
        _, identity, side, price, volume, time, received, _ = trade
        try:
            if type(price) is type(volume) is float and type(time) is type(received) is int:
                plain = trade
            else:
                plain = _made_plain(trade)
                _, identity, side, price, volume, time, received, _ = plain
            fits = (
                0.0 < price < math.inf
                and 0.0 <= volume < math.inf
                and EARLIEST_US <= time < LATEST_US
                and EARLIEST_US <= received < LATEST_US
                and side in SIDE_CODES
                and (0 <= identity < MOST_ID if type(identity) is int else _is_text(identity))
            )
        except (TypeError, OverflowError):
            fits = False
        if fits:
            good.append(plain)
        else:
            found.refused.append((trade, "id, side, price, volume or time is none"))
    return good


def _made_plain(trade: Trade) -> Trade:
    """Return a trade of a feed that has whole prices or numpy's numbers."""
    numbers: tuple[Any, ...] = (trade.price, trade.volume)
    for value in numbers:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError
    identity = index(trade.id) if isinstance(trade.id, Integral) else trade.id
    return trade._replace(
        id=identity,
        price=float(trade.price),
        volume=float(trade.volume),
        time=index(trade.time),
        received=index(trade.received),
    )


def _is_text(identity: object) -> bool:
    """Return whether an id that is no number is missing, or a text without control characters."""
    if isinstance(identity, str):
        return len(identity) <= LONGEST_ID and identity.isprintable()
    return identity is None
