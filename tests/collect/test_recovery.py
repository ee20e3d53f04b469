"""What a killed collector left is finished by the next start, and nothing else is touched."""

from __future__ import annotations

import dataclasses
import json

import pytest
from scripted_feed import SYMBOL, trade, trades

from fxlab import errors, schema
from fxlab._questdb import sql
from fxlab._questdb.ingest import LinePost
from fxlab.collect._config import Plan
from fxlab.collect._live import lifecycle
from fxlab.collect._live.journal import Journal, Sender, journal_path, left_behind
from fxlab.collect._live.lifecycle import opened_store, recorder_of, recover, server_of, session_row
from fxlab.collect.feed import BookSnapshot, Clock, Gap
from fxlab.schema import SESSIONS

NOON = 1_735_732_800_000_000
BOOK = BookSnapshot(SYMBOL, 10, [(99.0, 1.0)], [(101.0, 3.0)], NOON, NOON + 7)


@pytest.fixture
def home(tmp_path):
    return tmp_path


def killed(db, home, name, batches=(), *, server=None, sent=False, **facts):
    """Leave a journal as a collector does that is killed after these batches."""
    plan = Plan.of("private", SYMBOL, session_id=name)
    about = {
        "session_id": name,
        "exchange": "private",
        "symbols": [SYMBOL],
        "data_types": plan.data_types,
        "counts_trades": True,
        "created_at": Clock().now(),
        "notes": "",
        "tags": [],
        "options": plan.options(),
        "server": server or server_of(db),
    }
    with Journal(journal_path(home, name)) as journal, opened_store(db) as store:
        journal.append([], {"session": about, **facts})
        recorder = recorder_of(journal, store.encoder, about)
        store.put(SESSIONS, [session_row(about, recorder, "collecting", Clock().now())])
        for batch in batches:
            recorder.record(batch, 0)
        if sent:
            sender = Sender(journal, store.post, on_outage=print, on_refused=print)
            sender.start()
            assert sender.drain(60)
            sender.stop()
    return name


def gaps(db, name):
    names = list(schema.EVENTS.columns)
    rows = [dict(zip(names, row, strict=True)) for row in db.execute(
        sql.raw_rows(schema.EVENTS, name)
    )]  # fmt: skip
    return [row | json.loads(row["detail"]) for row in rows if row["event"] == "gap"]


@pytest.mark.parametrize("sent", [False, True])
def test_rows_that_waited_are_stored_and_the_session_is_aborted(lab, db, home, unique, sent):
    name = killed(db, home, unique("live"), [trades(1, 2), [BOOK, trade(3)]], sent=sent)
    assert lab.session(name).status == "collecting"
    assert recover(db, home) == [name]
    session = lab.session(name)
    assert (session.status, session.prices_count, session.orderbook_count) == ("aborted", 3, 1)
    assert session.prices(columns=["seq"])["seq"].to_list() == [1, 2, 3]
    assert lab.verify(name).whole
    assert left_behind(home) == []
    assert recover(db, home) == [], "there is nothing to be done twice"


def test_one_that_had_been_stopped_is_completed(lab, db, home, unique):
    name = killed(db, home, unique("live"), [trades(1)], ending="completed")
    assert recover(db, home) == [name]
    assert lab.session(name).status == "completed"


def test_holes_that_were_young_are_gaps_now(lab, db, home, unique):
    gap = Gap(SYMBOL, "orderbook", NOON, None, None, "cut")
    name = killed(db, home, unique("live"), [[trade(1), gap, trade(5)]])
    recover(db, home)
    found = {row["what"]: row for row in gaps(db, name)}
    assert (found["prices"]["first_id"], found["prices"]["last_id"]) == (2, 4)
    assert found["orderbook"]["from_time"] == NOON
    assert lab.verify(name).whole


def test_one_that_lives_is_left_alone(lab, db, home, unique):
    name = killed(db, home, unique("live"), [trades(1)])
    with Journal(journal_path(home, name)) as held:
        assert recover(db, home) == []
        assert held.rows > 0
    assert lab.session(name).status == "collecting"
    assert recover(db, home) == [name]


def test_one_of_another_server_is_left_alone(db, home, unique):
    name = killed(db, home, unique("live"), [trades(1)], server="elsewhere:1")
    assert recover(db, home) == []
    with Journal(journal_path(home, name)) as journal:
        assert journal.rows > 0


def test_a_journal_without_a_session_is_swept_away(db, home, unique):
    Journal(journal_path(home, unique("live"))).close()
    assert recover(db, home) == []
    assert left_behind(home) == []


def test_other_counts_in_the_database_mark_it_as_failed_and_keep_the_journal(lab, db, home, unique):
    name = killed(db, home, unique("live"), [trades(1, 2)])
    path = journal_path(home, name)
    with Journal(path) as journal:
        tally = journal.fact(f"tally/{SYMBOL}|prices|live")
        journal.append([], {f"tally/{SYMBOL}|prices|live": tally | {"rows": 5}})
    with pytest.raises(errors.WriteFailed, match=f"5 prices rows of {SYMBOL}.*2 are stored"):
        recover(db, home)
    assert lab.session(name).status == "failed"
    assert path.exists()
    assert not lab.verify(name).whole


def test_one_that_cannot_be_read_does_not_keep_the_others(lab, db, home, unique):
    name = killed(db, home, "zz" + unique("live"), [trades(1)])
    broken = journal_path(home, "aa_broken")
    broken.write_bytes(b"no journal at all " * 1_000)
    with pytest.raises(errors.WriteFailed, match="aa_broken"):
        recover(db, home)
    assert lab.session(name).status == "aborted"
    assert broken.exists()


def test_a_server_that_goes_away_meanwhile_keeps_the_journal(
    db, home, unique, monkeypatch, free_ports
):
    name = killed(db, home, unique("live"), [trades(1)])
    monkeypatch.setattr(lifecycle, "STALL_SECONDS", 0.3)
    real = LinePost
    monkeypatch.setattr(
        lifecycle,
        "LinePost",
        lambda endpoint: real(dataclasses.replace(endpoint, http_port=free_ports(1)[0])),
    )
    with pytest.raises(errors.QuestDBUnavailable, match="rows were brought to it"):
        recover(db, home)
    monkeypatch.undo()
    assert recover(db, home) == [name]
