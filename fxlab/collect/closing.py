"""The end of a recording: receipts, the session's last row, and a count against the database.

It reads what the journal knows, never what a process remembered, so a recording that was killed is
closed by the same steps as one that was stopped.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fxlab.collect.journal import Journal
from fxlab.collect.recorder import Recorder
from fxlab.collect.tally import Tally
from fxlab.errors import WriteFailed
from fxlab.questdb import sql
from fxlab.questdb.client import QuestDB
from fxlab.questdb.lines import LineEncoder, LinePost
from fxlab.questdb.migrations import STEPS
from fxlab.questdb.sql import Scope
from fxlab.schema import EVENTS, ORDERBOOK, PRICES, RECEIPTS, SESSIONS, Table

TABLES: Final = {"prices": PRICES, "orderbook": ORDERBOOK}
_SYMBOL: Final = re.compile(rb"symbol=([^, ]+)")


def session_row(
    facts: Mapping[str, Any], recorder: Recorder, status: str, now: int
) -> dict[str, Any]:
    """Return the session's row as it is now.

    Parameters
    ----------
    facts
        What the collector knew at the start: the journal's fact "session".
    recorder
        Its tallies and events.
    status, now
        One of `fxlab.schema.STATUSES`; microseconds.
    """
    tallies = recorder.tallies
    first, end = _time_range(recorder)
    last = None if end is None else end - 1
    counts = {kind: _rows(tallies, kind) for kind in TABLES}
    decimals = {
        symbol: record.decimals
        for symbol, record in recorder.symbols.items()
        if record.decimals is not None and any(key[0] == symbol for key in tallies)
    }
    return {
        "session_id": facts["session_id"],
        "status": status,
        "exchange": facts["exchange"],
        "source": "live",
        "symbols": json.dumps(facts["symbols"]),
        "data_types": json.dumps(facts["data_types"]),
        "price_decimals": json.dumps(decimals),
        "started": first,
        "ended": last,
        "duration_seconds": None if first is None or last is None else (last - first) / 1e6,
        "records_collected": sum(counts.values()),
        "prices_count": counts["prices"],
        "orderbook_count": counts["orderbook"],
        "gaps_count": len(recorder.events.gaps),
        "errors_count": recorder.events.errors,
        "notes": facts["notes"],
        "tags": json.dumps(facts["tags"]),
        "schema_version": STEPS[-1].version,
        "updated_at": now,
        "created_at": facts["created_at"],
        "options": json.dumps(facts["options"]),
    }


def _time_range(recorder: Recorder) -> tuple[int | None, int | None]:
    """Return the half-open range of the times that were journaled."""
    filled = [tally for tally in recorder.tallies.values() if tally.rows]
    last = max((tally.last_time for tally in filled), default=None)
    return (
        min((tally.first_time for tally in filled), default=None),
        None if last is None else last + 1,
    )


def _rows(tallies: Mapping[tuple[str, str, str], Tally], kind: str) -> int:
    return sum(tally.rows for key, tally in tallies.items() if key[1] == kind)


def receipts(
    facts: Mapping[str, Any], recorder: Recorder, refused: Counter[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Return the rows of `fxlab.schema.RECEIPTS`: what the recorder says it has stored."""
    return [
        {
            "session_id": facts["session_id"],
            "symbol": symbol,
            "data_type": data_type,
            "origin": origin,
            "rows": tally.rows,
            "first_seq": tally.first_seq,
            "last_seq": tally.last_seq,
            "first_time": tally.first_time,
            "last_time": tally.last_time,
            "checksum": f"{tally.checksum:016x}",
            "detail": json.dumps(
                {
                    **recorder.symbols[symbol].to_json(),
                    "refused": refused[TABLES[data_type].name, symbol],
                }
            ),
            "timestamp": facts["created_at"],
        }
        for (symbol, data_type, origin), tally in sorted(recorder.tallies.items())
    ]


@dataclass(frozen=True, slots=True)
class Store:
    """The ways to the database that a recording uses."""

    db: QuestDB
    post: LinePost
    encoder: LineEncoder

    def put(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store a few rows now, outside of the journal."""
        self.post.send([self.encoder.encode(table, rows)])
        self.db.wait_visible(table)


def close_session(store: Store, journal: Journal, recorder: Recorder, now: int) -> str:
    """Write receipts and the last row of a session whose journal is empty; return its status.

    Raises
    ------
    WriteFailed
        If the database holds other numbers of rows than were journaled; the session is marked as
        failed and the journal is kept.
    QuestDBError
        If the server went away; the journal is kept, and closing can be tried again.
    """
    facts = journal.fact("session")
    status = str(journal.fact("ending", "aborted"))
    store.db.wait_visible(PRICES, ORDERBOOK, EVENTS)
    difference = _difference(store.db, facts["session_id"], recorder, refused_rows(journal))
    row = session_row(facts, recorder, "failed" if difference else status, now)
    store.put(RECEIPTS, receipts(facts, recorder, refused_rows(journal)))
    store.put(SESSIONS, [row])
    if difference:
        raise WriteFailed(
            f"session {facts['session_id']!r} is marked as failed: {difference}; its journal is "
            f"kept at {journal.path}: run fxlab verify {facts['session_id']}, and delete it then"
        )
    return status


def refused_rows(journal: Journal) -> Counter[tuple[str, str]]:
    """Return how many rows of each (table, symbol) the server refused for good."""
    found: Counter[tuple[str, str]] = Counter()
    for table, payload, _ in journal.quarantined():
        named = _SYMBOL.search(payload)
        found[table, named[1].decode() if named else ""] += 1
    for name, count in journal.facts("refused/").items():  # before the session went on
        kind, symbol = name.split("|")
        found[TABLES[kind].name, symbol] += count
    return found


def _difference(
    db: QuestDB, session_id: str, recorder: Recorder, refused: Counter[tuple[str, str]]
) -> str:
    """Return how the database's counts differ from the journal's, or nothing if they do not."""
    start, end = _time_range(recorder)
    for kind, table in TABLES.items():
        scope = Scope(table, session_id, None, start, end)
        stored = {str(symbol): int(rows) for symbol, rows in db.execute(sql.count_by_symbol(scope))}
        for symbol in recorder.symbols:
            said = sum(t.rows for k, t in recorder.tallies.items() if k[:2] == (symbol, kind))
            found = stored.get(symbol, 0)
            if found != said - refused[table.name, symbol]:
                return f"{said:,} {kind} rows of {symbol} were journaled and {found:,} are stored"
    return ""
