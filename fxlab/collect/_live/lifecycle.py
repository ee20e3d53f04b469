"""Session lifecycle: closing with receipts, recovery after a kill, resuming a session that ended.

Closing writes receipts and the session's last row and counts against the database. It reads what
the journal knows, never what a process remembered, so a recording that was killed is closed by the
same steps as one that was stopped.

Recovery comes first at every start: it brings a killed collector's journal to the server and closes
its session. A journal that a living process holds is left alone, and so is one that belongs to
another server.

Resuming restores counts, ids and events where they were left. The gap between the two recordings is
then found as any other: by the ids of its trades.
"""

from __future__ import annotations

import json
import logging
import re
import sqlite3
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab._questdb.ingest import LineEncoder, LinePost
from fxlab._questdb.sql import Scope
from fxlab._times import to_micros
from fxlab.collect._config import Plan
from fxlab.collect._live.events import OPEN, RESYNCED
from fxlab.collect._live.journal import Journal, Sender, left_behind
from fxlab.collect._live.recorder import Recorder
from fxlab.collect._live.trades import RECENT
from fxlab.collect.feed import Clock
from fxlab.errors import (
    CollectionFailed,
    InvalidParameter,
    QuestDBError,
    QuestDBUnavailable,
    SessionBusy,
    SessionNotFound,
    WriteFailed,
)
from fxlab.schema import (
    DATA_TABLES,
    EVENTS,
    PRICES,
    RECEIPTS,
    SESSIONS,
    VERSION,
    Table,
    data_tables,
)
from fxlab.sessions import _catalog

_log: Final = logging.getLogger(__name__)

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
    first, last = _time_range(recorder)
    rows = recorder.row_counts()
    ticks = ("prices", "orderbook")
    counts = {kind: sum(n for key, n in rows.items() if key[1] == kind) for kind in ticks}
    recorded = {symbol for symbol, _ in rows}
    decimals = {
        symbol: record.decimals
        for symbol, record in recorder.symbols.items()
        if record.decimals is not None and symbol in recorded
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
        "schema_version": VERSION,
        "updated_at": now,
        "created_at": facts["created_at"],
        "options": json.dumps(facts["options"]),
        "instruments": json.dumps(facts.get("instruments", {})),  # older journals have none
    }


def _time_range(recorder: Recorder) -> tuple[int | None, int | None]:
    """Return the first and the last time that were journaled."""
    filled = [tally for tally in recorder.tallies.values() if tally.rows]
    return (
        min((tally.first_time for tally in filled), default=None),
        max((tally.last_time for tally in filled), default=None),
    )


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
                    "refused": refused[DATA_TABLES[data_type].name, symbol],
                }
            ),
            "timestamp": facts["created_at"],
        }
        for (symbol, data_type, origin), tally in sorted(recorder.tallies.items())
    ]


