"""Status monitor: snapshots of a running recording, taken from another thread.

Everything here is read, never written: single numbers that the recording's threads replace. A
snapshot's numbers may be a batch apart from each other.
"""

from __future__ import annotations

import threading
import time

from fxlab.collect._config import Plan
from fxlab.collect._live.journal import Journal
from fxlab.collect._live.loop import RecordingLoop
from fxlab.collect._live.recorder import Recorder, SymbolRecord
from fxlab.collect.status import (
    COLLECTING,
    OUTAGE,
    STARTING,
    STOPPING,
    CollectorStatus,
    Rate,
    SymbolStatus,
)


class StatusMonitor:
    """What is known of a recording at any time of its life."""

    def __init__(self, plan: Plan, exchange: str) -> None:
        self._plan, self._exchange = plan, exchange
        self._began = time.monotonic()
        self._lasted: float | None = None
        self._end_state = ""
        self._message = ""
        self._work: RecordingLoop | None = None
        self._journal: Journal | None = None
        self._recorder: Recorder | None = None
        self._rates: dict[tuple[str, str], Rate] = {}
        self._turn = threading.Lock()
        self.skew_us: int | None = None

    def begin(self, work: RecordingLoop, journal: Journal, recorder: Recorder) -> None:
        """Take in the parts, once they are there."""
        self._work, self._journal, self._recorder = work, journal, recorder

    def say(self, message: str) -> None:
        """Remember the newest thing worth saying."""
        self._message = message

    def freeze(self) -> None:
        """Stop the time."""
        self._lasted = time.monotonic() - self._began

    def over(self, state: str) -> None:
        """Remember how it ended."""
        self.freeze()
        ended = self._journal is not None and state == "failed"
        self._end_state = "aborted" if ended else state

    def look(self) -> CollectorStatus:
        """Return the recording at this moment."""
        with self._turn:
            elapsed = time.monotonic() - self._began if self._lasted is None else self._lasted
            recorder, journal = self._recorder, self._journal
            records = {} if recorder is None else recorder.symbols
            duration = self._plan.duration
            return CollectorStatus(
                session_id=self._plan.session_id,
                exchange=self._exchange,
                state=self._state(),
                elapsed=elapsed,
                duration=None if duration is None else duration / 1e6,
                symbols=tuple(self._symbol(name, record) for name, record in records.items()),
                waiting_rows=0 if journal is None else journal.rows,
                waiting_bytes=0 if journal is None else journal.bytes,
                journal_limit=self._plan.journal_limit,
                errors=0 if recorder is None else recorder.events.errors,
                skew_ms=None if self.skew_us is None else self.skew_us / 1e3,
                message=self._news(),
                newest=None if recorder is None else recorder.events.newest,
            )

    def _state(self) -> str:
        if self._end_state:
            return self._end_state
        if self._work is None:
            return STARTING
        if self._work.stopping.is_set():
            return STOPPING
        return OUTAGE if self._work.sender.outage else COLLECTING

    def _news(self) -> str:
        outage = "" if self._work is None else self._work.sender.outage
        return outage or self._message

    def _symbol(self, symbol: str, record: SymbolRecord) -> SymbolStatus:
        recorder = self._recorder
        if recorder is None:
            return SymbolStatus(symbol)
        tallies = recorder.tallies.copy()
        trades = sum(t.rows for key, t in tallies.items() if key[:2] == (symbol, "prices"))
        books = sum(t.rows for key, t in tallies.items() if key[:2] == (symbol, "orderbook"))
        backfilled = tallies.get((symbol, "prices", "backfill"))
        ids = record.trades.ids
        return SymbolStatus(
            symbol=symbol,
            trades=trades,
            books=books,
            trades_per_second=self._rate(symbol, "prices", trades),
            books_per_second=self._rate(symbol, "orderbook", books),
            last_price=record.last_price,
            bid=record.bid,
            ask=record.ask,
            price_decimals=record.decimals,
            lag_ms=None if record.lag is None else record.lag / 1e3,
            gaps=sum(1 for name in list(recorder.events.gaps.values()) if name == symbol),
            missing=0 if ids is None else ids.missing,
            backfilled=0 if backfilled is None else backfilled.rows,
            doubles=record.trades.doubles,
        )

    def _rate(self, symbol: str, data_type: str, total: int) -> float | None:
        rate = self._rates.setdefault((symbol, data_type), Rate())
        if self._lasted is None:
            rate.mark(time.monotonic(), total)
        return rate.value
