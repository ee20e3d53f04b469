"""From the journal to the server: outages are waited out, one bad row costs no other."""

from __future__ import annotations

import contextlib
import dataclasses
import threading

import pytest
from forwarder import Forwarder

from fxlab._questdb import sql, sql_tables
from fxlab._questdb.ingest import LineEncoder, LinePost
from fxlab._questdb.sql import Scope
from fxlab.collect._live import journal as module
from fxlab.collect._live.journal import Journal, Outage, Sender
from fxlab.errors import BatchRefused, QuestDBUnavailable
from fxlab.schema import PRICES

NOON_US = 1_735_732_800_000_000
PATIENCE = 120.0


class Script:
    """A server in a list: what it answers, one request after the other."""

    def __init__(self, *answers):
        self.script = list(answers)
        self.got = []
        self.asked = threading.Event()

    def send(self, batches):
        """Take a request, or raise what the script says."""
        answer = self.script.pop(0) if self.script else None
        self.asked.set()
        if answer is not None:
            raise answer
        self.got += [batch.payload for batch in batches]


class Bad(Script):
    """Refuses each request in which something is."""

    def __init__(self, *bad):
        super().__init__()
        self.bad = bad

    def send(self, batches):
        """Take a request, or refuse it whole."""
        if any(one in batch.payload for batch in batches for one in self.bad):
            raise BatchRefused("the server refused rows: it is bad")
        super().send(batches)


@pytest.fixture(scope="module")
def encoder():
    return LineEncoder()


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "one.journal") as opened:
        yield opened


@pytest.fixture
def post(db):
    made = LinePost(db.endpoint)
    yield made
    made.close()


@contextlib.contextmanager
def sending(journal, post, outages=None, refused=None):
    """Send until the block ends."""
    sender = Sender(
        journal,
        post,
        on_outage=(outages if outages is not None else []).append,
        on_refused=lambda lines, words: (refused if refused is not None else []).append(
            (lines, words)
        ),
    )
    sender.start()
    try:
        yield sender
    finally:
        sender.stop()


def rows(session_id, seqs, text_at=()):
    """Return trades; those of `text_at` have a text where a whole number must be."""
    return [
        {
            "session_id": session_id,
            "symbol": "BTC_USDT",
            "origin": "live",
            "seq": f"text {seq:02}" if seq in text_at else seq,
            "price": 100.0,
            "volume": 1.0,
            "timestamp": NOON_US + seq,
        }
        for seq in seqs
    ]


def stored(db, session_id):
    db.wait_visible(PRICES)
    scope = Scope(PRICES, session_id)
    return db.export(sql.rows(scope, ["seq", "timestamp"]))["seq"].to_list()


def test_one_bad_row_among_a_hundred_costs_no_other(db, unique, encoder, journal, post):
    name, refused = unique(), []
    journal.append([encoder.encode(PRICES, rows(name, range(100), text_at={57}))], {})
    with sending(journal, post, refused=refused) as sender:
        assert sender.drain(PATIENCE)
    assert sender.failure is None
    assert stored(db, name) == [seq for seq in range(100) if seq != 57]
    ((table, payload, cause),) = journal.quarantined()
    assert table == PRICES.name
    assert b"text 57" in payload
    assert b"text 58" not in payload
    assert "seq" in cause
    ((lines, words),) = refused
    assert (lines.payload, words) == (payload, cause)
    assert journal.bytes == 0


@pytest.mark.parametrize("bad", [{0}, {99}, {0, 1}, {3, 50, 98}, set(range(40, 60))])
def test_bad_rows_anywhere(db, unique, encoder, journal, post, bad):
    name = unique()
    batches = [
        encoder.encode(PRICES, rows(name, range(first, first + 25), text_at=bad))
        for first in (0, 25, 50, 75)
    ]
    journal.append(batches[:2], {})
    journal.append(batches[2:], {})
    with sending(journal, post) as sender:
        assert sender.drain(PATIENCE)
    assert stored(db, name) == [seq for seq in range(100) if seq not in bad]
    found = {int(payload.split(b"text ")[1][:2]) for _, payload, _ in journal.quarantined()}
    assert found == bad