@dataclass(frozen=True, slots=True)
class RecordingStore:
    """The ways to the database that a recording uses."""

    db: QuestDB
    post: LinePost
    encoder: LineEncoder

    def put(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Store a few rows now, outside of the journal."""
        self.post.send([self.encoder.encode(table, rows)])
        self.db.wait_visible(table)


def close_session(store: RecordingStore, journal: Journal, recorder: Recorder, now: int) -> str:
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
    store.db.wait_visible(*_tables(recorder).values(), EVENTS)
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


def _tables(recorder: Recorder) -> dict[str, Table]:
    """Return the tables of ticks, and those of channels that were recorded."""
    return data_tables({kind for one in recorder.symbols.values() for kind in one.channels})


def refused_rows(journal: Journal) -> Counter[tuple[str, str]]:
    """Return how many rows of each (table, symbol) the server refused for good."""
    found: Counter[tuple[str, str]] = Counter()
    for table, payload, _ in journal.quarantined():
        named = _SYMBOL.search(payload)
        found[table, named[1].decode() if named else ""] += 1
    for name, count in journal.facts("refused/").items():  # before the session went on
        kind, symbol = name.split("|")
        found[DATA_TABLES[kind].name, symbol] += count
    return found


def _difference(
    db: QuestDB, session_id: str, recorder: Recorder, refused: Counter[tuple[str, str]]
) -> str:
    """Return how the database's counts differ from the journal's, or nothing if they do not."""
    first, last = _time_range(recorder)
    journaled = recorder.row_counts()
    for kind, table in _tables(recorder).items():
        scope = Scope(table, session_id, None, first, None if last is None else last + 1)
        stored = {str(symbol): int(rows) for symbol, rows in db.execute(sql.count_by_symbol(scope))}
        for symbol in recorder.symbols:
            said = journaled[symbol, kind]
            found = stored.get(symbol, 0)
            if found != said - refused[table.name, symbol]:
                return f"{said:,} {kind} rows of {symbol} were journaled and {found:,} are stored"
    return ""


STALL_SECONDS: Final = 20.0
"""Without a row leaving a journal for so long, its server is taken for gone."""


@contextmanager
def opened_store(db: QuestDB) -> Iterator[RecordingStore]:
    """Open the ways to the database that a recording uses."""
    post = LinePost(db.endpoint)
    try:
        yield RecordingStore(db, post, LineEncoder())
    finally:
        post.close()


def recover(db: QuestDB, home: Path, left: list[QuestDBError] | None = None) -> list[str]:
    """Store what waits in journals of dead collectors and close their sessions.

    Parameters
    ----------
    db, home
        The server, and where the journals are.
    left
        Takes what cannot be finished, an error a journal; without it, the first one is raised.

    Returns
    -------
    list of str
        Ids of the sessions that were closed: as completed if their collector had been stopped and
        only the server was missing, else as aborted.

    Raises
    ------
    QuestDBUnavailable
        If the server goes away meanwhile; the journals stay.
    WriteFailed
        If the database does not hold what was journaled, or a journal cannot be used, as on a full
        disk; the others are finished all the same.
    """
    closed: list[str] = []
    troubles = [] if left is None else left
    for path in left_behind(home):
        try:
            with Journal(path) as journal:
                if _recover_one(db, journal):
                    closed.append(path.stem)
        except SessionBusy:
            continue
        except (CollectionFailed, sqlite3.Error) as error:
            cause = f"the journal {path} cannot be finished ({error}); it is kept: look at its disk"
            troubles.append(WriteFailed(f"{cause}, then start fxlab again"))
        except WriteFailed as error:
            troubles.append(error)
    if troubles and left is None:  # none of them kept the others from being finished
        raise troubles[0]
    return closed


def _recover_one(db: QuestDB, journal: Journal) -> bool:
    facts = journal.fact("session")
    if facts is None:  # killed before it had a session: nothing was received
        journal.discard()
        return False
    # Older journals name the embedded server by its address, too.
    if facts["server"] not in {server_of(db), f"{db.endpoint.host}:{db.endpoint.http_port}"}:
        return False
    with opened_store(db) as store:
        recorder = recorder_of(journal, store.encoder, facts)
        recorder.end(_time_range(recorder)[1] or 0)
        _drain(journal, store.post)
        close_session(store, journal, recorder, Clock().now())
    journal.discard()
    return True


def recorder_of(journal: Journal, encoder: LineEncoder, facts: dict[str, Any]) -> Recorder:
    """Return the recorder of a session, as far as its journal knows."""
    options = facts["options"]
    return Recorder(
        journal,
        encoder,
        facts["session_id"],
        facts["symbols"],
        counts_trades=facts["counts_trades"],
        book_depth=options["book_depth"],
        book_every=options["book_every_us"],
        channels=options.get("channels", ()),
    )


def server_of(db: QuestDB) -> str:
    """Return what tells one server from another; a home's own may change its ports."""
    if db.endpoint.embedded:
        return "embedded"
    return f"{db.endpoint.host}:{db.endpoint.http_port}"


def _drain(journal: Journal, post: LinePost) -> None:
    # No events are written here: what is refused stands in the receipt, from the quarantine.
    sender = Sender(journal, post, on_outage=lambda _: None, on_refused=lambda *_: None)
    sender.start()
    drained, before = False, journal.rows + 1
    while not drained and journal.rows < before:
        before = journal.rows
        drained = sender.drain(STALL_SECONDS)
    outage = sender.outage
    sender.stop()
    if isinstance(sender.failure, sqlite3.Error):
        raise sender.failure
    if sender.failure is not None:
        raise WriteFailed(
            f"the rows in {journal.path} are refused ({sender.failure}); they are kept there: run "
            "fxlab doctor"
        )
    if not drained:
        raise QuestDBUnavailable(
            f"QuestDB went away while {journal.rows:,} rows were brought to it ({outage}); they "
            f"are kept in {journal.path}; run: fxlab up"
        )


def finish_recordings(db: QuestDB, home: Path) -> tuple[str, ...]:
    """Do what `recover` does; what cannot be finished now is kept, and said by a warning."""
    left: list[QuestDBError] = []
    closed: list[str] = []
    try:
        closed = recover(db, home, left)
    except QuestDBError as error:
        left.append(error)
    for trouble in left:
        warnings.warn(str(trouble), stacklevel=4)
    return tuple(closed)


REPEATED_US: Final = 600_000_000
"""How far back a venue may repeat trades."""

_TALLY: Final = ("rows", "first_seq", "last_seq", "first_time", "last_time", "checksum")


def restore_state(
    db: QuestDB, plan: Plan, journal: Journal, facts: dict[str, Any]
) -> dict[str, Any]:
    """Fill an empty journal with what the session's receipts say; return the session's facts.

    Raises
    ------
    SessionNotFound, SessionExists, InvalidParameter
        If there is no such session, it is deleted, or it is of another venue or other symbols.
    """
    row = _catalog.find_free(db, plan.session_id)
    if row is None:
        raise SessionNotFound(
            f"no session {plan.session_id!r} to resume; leave resume=True out to begin it"
        )
    _refuse_others(row, facts)
    facts = facts | {"created_at": to_micros(row["created_at"]), "notes": row["notes"]}
    facts["tags"] = json.loads(row["tags"] or "[]")
    facts |= _first_listing(row, facts)
    journal.append([], {**_receipts(db, row), "events": _events(db, plan, row)})
    return facts


def _first_listing(row: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Return the instruments of the first listing, and options that say where it is another now."""
    first, now = json.loads(row["instruments"] or "{}"), facts["instruments"]
    options = facts["options"]
    changed = json.loads(row["options"] or "{}").get(LISTING_CHANGED, {})
    for symbol, terms in now.items():
        before = first.get(symbol, terms)  # an older fxlab kept none
        if terms and terms != before:
            changed[symbol] = terms
            names = sorted(n for n in {*terms, *before} if terms.get(n) != before.get(n))
            _log.warning(
                "%s lists %s with another %s than when session %s began; the first is kept",
                row["exchange"], symbol, ", ".join(names), row["session_id"],
            )  # fmt: skip
    if changed:
        options = options | {LISTING_CHANGED: changed}
    return {"instruments": first, "options": options}


LISTING_CHANGED: Final = "listing_changed"
"""The option of a session that tells instruments which were listed otherwise when it went on."""


def _refuse_others(row: dict[str, Any], facts: dict[str, Any]) -> None:
    there = (row["exchange"], json.loads(row["symbols"]), json.loads(row["data_types"]))
    wanted = (facts["exchange"], facts["symbols"], facts["data_types"])
    if there != wanted or row["source"] != "live":
        raise InvalidParameter(
            f"session {row['session_id']!r} holds {there[2]} of {there[1]} from {there[0]} "
            f"({row['source']}) and cannot go on with {wanted[2]} of {wanted[1]} from {wanted[0]}; "
            "give the same ones, or begin another session"
        )
    before = json.loads(row["options"] or "{}")
    for name, words in _KEPT.items():
        was, now = before.get(name), facts["options"][name]
        if was is not None and was != now:
            seconds = 1e6 if name.endswith("_us") else 1
            raise InvalidParameter(
                f"session {row['session_id']!r} was recorded with {words}={was / seconds:g} and "
                f"cannot go on with {words}={now / seconds:g}; give {words}={was / seconds:g}, or "
                "begin another session"
            )


_KEPT: Final = {"book_depth": "book_depth", "book_every_us": "book_every"}
"""Options that one session cannot have two of, by their name in its row."""


def _receipts(db: QuestDB, session: dict[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for row in _catalog.raw_rows(db, RECEIPTS, session["session_id"]):
        detail = json.loads(row["detail"])
        refused = detail.pop("refused", 0)
        if refused:
            facts[f"refused/{row['data_type']}|{row['symbol']}"] = refused
        if row["data_type"] == "prices" and detail["trades"]["ids"] is None:
            last = facts.get(f"symbol/{row['symbol']}", detail)
            detail["trades"]["recent"] = last["trades"].get("recent") or _recent(db, row, session)
        facts[f"symbol/{row['symbol']}"] = detail
        tally = {name: row[name] for name in _TALLY}
        facts[f"tally/{row['symbol']}|{row['data_type']}|{row['origin']}"] = tally
    return facts


def _recent(
    db: QuestDB, receipt: dict[str, Any], session: dict[str, Any]
) -> tuple[list[str], list[int]]:
    """Return ids and times of a symbol's last trades: where ids show no gaps, they show duplicates.

    A venue may say the last trades before a pause once more after it.
    """
    since = receipt["last_time"] - REPEATED_US
    end = _catalog.tick_range(session)[1]
    scope = Scope(PRICES, receipt["session_id"], receipt["symbol"], since, end)
    found = db.export(sql.rows(scope, ["trade_id", "timestamp"])).drop_nulls("trade_id")
    last = found.tail(RECENT)
    return last["trade_id"].to_list(), last["timestamp"].to_physical().to_list()


def _events(db: QuestDB, plan: Plan, row: dict[str, Any]) -> dict[str, Any]:
    gaps: dict[str, str] = {}
    unfilled: list[dict[str, Any]] = []
    resynced: Counter[str] = Counter()
    lasting: list[dict[str, Any]] = []
    number = 0
    for event in _catalog.raw_rows(db, EVENTS, plan.session_id):
        number = max(number, event["seq"] or 0)
        if event["event"] != "gap" or event["count"] == 0:
            continue
        detail = json.loads(event["detail"])
        if detail.get("state") == RESYNCED:
            resynced[event["symbol"]] += 1
            continue
        gaps[str(event["seq"])] = event["symbol"]
        unfilled.append(event | {"detail": detail})
        if detail["what"] == "orderbook" and detail.get("state") == OPEN:
            lasting.append(_gap_row(event, detail))
    errors = row["errors_count"] or 0
    found = {"number": number, "errors": errors, "gaps": gaps, "resynced": resynced}
    return {**found, "lasting": lasting, "unfilled": unfilled}


def _gap_row(event: dict[str, Any], detail: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the `GapRow` that a gap's row was made of."""
    return {
        "number": event["seq"],
        "symbol": event["symbol"],
        "what": detail["what"],
        "from_time": event["from_time"],
        "to_time": event["to_time"],
        "missing": event["count"],
        "detail": {name: value for name, value in detail.items() if name != "what"},
    }
