"""Go on with a session that ended: take up its tallies, ids and events where they were left.

The hole between the two recordings is then found as any other: by the ids of its trades.
"""

from __future__ import annotations

import json
from typing import Any, Final

from fxlab import catalogue
from fxlab.collect.journal import Journal
from fxlab.collect.plan import Plan
from fxlab.collect.trade_ids import RECENT
from fxlab.errors import InvalidParameter, SessionNotFound
from fxlab.questdb import sql
from fxlab.questdb.client import QuestDB
from fxlab.questdb.sql import Scope
from fxlab.schema import EVENTS, PRICES, RECEIPTS, SESSIONS

REPEATED_US: Final = 600_000_000
"""How far back a venue may repeat trades."""

_TALLY: Final = ("rows", "first_seq", "last_seq", "first_time", "last_time", "checksum")


def take_up(db: QuestDB, plan: Plan, journal: Journal, facts: dict[str, Any]) -> dict[str, Any]:
    """Fill an empty journal with what the session's receipts say; return the session's facts.

    Raises
    ------
    SessionNotFound, InvalidParameter
        If there is no such session, or it is of another venue or other symbols.
    """
    found = catalogue.raw_rows(db, SESSIONS, plan.session_id)
    if not found:
        raise SessionNotFound(
            f"no session {plan.session_id!r} to resume; leave resume=True out to begin it"
        )
    row = found[0]
    _refuse_others(row, facts)
    facts = facts | {name: row[name] for name in ("created_at", "notes")}
    facts["tags"] = json.loads(row["tags"] or "[]")
    journal.append([], {**_receipts(db, plan.session_id), "events": _events(db, plan, row)})
    return facts


def _refuse_others(row: dict[str, Any], facts: dict[str, Any]) -> None:
    there = (row["exchange"], json.loads(row["symbols"]), json.loads(row["data_types"]))
    wanted = (facts["exchange"], facts["symbols"], facts["data_types"])
    if there != wanted or row["source"] != "live":
        raise InvalidParameter(
            f"session {row['session_id']!r} holds {there[2]} of {there[1]} from {there[0]} "
            f"({row['source']}) and cannot go on with {wanted[2]} of {wanted[1]} from {wanted[0]}; "
            "give the same ones, or begin another session"
        )


def _receipts(db: QuestDB, session_id: str) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for row in catalogue.raw_rows(db, RECEIPTS, session_id):
        detail = json.loads(row["detail"])
        refused = detail.pop("refused", 0)
        if refused:
            facts[f"refused/{row['data_type']}|{row['symbol']}"] = refused
        if row["data_type"] == "prices" and detail["trades"]["ids"] is None:
            last = facts.get(f"symbol/{row['symbol']}", detail)
            detail["trades"]["recent"] = last["trades"].get("recent") or _recent(db, row)
        facts[f"symbol/{row['symbol']}"] = detail
        tally = {name: row[name] for name in _TALLY}
        facts[f"tally/{row['symbol']}|{row['data_type']}|{row['origin']}"] = tally
    return facts


def _recent(db: QuestDB, receipt: dict[str, Any]) -> tuple[list[str], list[int]]:
    """Return ids and times of a symbol's last trades: where ids tell no holes, they tell doubles.

    A venue may say the last trades before a pause once more after it.
    """
    scope = Scope(
        PRICES, receipt["session_id"], receipt["symbol"], start=receipt["last_time"] - REPEATED_US
    )
    found = db.export(sql.rows(scope, ["trade_id", "timestamp"])).drop_nulls("trade_id")
    last = found.tail(RECENT)
    return last["trade_id"].to_list(), last["timestamp"].to_physical().to_list()


def _events(db: QuestDB, plan: Plan, row: dict[str, Any]) -> dict[str, Any]:
    gaps: dict[str, str] = {}
    unfilled: list[dict[str, Any]] = []
    number = 0
    for event in catalogue.raw_rows(db, EVENTS, plan.session_id):
        number = max(number, event["seq"] or 0)
        if event["event"] == "gap" and event["count"] != 0:
            gaps[str(event["seq"])] = event["symbol"]
            unfilled.append(event | {"detail": json.loads(event["detail"])})
    errors = row["errors_count"] or 0
    return {"number": number, "errors": errors, "gaps": gaps, "unfilled": unfilled}
