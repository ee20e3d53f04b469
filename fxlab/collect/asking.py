"""Asks a venue's history for the trades in gaps, and says what came of it.

Gaps that lie close together are asked for at once: a venue's answer to one question covers a
thousand ids, and it counts questions, not ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from fxlab.collect.feed import Feed, Instrument, Trade
from fxlab.collect.symbol_record import Asked, Missing
from fxlab.errors import VenueError

MOST_IDS: Final = 1_000
"""Ids from the first to the last that one question covers."""

PAUSES: Final = (0.0, 1.0, 4.0)
"""Seconds before a question is asked and asked again: the newest trades may not be there yet."""

AT_A_TIME: Final = 2


class Questions:
    """The questions of one recording; for one event loop.

    Parameters
    ----------
    feed, instruments
        Who is asked, and about what.
    answer
        Called with the trades that came, then with what became of each gap.
    silent
        Ask nothing: gaps stay as they are.
    """

    def __init__(
        self,
        feed: Feed,
        instruments: Sequence[Instrument],
        answer: Callable[[Sequence[Trade | Asked]], None],
        *,
        silent: bool,
    ) -> None:
        self._feed = feed
        self._instruments = {one.symbol: one for one in instruments}
        self._answer = answer
        self._silent = silent
        self._turn = asyncio.Semaphore(AT_A_TIME)
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, found: Sequence[Missing]) -> None:
        """Ask for what is in gaps, in the background."""
        for group in neighbours(found):
            task = asyncio.create_task(self._ask(group), name="fxlab question")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def finish(self, seconds: float) -> None:
        """Wait for the answers under way; those that take longer are given up."""
        tasks = set(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _ask(self, group: list[Missing]) -> None:
        outcome = "given up"
        try:
            if self._silent:
                outcome = "not asked"
            else:
                async with self._turn:
                    outcome = await self._asked(group)
        finally:
            self._answer([Asked(missing, outcome) for missing in group])

    async def _asked(self, group: list[Missing]) -> str:
        wanted = sum(one.hole.last - one.hole.first + 1 for one in group)
        got = 0
        for first, last in pieces(group):
            try:
                trades = await self._insist(group[0].symbol, first, last)
            except VenueError as error:
                return f"{got} of {wanted} trades came: {error}"
            except Exception as error:  # noqa: BLE001 - of a user's feed: it costs an answer only
                return f"{got} of {wanted} trades came: {type(error).__name__}: {error}"
            inside = [trade for trade in trades if _is_wanted(trade, group)]
            self._answer(inside)
            got += len(inside)
            if not trades:
                break  # the venue's history does not reach so far
        return f"{got} of {wanted} trades came"

    async def _insist(self, symbol: str, first: int, last: int) -> list[Trade]:
        for pause in PAUSES:
            await asyncio.sleep(pause)
            trades = await self._feed.trades(self._instruments[symbol], first, last)
            if trades:
                return trades
        return []


def neighbours(found: Sequence[Missing]) -> list[list[Missing]]:
    """Return gaps in groups that one question covers: of one symbol, and close by their ids."""
    groups: list[list[Missing]] = []
    for one in sorted(found, key=lambda each: (each.symbol, each.hole.first)):
        first = groups[-1][0] if groups else None
        if (
            first is not None
            and first.symbol == one.symbol
            and one.hole.last - first.hole.first < MOST_IDS
        ):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def pieces(group: Sequence[Missing]) -> Iterator[tuple[int, int]]:
    """Yield the ids from the first to the last of a group, so many at a time as are asked for.

    A garbled id can make a gap of any size, of which the first answer is empty.
    """
    first, last = group[0].hole.first, group[-1].hole.last
    for at in range(first, last + 1, MOST_IDS):
        yield at, min(at + MOST_IDS - 1, last)


def _is_wanted(trade: Trade, group: Sequence[Missing]) -> bool:
    """Return whether a trade lies in a gap: a venue's answer covers what is between them too."""
    return isinstance(trade.id, int) and any(
        one.hole.first <= trade.id <= one.hole.last for one in group
    )