def test_a_table_that_is_not_there_is_no_fault_of_the_rows(db, unique, encoder, journal, post):
    """The thread ends; nothing is quarantined, and all is stored once the table is there."""
    name, nowhere = unique(), dataclasses.replace(PRICES, name=unique("missing"))
    journal.append([encoder.encode(nowhere, rows(name, range(100)))], {})
    refused = []
    with sending(journal, post, refused=refused) as sender:
        assert not sender.drain(PATIENCE)
    assert isinstance(sender.failure, BatchRefused)
    assert nowhere.name in str(sender.failure)
    assert (journal.rows, journal.quarantined(), refused) == (100, [], [])
    db.execute(sql_tables.create_table(nowhere))
    try:
        with sending(journal, post) as sender:
            assert sender.drain(PATIENCE)
        db.wait_visible(nowhere)
        assert db.execute(f"select count() from {nowhere.name}") == [[100]]  # noqa: S608
    finally:
        db.execute(f"drop table {nowhere.name}")


def test_an_outage_is_waited_out_and_told_once(db, unique, encoder, journal, free_ports):
    name, outages = unique(), []
    port = free_ports(1)[0]
    post = LinePost(dataclasses.replace(db.endpoint, http_port=port))
    journal.append([encoder.encode(PRICES, rows(name, range(50)))], {})
    with contextlib.closing(post), sending(journal, post, outages) as sender:
        wait_for(lambda: sender.outage)
        assert str(port) in sender.outage
        assert journal.rows == 50
        journal.append([encoder.encode(PRICES, rows(name, range(50, 100)))], {})
        with Forwarder(db.endpoint.http_port, port=port):
            assert sender.drain(PATIENCE)
            wait_for(lambda: not sender.outage)
    assert stored(db, name) == list(range(100))
    assert len(outages) == 1
    assert outages[0].tries >= 2
    assert outages[0].seconds > 0
    assert "ConnectError" in outages[0].reason


def test_lost_answers_cost_no_row_and_double_none(db, unique, encoder, journal):
    name = unique()
    with Forwarder(db.endpoint.http_port, lost_answers=3) as between:
        post = LinePost(dataclasses.replace(db.endpoint, http_port=between.port))
        with contextlib.closing(post), sending(journal, post) as sender:
            for first in range(0, 100, 20):
                batch = encoder.encode(PRICES, rows(name, range(first, first + 20)))
                journal.append([batch], {})
            assert sender.drain(PATIENCE)
    assert stored(db, name) == list(range(100))
    assert journal.quarantined() == []


def wait_for(holds):
    """Wait until something comes true."""
    pause = threading.Event()
    for _ in range(6_000):
        if holds():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come true within a minute")


# ---- against a server in a list --------------------------------------------------------------


def away(words="gone"):
    return QuestDBUnavailable.at("here", 1, words)


def test_a_connection_that_was_let_go_is_no_outage(encoder, journal):
    post, outages = Script(away()), []
    journal.append([encoder.encode(PRICES, rows("x", [1]))], {})
    with sending(journal, post, outages) as sender:
        assert sender.drain(PATIENCE)
    assert outages == []
    assert len(post.got) == 1


def test_a_batch_refused_after_an_outage_ends_that_too(encoder, journal):
    refusal = BatchRefused("the server refused rows: bad")
    post, outages = Script(away("1"), away("2"), away("3"), refusal, refusal), []
    journal.append([encoder.encode(PRICES, rows("x", [1]))], {})
    with sending(journal, post, outages) as sender:
        assert sender.drain(PATIENCE)
    assert [one.tries for one in outages] == [3]
    assert isinstance(outages[0], Outage)
    assert "3" in outages[0].reason
    assert [cause for _, _, cause in journal.quarantined()] == [str(refusal)]


def test_stopping_in_an_outage_keeps_everything(encoder, journal):
    post = Script(*[away() for _ in range(10_000)])
    journal.append([encoder.encode(PRICES, rows("x", [1, 2]))], {})
    with sending(journal, post) as sender:
        wait_for(lambda: sender.outage)
        assert not sender.drain(0.0)
    assert journal.rows == 2
    with sending(journal, Script()) as sender:
        assert sender.drain(PATIENCE)


