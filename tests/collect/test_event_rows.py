"""The gap ledger while it grows: numbered rows, written again when more is known."""

from __future__ import annotations

import json

import pytest

from fxlab.collect._live.events import LONGEST_DETAIL, EventRows

NOON = 1_735_732_800_000_000


def test_each_event_has_its_number_and_its_times():
    rows = EventRows("one")
    rows.add("reconnect", None, NOON, detail="cut")
    rows.add("db_outage", "A", NOON + 5, amount=3)
    first, second = rows.take()
    assert first == {
        "session_id": "one", "symbol": None, "event": "reconnect", "seq": 1, "from_time": NOON,
        "to_time": NOON, "count": None, "detail": "cut", "timestamp": NOON,
    }  # fmt: skip
    assert (second["seq"], second["count"]) == (2, 3)
    assert {second["from_time"], second["to_time"], second["timestamp"]} == {NOON + 5}
    assert rows.take() == []


def test_alike_within_a_batch_are_one_and_in_the_next_a_new_one():
    rows = EventRows("one")
    for n in range(3):
        rows.add("quarantine", "A", NOON + n, amount=2, detail=f"cut JSON: {n}")
    rows.add("quarantine", "A", NOON, detail="other: 0")
    rows.add("quarantine", "B", NOON, detail="cut JSON: 0")
    found = rows.take()
    assert [(row["symbol"], row["count"], row["to_time"] - NOON) for row in found] == [
        ("A", 6, 2), ("A", None, 0), ("B", None, 0),
    ]  # fmt: skip
    assert rows.errors == 8
    rows.add("quarantine", "A", NOON, detail="cut JSON: 9")
    assert [row["seq"] for row in rows.take()] == [4]


@pytest.mark.parametrize("time", [None, "now", 1.5, 0, -1, 2**70])
def test_an_event_of_no_time_is_of_now(time):
    rows = EventRows("one")
    rows.add("resync", None, time)
    (row,) = rows.take()
    assert NOON < row["timestamp"] == row["to_time"]


def test_what_the_database_cannot_hold_is_written_otherwise():
    rows = EventRows("one")
    rows.add("resync", None, NOON, detail="half \ud800 of it", amount="many")
    rows.add("venue_error", None, NOON, detail="x" * 10_000)
    first, second = rows.take()
    assert (first["detail"], first["count"]) == ("half \\ud800 of it", None)
    assert len(second["detail"]) == LONGEST_DETAIL


def test_a_gap_is_written_over_its_own_row_until_it_is_filled():
    rows = EventRows("one")
    gap = rows.open_gap("A", "prices", NOON, NOON + 9, 4, first_id=1, state="open")
    (row,) = rows.take()
    assert json.loads(row["detail"]) == {"what": "prices", "first_id": 1, "state": "open"}
    assert rows.gaps == {1: "A"}
    gap.missing, gap.detail["state"] = 1, "partly filled"
    rows.write(gap)
    assert rows.gaps == {1: "A"}
    gap.missing = 0
    rows.write(gap)
    (row,) = rows.take()
    assert (row["seq"], row["count"], row["timestamp"]) == (1, 0, NOON)
    assert rows.gaps == {}


def test_a_gap_that_a_snapshot_ended_is_counted_apart():
    rows = EventRows("one")
    gap = rows.open_gap("A", "orderbook", NOON, None, 7, cause="cut", state="open")
    rows.open_gap("B", "orderbook", NOON, None, None, cause="cut", state="open")
    assert (rows.gaps, rows.resynced) == ({1: "A", 2: "B"}, {})
    gap.to_time, gap.detail["state"] = NOON + 9, "resynced"
    rows.write(gap)
    assert (rows.gaps, rows.resynced) == ({2: "B"}, {"A": 1})
    later = EventRows("one")
    later.load(json.loads(json.dumps(rows.to_json())))
    assert (later.gaps, later.resynced) == (rows.gaps, rows.resynced)


def test_the_detail_of_a_gap_is_json_however_long_its_words_are():
    rows = EventRows("one")
    rows.open_gap("A", "orderbook", NOON, None, None, cause='"' * 9_000, backfill="é\ud800" * 3_000)
    (row,) = rows.take()
    detail = json.loads(row["detail"])
    assert detail["what"] == "orderbook"
    assert detail["cause"].startswith('"""')
    row["detail"].encode()


def test_a_later_ledger_goes_on_numbering():
    rows = EventRows("one")
    rows.add("quarantine", None, NOON)
    rows.open_gap("A", "orderbook", NOON, None, None, cause="cut")
    later = EventRows("one")
    later.load(json.loads(json.dumps(rows.to_json())))
    assert later.to_json() == rows.to_json()
    later.add("resync", None, NOON)
    assert later.take()[0]["seq"] == 3
    assert (later.errors, later.gaps) == (1, {2: "A"})
