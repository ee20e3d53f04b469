"""Recorder: messages turned into journaled rows, with the state of each symbol and its backfills.

It is the part of a recording that decides what is stored. It runs in the journal's thread, one
batch after the other. Trades and books become encoded rows, with the numbers that their checksum is
made of. A batch's rows, what the receipt says of them and which ids were seen are journaled
together, so whatever kills the process, they agree.
"""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fxlab._questdb.ingest import LineEncoder, Lines
from fxlab._ticks import find_decimals, mid_decimals
from fxlab.collect._live.books import BookRecorder, BookRow
from fxlab.collect._live.checksum import SIDE_CODES, RowTally, as_number
from fxlab.collect._live.events import (
    FILLED,
    OPEN,
    RESYNCED,
    BackfillRequest,
    BackfillResult,
    EventRows,
    GapRow,
)
from fxlab.collect._live.journal import Journal
from fxlab.collect._live.trades import (
    ChannelDeduplicator,
    IdGap,
    IdRanges,
    TradeDeduplicator,
    is_time,
)
from fxlab.collect.feed import (
    BookDelta,
    BookSnapshot,
    ChannelRow,
    Event,
    Gap,
    Message,
    Quote,
    Trade,
)
from fxlab.schema import CHANNELS, EVENTS, ORDERBOOK, PRICES, book_levels, value_columns

BID: Final = book_levels().index("bid_price_1")
ASK: Final = book_levels().index("ask_price_1")
_BEST: Final = {"bid_price_1": pl.Float64, "ask_price_1": pl.Float64}


@dataclass(slots=True)
class SymbolRecord:
    """All that is known of one symbol.

    Attributes
    ----------
    decimals
        Decimals that write all its prices so far; None if they have too many.
    of_mids
        Whether they are those of mids, because no trade has come.
    last_price, bid, ask
        None while unknown.
    lag
        Arrival minus venue time of the newest message, in microseconds.
    """

    trades: TradeDeduplicator
    book: BookRecorder | None
    channels: dict[str, ChannelDeduplicator] = field(default_factory=dict)
    decimals: int | None = 0
    of_mids: bool = True
    last_price: float | None = None
    bid: float | None = None
    ask: float | None = None
    lag: int | None = None

    def look_at_trades(self, trades: Sequence[Trade]) -> None:
        """Learn from trades that were stored."""
        last = trades[-1]
        if last.origin == "live":
            self.last_price, self.lag = last.price, last.received - last.time
        if self.of_mids:
            self.decimals, self.of_mids = 0, False
        prices = pl.Series([trade.price for trade in trades], dtype=pl.Float64)
        self.decimals = _most(self.decimals, find_decimals(prices))

    def look_at_books(self, rows: Sequence[BookRow]) -> None:
        """Learn from books that were stored."""
        newest = rows[-1]
        self.bid, self.ask = newest.levels[BID], newest.levels[ASK]
        self.lag = newest.received - newest.time
        if self.of_mids:
            best = [(row.levels[BID], row.levels[ASK]) for row in rows]
            found = mid_decimals(pl.DataFrame(best, _BEST, orient="row"))
            self.decimals = _most(self.decimals, found)

    def to_json(self) -> dict[str, Any]:
        """Return what a later collector needs to go on."""
        return {
            "trades": self.trades.to_json(),
            "book": self.book.to_json() if self.book is not None else None,
            "decimals": self.decimals,
            "of_mids": self.of_mids,
            "channels": {name: one.to_json() for name, one in self.channels.items()},
        }

    def load(self, found: dict[str, Any]) -> None:
        """Go on after what `to_json` described."""
        self.trades = TradeDeduplicator.from_json(found["trades"])
        self.decimals, self.of_mids = found["decimals"], found["of_mids"]
        if self.book is not None and found["book"] is not None:
            self.book = BookRecorder.from_json(found["book"], self.book.depth, self.book.every)
        for name, state in found.get("channels", {}).items():
            self.channels[name] = ChannelDeduplicator.from_json(name, state)


