"""Faults that befall the venue as a whole, at their place on the tape.

They happen between two happenings, never by a timer, so that the same seed cuts, stalls and
delists at the same trade.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator

from fxlab.mock.faults import Faults
from fxlab.mock.ledger import Ledger
from fxlab.mock.market import Deal, Happening

Planned = tuple[int, Callable[[], None]]
"""A market time (us), and what is done then."""


def renumbered(tape: Iterable[Happening], after: int, ledger: Ledger) -> Iterator[Happening]:
    """Yield a tape on which the trade ids of each symbol begin at 1 again after so many trades.

    A recorded frame that says another id is left out in favour of a made one.
    """
    seen: dict[str, int] = {}
    for happening in tape:
        if not isinstance(happening, Deal):
            yield happening
            continue
        symbol = happening.symbol
        count = seen[symbol] = seen.get(symbol, 0) + 1
        if count == after + 1:
            ledger.add("id_restart", symbol=symbol, id=1, previous=happening.id - 1)
        yield happening if count <= after else happening._replace(id=count - after, frame=None)


def without(tape: Iterable[Happening], symbol: str, end: int) -> Iterator[Happening]:
    """Yield a tape on which nothing happens to a symbol from a time (us) on."""
    return (one for one in tape if one.symbol != symbol or one.time < end)


def with_plans(tape: Iterable[Happening], plans: Iterator[Planned]) -> Iterator[Happening]:
    """Yield a tape, and do what is planned as it passes the times of the plans."""
    upcoming = next(plans, None)
    for happening in tape:
        while upcoming is not None and happening.time >= upcoming[0]:
            upcoming[1]()
            upcoming = next(plans, None)
        yield happening


def cuts(faults: Faults, start: int, cut: Callable[[], None]) -> Iterator[Planned]:
    """Yield a cut every `Faults.cut_seconds`, half as long to half as long again."""
    if faults.cut_seconds is None:
        return
    chance, time = random.Random(faults.seed), start  # noqa: S311
    while True:
        time += int(faults.cut_seconds * chance.uniform(0.5, 1.5) * 1e6)
        yield time, cut
