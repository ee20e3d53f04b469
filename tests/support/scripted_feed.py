"""A venue of one's own, as a user would write it: a `Feed` that says what a test wants."""

from __future__ import annotations

import asyncio
import threading
import time

from fxlab import schema
from fxlab._questdb import sql
from fxlab.collect.feed import Feed, Instrument, Trade

SYMBOL = "BTC_USDT"
FOREVER = "forever"
PATIENCE = 120.0


class Scripted(Feed):
    """Says batches of messages, and then ends, breaks or waits.

    Parameters
    ----------
    *batches
        Lists of messages.
    after
        `FOREVER`, None to end, or an exception to raise.
    history
        Trades that `trades` knows; an exception to raise instead.
    symbols
        What is traded: symbol to status.
    ahead
        Microseconds by which the venue's clock is ahead; None for a venue that has none.
    terms
        What it lists of each of them.
    """

    venue = "private"
    counts_trades = True

    def __init__(self, *batches, after=FOREVER, history=(), symbols=None, ahead=None, terms=None):
        self.batches, self.after, self.history, self.ahead = batches, after, history, ahead
        self.symbols = symbols or {SYMBOL: "trading", "ETH_USDT": "trading", "OLD_USDT": "halted"}
        self.terms = terms or {}
        self.said = threading.Event()
        self.asked = []
        self.wanted = None
        self.closed = 0

    async def instruments(self):
        """Return what is traded."""
        return {
            symbol: Instrument(symbol, symbol.lower(), status=status, terms=self.terms)
            for symbol, status in self.symbols.items()
        }

    async def messages(self, wanted):
        """Say all, one batch after the other."""
        self.wanted = wanted
        for batch in self.batches:
            yield batch
            await asyncio.sleep(0)
        self.said.set()
        if isinstance(self.after, BaseException):
            raise self.after
        if self.after == FOREVER:
            await asyncio.Event().wait()

    async def trades(self, instrument, first_id, last_id):
        """Return trades of the past."""
        self.asked.append((instrument.symbol, first_id, last_id))
        if isinstance(self.history, BaseException):
            raise self.history
        return [
            one
            for one in self.history
            if one.symbol == instrument.symbol and first_id <= one.id <= last_id
        ]

    async def server_time(self):
        """Return the venue's clock."""
        return None if self.ahead is None else time.time_ns() // 1_000 + self.ahead

    async def close(self):
        """Count."""
        self.closed += 1

    def all_said(self):
        """Wait until the script is over."""
        assert self.said.wait(PATIENCE), "the feed was not read to its end"


class Plain(Scripted):
    """A venue whose trades have ids that tell no holes."""

    counts_trades = False


NOON = 1_735_732_800_000_000


def trade(number, symbol=SYMBOL, **changes):
    """Return a trade of long ago; three neighbours happen at once."""
    at = NOON + number // 3 * 1_000
    side = "buy" if number % 2 else "sell"
    return Trade(symbol, number, side, 100.0 + number % 7 / 4, 0.5, at, at + 40)._replace(**changes)


def trades(*numbers, **changes):
    """Return trades with these ids."""
    return [trade(number, **changes) for number in numbers]


def events(db, session_id, kind=None):
    """Return the rows of the event table by number, all or those of a kind."""
    names = list(schema.EVENTS.columns)
    rows = db.execute(sql.raw_rows(schema.EVENTS, session_id))
    found = [dict(zip(names, row, strict=True)) for row in rows]
    return sorted(
        (row for row in found if kind in {None, row["event"]}), key=lambda row: row["seq"]
    )
