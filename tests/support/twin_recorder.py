"""A second recorder, slow and plain: what must be stored of a stream of messages, by the rules.

Written from the docstrings of `fxlab.collect`: every id by itself, books as dictionaries.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter

from fxlab._questdb.ingest import LineEncoder
from fxlab.collect.feed import BookSnapshot, Event, Gap, Quote, Trade
from fxlab.schema import ORDERBOOK, book_levels


class IdsTwin:
    """The ids of one symbol: each by itself."""

    def __init__(self):
        self.seen = {}
        self.newest = self.restarts = self.missed_before = 0
        self.noticed = {}

    def add(self, identity, time, received):
        """Take one trade and return what it is."""
        if identity in self.seen:
            return "duplicate" if self.seen[identity] == time else "conflict"
        verdict = "new"
        if self.seen and identity < min(self.seen) and time > self.newest:
            self.missed_before += len(self.absent())
            self.restarts += 1
            self.seen, self.noticed, verdict = {}, {}, "restart"
        known = self.absent()
        self.seen[identity] = time
        self.newest = max(self.newest, time)
        for one in self.absent() - known:
            self.noticed[one] = received
        return verdict

    def absent(self):
        """Return the ids of this count that were leapt over."""
        if not self.seen:
            return set()
        return set(range(min(self.seen), max(self.seen) + 1)) - self.seen.keys()

    def settled(self, until):
        """Return ids noticed as missing up to a time that are missing still; each once."""
        ripe = {one for one, seen in self.noticed.items() if seen <= until}
        for one in ripe:
            del self.noticed[one]
        return ripe - self.seen.keys()


class BookTwin:
    """A book of two dictionaries, and the rows that are stored of it."""

    def __init__(self, depth, every):
        self.depth, self.every = depth, every
        self.sides = None
        self.rows, self.keys = [], set()
        self.waiting = self.stored_at = None
        self.unstored = 0
        self.crossings, self.crossed = 0, False

    def take(self, message):
        """Take a message; False if it is none."""
        if isinstance(message, Quote):
            best = (message.bid, message.bid_qty, message.ask, message.ask_qty)
            if not all(math.isfinite(one) and one >= 0 for one in best) or 0 in best[::2]:
                return False
            sides, depth = ({best[0]: best[1]}, {best[2]: best[3]}), 1
        else:
            levels = [*message.bids, *message.asks]
            if not all(0 < p < math.inf and 0 <= q < math.inf for p, q in levels):
                return False
            if isinstance(message, BookSnapshot):
                self.sides = ({}, {})
            elif self.sides is None:
                return False
            for side, changes in zip(self.sides, (message.bids, message.asks), strict=True):
                for price, quantity in changes:
                    side[price] = quantity
                    if quantity == 0:
                        del side[price]
            sides, depth = self.sides, self.depth
        bid, ask = max(sides[0], default=0), min(sides[1], default=math.inf)
        before, self.crossed = self.crossed, bid > ask
        if not isinstance(message, Quote):
            self.crossed = bid >= ask
        self.crossings += self.crossed and not before
        self._due(message, self._row(message, sides, depth))
        return True

    def _row(self, message, sides, depth):
        levels = dict.fromkeys(book_levels())
        for name, side, down in (("bid", sides[0], True), ("ask", sides[1], False)):
            best = sorted(side.items(), reverse=down)[:depth]
            for number, (price, quantity) in enumerate(best, 1):
                levels[f"{name}_price_{number}"] = price
                levels[f"{name}_qty_{number}"] = quantity
        return {
            "timestamp": message.time,
            "seq": message.update_id,
            "first_update_id": getattr(message, "first_update_id", None),
            "is_snapshot": isinstance(message, BookSnapshot),
            "received_at": message.received,
            **levels,
        }

    def _due(self, message, row):
        early = (
            self.every
            and self.stored_at is not None
            and not isinstance(message, BookSnapshot)
            and 0 <= message.time - self.stored_at < self.every
        )
        self.unstored += self.waiting is not None
        self.waiting = row if early else None
        if not early:
            self._keep(row)

    def _keep(self, row):
        key = row["timestamp"], row["seq"]
        if key in self.keys:
            self.unstored += 1
        else:
            self.keys.add(key)
            self.rows.append(row)
            self.stored_at = row["timestamp"]

    def end(self):
        """Store the last state."""
        if self.waiting is not None:
            self._keep(self.waiting)
            self.waiting = None


class RecorderTwin:
    """What must come of messages for a few symbols."""

    def __init__(self, symbols, *, depth, every):
        self.ids = {symbol: IdsTwin() for symbol in symbols}
        self.books = {symbol: BookTwin(depth, every) for symbol in symbols}
        self.trades = {symbol: {} for symbol in symbols}
        self.doubles = Counter()
        self.events = Counter()
        self.missing = {symbol: set() for symbol in symbols}
        """Ids that were called a gap."""
        self.gaps = {}

    def take(self, messages, settled_before):
        """Take a batch."""
        for message in messages:
            if isinstance(message, Trade):
                self._trade(message)
            elif isinstance(message, Gap):
                key = message.symbol, message.what, message.from_time
                self.gaps[key] = (message.to_time, message.missing)
                if message.to_time is None and message.what == "orderbook":
                    self.books[message.symbol].sides = None
            elif isinstance(message, Event):
                self.events[message.kind, message.symbol] += message.amount or 1
            elif message.symbol not in self.books:
                self.events["quarantine", None] += 1
            elif not self.books[message.symbol].take(message):
                self.events["quarantine", message.symbol] += 1
        for symbol, book in self.books.items():
            self.events["crossed_book", symbol] += book.crossings
            book.crossings = 0
        self._settle(settled_before)

    def _trade(self, trade):
        if trade.symbol not in self.ids:
            self.events["quarantine", None] += 1
        elif not (0 < trade.price < math.inf and 0 <= trade.volume < math.inf):
            self.events["quarantine", trade.symbol] += 1
        else:
            verdict = self.ids[trade.symbol].add(trade.id, trade.time, trade.received)
            if verdict == "new":
                self.trades[trade.symbol][trade.id] = trade
            elif verdict == "duplicate":
                self.doubles[trade.symbol] += 1
            else:
                self.events["quarantine", trade.symbol] += 1

    def _settle(self, before):
        for symbol, ids in self.ids.items():
            self.missing[symbol] |= ids.settled(before)

    def end(self, time):
        """Take the end of the recording."""
        self._settle(math.inf)
        for book in self.books.values():
            book.end()
        for key, (to_time, missing) in self.gaps.items():
            if to_time is None:
                self.gaps[key] = (max(time, key[2]), missing)


class ReadableEncoder(LineEncoder):
    """Encodes rows as JSON, one a line, so that a test can read them in the journal."""

    def buffer(self):
        """Return an empty buffer."""
        return _Readable()


class _Readable:
    def __init__(self):
        self.clear()

    def clear(self):
        self.bytes = bytearray()

    def row(self, table, *, symbols, columns, at):
        values = {
            name: getattr(value, "value", value)
            for name, value in {**symbols, **columns, "timestamp": at}.items()
        }
        self.bytes += json.dumps({"table": table, **values}).encode() + b"\n"

    def __len__(self):
        return len(self.bytes)

    def __bytes__(self):
        return bytes(self.bytes)


class MemoryJournal:
    """The recorder's side of a journal, in memory; what is appended goes through JSON."""

    path = "memory"

    def __init__(self):
        self.batches = []
        self.kept = {}

    def append(self, batches, facts):
        """Store batches and facts."""
        for batch in batches:
            assert isinstance(batch.ends, array)
            assert batch.ends[-1] == len(batch.payload)
            assert batch.rows == batch.payload.count(b"\n")
        self.batches += batches
        self.kept |= {name: json.dumps(value) for name, value in facts.items()}

    def fact(self, name, default=None):
        """Return a fact."""
        return json.loads(self.kept[name]) if name in self.kept else default

    def facts(self, prefix):
        """Return the facts whose names start so, without that start."""
        return {
            name.removeprefix(prefix): json.loads(value)
            for name, value in self.kept.items()
            if name.startswith(prefix)
        }

    def rows(self, table):
        """Return the rows of a table, each missing column as None."""
        found = []
        for batch in self.batches:
            if batch.table == table.name:
                for line in batch.payload.splitlines():
                    row = json.loads(line)
                    assert row.pop("table") == table.name
                    found.append(dict.fromkeys(table.columns) | row)
        return found


BOOK_NAMES = ["timestamp", "seq", "first_update_id", "is_snapshot", "received_at", *book_levels()]
assert set(BOOK_NAMES) <= set(ORDERBOOK.columns)