def _most(before: int | None, now: int | None) -> int | None:
    return None if before is None or now is None else max(before, now)


_LEVELS = tuple(book_levels())


class TickLines:
    """The rows of one batch for one session; for one thread."""

    def __init__(self, encoder: LineEncoder, session_id: str) -> None:
        from questdb import TimestampMicros

        self._encoder = encoder
        self._session_id = session_id
        self._micros: Any = TimestampMicros  # the client's stub forgets it in places
        self._buffers = {
            table.name: (encoder.buffer(), array("Q")) for table in (PRICES, ORDERBOOK)
        }

    def add_trades(self, trades: Sequence[Trade], seqs: Sequence[int]) -> None:
        """Encode trades, which are checked."""
        buffer, ends = self._buffers[PRICES.name]
        row, micros, session_id = buffer.row, self._micros, self._session_id
        for trade, seq in zip(trades, seqs, strict=True):
            row(
                PRICES.name,
                symbols={
                    "session_id": session_id,
                    "symbol": trade.symbol,
                    "side": trade.side,
                    "origin": trade.origin,
                },
                columns={
                    "seq": seq,
                    "trade_id": None if trade.id is None else str(trade.id),
                    "price": trade.price,
                    "volume": trade.volume,
                    "quote_volume": trade.price * trade.volume,
                    "received_at": micros(trade.received),
                },
                at=micros(trade.time),
            )
            ends.append(len(buffer))

    def add_books(self, symbol: str, rows: Iterable[BookRow]) -> None:
        """Encode books of a symbol; missing levels are left out."""
        buffer, ends = self._buffers[ORDERBOOK.name]
        symbols: dict[str, str | None]
        symbols = {"session_id": self._session_id, "symbol": symbol, "origin": "live"}
        for book in rows:
            columns: dict[str, Any] = {
                "seq": book.seq,
                "first_update_id": book.first_update_id,
                "is_snapshot": book.is_snapshot,
                **dict(zip(_LEVELS, book.levels, strict=True)),
                "received_at": self._micros(book.received),
            }
            at = self._micros(book.time)
            buffer.row(ORDERBOOK.name, symbols=symbols, columns=columns, at=at)
            ends.append(len(buffer))

    def take(self) -> list[Lines]:
        """Return what was encoded since the last call."""
        found = []
        for name, (buffer, ends) in self._buffers.items():
            if ends:
                found.append(Lines(name, bytes(buffer), ends))
                buffer.clear()  # type: ignore[no-untyped-call]  # the client's stub lacks its result
                self._buffers[name] = (buffer, array("Q"))
        return found


def trade_columns(trades: Sequence[Trade]) -> list[npt.ArrayLike]:
    """Return what is summed of trades, after time and `seq`."""
    return [
        [trade.price for trade in trades],
        [trade.volume for trade in trades],
        [SIDE_CODES[trade.side] for trade in trades],
        [trade.received for trade in trades],
    ]


def book_columns(rows: Sequence[BookRow]) -> list[npt.ArrayLike]:
    """Return what is summed of books, after time and `seq`."""
    levels = np.array([row.levels for row in rows], dtype=np.float64)  # None becomes nan
    return [[row.received for row in rows], *levels.T]


def channel_columns(row: ChannelRow) -> list[npt.ArrayLike]:
    """Return what is summed of a row of a channel, after time and `seq`."""
    table = CHANNELS[row.channel]
    names = value_columns(table)
    values = [[as_number(table.columns[name], row.values.get(name))] for name in names]
    return [*values, [row.received]]


FOREVER: Final = 2**62
AWAY: Final = "the recorder was away"
"""Why something is missing between two recordings of one session."""
SKIPPED: Final = "the stream skipped these ids while its connection stood"
LATE_US: Final = 10_000_000
"""How much later a stream's silence may be told than the trade that it was found out by came."""
CAUSES: Final = {
    "silent_stream": "{}",
    "reconnect": "a connection was made again: {}",
    "quarantine": "what came instead was not understood: {}",
}
"""Events that may have cost trades, the likeliest first, and what a gap says of them."""
MOST_CAUSES: Final = 1_000
SHOWN: Final = 300
"""Characters of a refused message that its event keeps."""