@pytest.mark.parametrize("hanging", [0.2, float("inf")])
def test_a_server_that_is_back_is_not_missed_by_who_waits(encoder, journal, monkeypatch, hanging):
    """It was away so long that the next try is far off; the end of a recording is not."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 1e6)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 1e6)
    monkeypatch.setattr(module, "AWAITED_PAUSE", 0.01)
    journal.append([encoder.encode(PRICES, rows("x", [1, 2]))], {})
    with sending(journal, Script(away("1"), away("2"))) as sender:
        wait_for(lambda: sender.outage)
        assert sender.drain(PATIENCE, hanging)


class Probed(Script):
    """Is away for all requests, and answers so many probes."""

    def __init__(self, probes):
        super().__init__(*[away() for _ in range(100_000)])
        self.probes = [True] * probes

    def answers(self, _):
        """Say whether it is there."""
        return bool(self.probes) and self.probes.pop()


@pytest.mark.parametrize("probes", [0, 1, 9])
def test_a_server_that_takes_nothing_is_given_up_by_who_waits(encoder, journal, probes):
    journal.append([encoder.encode(PRICES, rows("x", [1, 2]))], {})
    with sending(journal, post := Probed(probes)) as sender:
        wait_for(lambda: sender.outage)
        assert not sender.drain(PATIENCE, 0.05)
        assert sender.outage
    assert len(post.probes) == max(0, probes - 1)
    assert journal.rows == 2


def test_a_row_refused_and_then_an_outage_is_quarantined_once(encoder, journal):
    """Stopped between the two halves of a batch, its refused row must not be counted twice."""

    class Dying(Bad):
        def send(self, batches):
            if b"text 01" not in batches[0].payload:
                self.asked.set()
                raise away()
            super().send(batches)

    journal.append([encoder.encode(PRICES, rows("x", [1, 2], text_at={1}))], {})
    first = Dying(b"text 01")
    with sending(journal, first):
        assert first.asked.wait(PATIENCE)
    assert (journal.rows, journal.quarantined()) == (2, [])
    second = Bad(b"text 01")
    with sending(journal, second) as sender:
        assert sender.drain(PATIENCE)
    assert len(journal.quarantined()) == 1
    assert len(second.got) == 1


def test_refusals_with_good_rows_between_them_are_never_too_many(encoder, journal):
    """Fifty bad rows, each second one: more than would be taken for the table's trouble."""
    bad = set(range(0, 100, 2))
    journal.append([encoder.encode(PRICES, rows("x", range(100), text_at=bad))], {})
    post = Bad(b"text ")
    with sending(journal, post) as sender:
        assert sender.drain(PATIENCE)
    assert sender.failure is None
    assert len(journal.quarantined()) == 50 > module.MOST_REFUSED
    assert len(post.got) == 50


def test_so_many_refused_in_a_row_end_it(encoder, journal):
    count = module.MOST_REFUSED + 1
    journal.append([encoder.encode(PRICES, rows("x", range(count), text_at=range(count)))], {})
    with sending(journal, Bad(b"text ")) as sender:
        wait_for(lambda: sender.failure)
    assert (journal.rows, journal.quarantined()) == (count, [])


def test_what_nobody_foresaw_ends_the_thread_and_keeps_the_rows(encoder, journal):
    journal.append([encoder.encode(PRICES, rows("x", [1]))], {})
    with sending(journal, Script(RuntimeError("a bug"))) as sender:
        wait_for(lambda: sender.failure)
    assert str(sender.failure) == "a bug"
    assert journal.rows == 1


def test_one_that_never_started_can_be_stopped(journal):
    Sender(journal, Script(), on_outage=print, on_refused=print).stop()


def test_rows_leave_in_the_order_they_came(encoder, journal, monkeypatch):
    monkeypatch.setattr(module, "REQUEST_BYTES", 200)
    batches = [encoder.encode(PRICES, rows("x", [seq])) for seq in range(20)]
    post = Script()
    with sending(journal, post) as sender:
        for batch in batches:
            journal.append([batch], {})
        assert sender.drain(PATIENCE)
    assert post.got == [batch.payload for batch in batches]