class Recorder:
    """Records messages of one session into its journal.

    Parameters
    ----------
    journal, encoder
        Used by this object's thread only.
    session_id
        The session's id.
    symbols
        What may come.
    counts_trades, book_depth, book_every
        As in `fxlab.collect.feed.Feed`; levels to store, and the least microseconds between two
        stored books of a symbol.
    channels
        What else may come, by its name in `fxlab.schema.CHANNELS`.
    """

    def __init__(
        self,
        journal: Journal,
        encoder: LineEncoder,
        session_id: str,
        symbols: Iterable[str],
        *,
        counts_trades: bool,
        book_depth: int,
        book_every: int = 0,
        channels: Iterable[str] = (),
    ) -> None:
        self._journal = journal
        self._encoder = encoder
        self._lines = TickLines(encoder, session_id)
        self.symbols = {
            symbol: SymbolRecord(
                TradeDeduplicator(IdRanges() if counts_trades else None),
                BookRecorder(book_depth, book_every) if book_depth else None,
                {name: ChannelDeduplicator(name) for name in channels},
            )
            for symbol in symbols
        }
        self.tallies: dict[tuple[str, str, str], RowTally] = {}
        self.events = EventRows(session_id)
        self._causes: deque[Event] = deque(maxlen=MOST_CAUSES)
        """What may have cost trades."""
        self._known: dict[str, tuple[int, int]] = {}
        """Last trade ids of what an earlier collector recorded, and in which count of them."""
        self.to_ask: list[BackfillRequest] = []
        """Gaps to fill, taken by the collector."""
        self.reconnects = 0
        """How many connections were made again."""
        self._changed: set[str] = set()
        self._counted: set[tuple[str, str, str]] = set()
        self._unsaved: list[Lines] = []
        self._rows: dict[str, list[dict[str, Any]]] = {}
        """Of channels, by their names, not encoded yet."""
        self._away: dict[tuple[str, str], int] = {}
        """Last times of what an earlier collector recorded, and whose gaps no id shows."""
        self._load()

    def _load(self) -> None:
        """Go on where an earlier collector of the session was."""
        found = self._journal.fact("events")
        if found is not None:
            self.events.load(found)
        for name, tally in self._journal.facts("tally/").items():
            symbol, data_type, origin = name.rsplit("|", 2)
            self.tallies[symbol, data_type, origin] = RowTally.from_json(tally)
        for symbol, state in self._journal.facts("symbol/").items():
            if symbol in self.symbols:
                self.symbols[symbol].load(state)
                ids = self.symbols[symbol].trades.ids
                if ids is not None and ids.spans:
                    self._known[symbol] = ids.spans[-1][1], ids.restarts
        for event in (found or {}).get("unfilled", ()):
            self._ask_again(event)
        for (symbol, what, origin), tally in self.tallies.items():
            record = self.symbols.get(symbol)
            counted = what == "prices" and record is not None and record.trades.ids is not None
            if origin == "live" and not counted:
                self._away[symbol, what] = tally.last_time

    def _ask_again(self, event: dict[str, Any]) -> None:
        """Ask once more for a gap of the collector before: it may have died while it asked."""
        record, about = self.symbols.get(event["symbol"]), dict(event["detail"])
        ids = None if record is None else record.trades.ids
        if about.pop("what") != "prices" or "first_id" not in about or ids is None or ids.restarts:
            return
        times = event["from_time"], event["to_time"]
        gap = GapRow(event["seq"], event["symbol"], "prices", *times, event["count"], about)
        lost = IdGap(about["first_id"], about["last_id"], *times, 0)
        self.to_ask.append(BackfillRequest(event["symbol"], lost, gap))

    def still_open(self, request: BackfillRequest) -> list[BackfillRequest]:
        """Return what is left of a gap to ask for, as long as its ids mean the same trades."""
        ids = self.symbols[request.symbol].trades.ids
        if ids is None or ids.restarts != request.ids.count:
            return []
        return [replace(request, ids=part) for part in ids.rest_of(request.ids)]

    def _back(self, symbol: str, what: str, time: int) -> None:
        """Write the gap that ends with the first message after an earlier collector's last."""
        since = self._away.pop((symbol, what), None)
        if since is None:
            return
        known = self.events.open_gaps.pop((symbol, what), None)
        if known is None:
            known = self.events.open_gap(symbol, what, since, None, None, cause=AWAY, state=OPEN)
        self._end_gap(known, max(since, time))

    def record(self, messages: Sequence[Message | BackfillResult], settled_before: int) -> None:
        """Journal messages.

        Parameters
        ----------
        messages
            In the order they came.
        settled_before
            Gaps in the ids noticed before this time (us) are written, and go to `to_ask`.

        Raises
        ------
        sqlite3.OperationalError
            If the disk is full. What was encoded is kept: call `save` again when there is room.
        """
        trades: dict[str, list[Trade]] = {}
        books: dict[str, list[BookRow]] = {}
        asked: list[BackfillResult] = []
        for message in messages:
            if type(message) is Trade:
                trades.setdefault(message.symbol, []).append(message)
            elif type(message) is BackfillResult:
                asked.append(message)
            else:
                self._other(message, books)  # type: ignore[arg-type]  # no trade, not asked
        for symbol, some in trades.items():
            self._trades(symbol, some)
        for symbol, rows in books.items():
            self._books(symbol, rows)
        for one in asked:
            self._answered(one)
        self._settle(settled_before)
        self.save()

    def end(self, time: int) -> None:
        """Journal what only the end decides: waiting books, young gaps, gaps that last."""
        for symbol, record in self.symbols.items():
            row = record.book.rest() if record.book is not None else None
            if row is not None:
                self._books(symbol, [row])
        self._settle(FOREVER)
        for key, gap in self.events.open_gaps.items():
            if gap.to_time is None or key not in self._away:  # else nothing came since its end
                gap.to_time = max(time, gap.from_time)
                self.events.write(gap)
        self.events.open_gaps.clear()
        self.save()

    def row_counts(self) -> Counter[tuple[str, str]]:
        """Return how many rows were journaled, by symbol and data type; for any thread."""
        found: Counter[tuple[str, str]] = Counter()
        for (symbol, data_type, _), tally in self.tallies.copy().items():
            found[symbol, data_type] += tally.rows
        return found

    def put(self, lines: Lines) -> None:
        """Have rows journaled with the next batch."""
        self._unsaved.append(lines)

    def save(self, **facts: Any) -> None:  # noqa: ANN401 - what JSON can hold
        """Journal what was encoded and not saved yet, and facts beside it."""
        self._unsaved += self._lines.take()
        for name, rows in self._rows.items():
            self._unsaved.append(self._encoder.encode(CHANNELS[name], rows))
        self._rows = {}
        events = self.events.take()
        if events:
            self._unsaved.append(self._encoder.encode(EVENTS, events))
        if self._unsaved or self._changed or facts:
            self._journal.append(self._unsaved, {**self._new_facts(), **facts})
            self._unsaved = []
            self._changed.clear()
            self._counted.clear()

    def _new_facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"events": self.events.to_json()}
        for key in self._counted:
            facts[f"tally/{'|'.join(key)}"] = self.tallies[key].to_json()
        for symbol in self._changed:
            facts[f"symbol/{symbol}"] = self.symbols[symbol].to_json()
        return facts

    def _trades(self, symbol: str, trades: list[Trade]) -> None:
        record = self.symbols.get(symbol)
        if record is None:
            self._refuse(symbol, trades[-1].received, f"{symbol!r} was not asked for", len(trades))
            return
        if self._away:
            self._back(symbol, "prices", trades[0].time)
        found = record.trades.take(trades)
        for trade, why in found.refused:
            self._refuse(symbol, trade.received, f"{why}: {trade!r}")
        for trade in found.restarted:
            self.events.add("id_restart", symbol, trade.time, detail=f"ids restart at {trade.id}")
        if found.trades:
            self._lines.add_trades(found.trades, found.seqs)
            self._count_trades(symbol, found.trades, found.seqs)
            record.look_at_trades(found.trades)
        self._changed.add(symbol)

    def _count_trades(self, symbol: str, trades: list[Trade], seqs: list[int]) -> None:
        origins = {trade.origin for trade in trades}
        for origin in origins:
            kept, numbers = trades, seqs
            if len(origins) > 1:
                some = [(t, s) for t, s in zip(trades, seqs, strict=True) if t.origin == origin]
                kept, numbers = [t for t, _ in some], [s for _, s in some]
            tally = self._tally(symbol, "prices", origin)
            tally.add([t.time for t in kept], numbers, trade_columns(kept))

    def _other(
        self,
        message: Quote | BookSnapshot | BookDelta | ChannelRow | Gap | Event,
        books: dict[str, list[BookRow]],
    ) -> None:
        if isinstance(message, Event):
            kind, symbol, time, amount, detail = message
            self.reconnects += kind == "reconnect"
            self._may_cost(message)
            self.events.add(kind, symbol, time, amount=amount, detail=detail)
        elif isinstance(message, Gap):
            self._gap(message)
        elif isinstance(message, ChannelRow):
            self._channel(message)
        else:
            self._book(message, books)

    def _gap(self, gap: Gap) -> None:
        if not is_time(gap.from_time) or not (gap.to_time is None or is_time(gap.to_time)):
            self._refuse(gap.symbol, 0, f"a gap has no time: {gap!r}")
            return
        key = gap.symbol, gap.what
        known = self.events.open_gaps.pop(key, None)
        if known is None or known.from_time != gap.from_time:
            about = {"cause": gap.cause, "state": OPEN}
            known = self.events.open_gap(*key, gap.from_time, None, gap.missing, **about)
        known.missing = gap.missing
        self._end_gap(known, gap.to_time)
        if gap.to_time is None:
            self.events.open_gaps[key] = known
            record = self.symbols.get(gap.symbol)
            if gap.what == "orderbook" and record is not None and record.book is not None:
                record.book.lost()

    def _end_gap(self, gap: GapRow, time: int | None) -> None:
        """Write when a gap ended, if it did; a book is known again then, trades may be missing."""
        gap.to_time = time
        if time is not None and gap.what == "orderbook":
            gap.detail["state"] = RESYNCED
        elif gap.missing == 0:  # its feed found them
            gap.detail["state"] = FILLED
        self.events.write(gap)

    def _book(
        self, message: Quote | BookSnapshot | BookDelta, books: dict[str, list[BookRow]]
    ) -> None:
        symbol = message.symbol
        record = self.symbols.get(symbol)
        if record is None or record.book is None:
            self._refuse(symbol, message.received, f"no book of {symbol!r} was asked for")
            return
        crossed = record.book.crossed
        try:
            row = record.book.take(message)
        except (ValueError, TypeError) as error:
            self._refuse(symbol, message.received, str(error))
            return
        if record.book.crossed and not crossed:  # reported where it begins; its rows are stored
            why = "the best bid is not below the best ask: updates are missing or wrong"
            self.events.add("crossed_book", symbol, message.time, detail=why)
        if self._away:
            self._back(symbol, "orderbook", message.time)
        if row is not None:
            books.setdefault(symbol, []).append(row)

    def _books(self, symbol: str, rows: list[BookRow]) -> None:
        record = self.symbols[symbol]
        self._lines.add_books(symbol, rows)
        times, seqs = [row.time for row in rows], [row.seq for row in rows]
        self._tally(symbol, "orderbook", "live").add(times, seqs, book_columns(rows))
        record.look_at_books(rows)
        self._changed.add(symbol)

    def _channel(self, row: ChannelRow) -> None:
        """Store a row of a channel, unless it came before."""
        record = self.symbols.get(row.symbol)
        known = None if record is None else record.channels.get(row.channel)
        if known is None:
            why = f"no {row.channel!r:.40} of {row.symbol!r:.40} was asked for"
            self._refuse(row.symbol, row.received, why)
            return
        self._changed.add(row.symbol)
        try:
            seq = known.take(row)
        except (ValueError, TypeError) as error:
            self._refuse(row.symbol, row.received, str(error))
            return
        if self._away:
            self._back(row.symbol, row.channel, row.time)
        if seq is None:
            return
        columns = {"session_id": self.events.session_id, "symbol": row.symbol, **row.values}
        columns |= {"origin": row.origin, "seq": seq, "received_at": row.received}
        self._rows.setdefault(row.channel, []).append({**columns, "timestamp": row.time})
        tally = self._tally(row.symbol, row.channel, row.origin)
        tally.add([row.time], [seq], channel_columns(row))

    def _refuse(self, symbol: str | None, time: int, why: str, amount: int = 1) -> None:
        known = symbol if symbol in self.symbols else None
        self.events.add("quarantine", known, time, amount=amount, detail=why[:SHOWN])
        self._may_cost(Event("quarantine", known, time, amount, why))

    def _may_cost(self, event: Event) -> None:
        """Remember what may be the cause of a gap."""
        if event.kind in CAUSES and is_time(event.time):
            self._causes.append(event)

    def _settle(self, before: int) -> None:
        """Write gaps that did not fill by themselves, and ask for what is in them."""
        for symbol, record in self.symbols.items():
            ids = record.trades.ids
            for lost in [] if ids is None else ids.settled(before):
                times, missing = (lost.from_time, lost.to_time), lost.last - lost.first + 1
                about: dict[str, Any] = {
                    "first_id": lost.first,
                    "last_id": lost.last,
                    "state": OPEN,
                }
                about |= self._cause(symbol, lost)
                gap = self.events.open_gap(symbol, "prices", *times, missing, **about)
                if ids and lost.count == ids.restarts:  # else its ids mean others now
                    self.to_ask.append(BackfillRequest(symbol, lost, gap))

    def _cause(self, symbol: str, lost: IdGap) -> dict[str, str]:
        """Return why trades did not come, as far as is known."""
        known, count = self._known.get(symbol, (-2, 0))
        if lost.first <= known + 1 and lost.count == count:
            # One that an earlier collector noticed, and did not come to write, has none.
            return {"cause": AWAY} if lost.first == known + 1 else {}
        for kind, text in CAUSES.items():
            late = LATE_US if kind == "silent_stream" else 0
            for event in reversed(self._causes):
                mine = event.symbol == symbol or (event.symbol is None and kind == "reconnect")
                if event.kind == kind and mine and lost.since <= event.time <= lost.seen + late:
                    said = str(event.detail).partition(": it is at")[0]
                    return {"cause": text.format(said[:200])}
        return {"cause": SKIPPED}

    def _answered(self, result: BackfillResult) -> None:
        """Write what became of a gap after the venue was asked."""
        request = result.request
        ids, said = self.symbols[request.symbol].trades.ids, request.gap.detail
        gap = replace(request.ids, first=said["first_id"], last=said["last_id"])
        rest = ids.rest_of(gap) if ids is not None else []
        request.gap.missing = sum(part.last - part.first + 1 for part in rest)
        whole = gap.last - gap.first + 1
        state = FILLED if not rest else "partly filled" if request.gap.missing < whole else OPEN
        request.gap.detail |= {"state": state, "backfill": result.outcome}
        self.events.write(request.gap)

    def _tally(self, symbol: str, data_type: str, origin: str) -> RowTally:
        tally = self.tallies.setdefault((symbol, data_type, origin), RowTally())
        self._counted.add((symbol, data_type, origin))
        return tally
