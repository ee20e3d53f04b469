"""What is in the journal is there whole, whatever happens to process, disk or server."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from array import array

import pytest

from fxlab._questdb.ingest import Lines
from fxlab.collect._live.journal import Journal
from fxlab.errors import CollectionFailed, SessionBusy


def lines(*rows, table="t"):
    """Return rows of any bytes."""
    ends, place = array("Q"), 0
    for row in rows:
        place += len(row)
        ends.append(place)
    return Lines(table, b"".join(rows), ends)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journals" / "one.journal"


@pytest.fixture
def journal(path):
    with Journal(path) as opened:
        yield opened


@pytest.fixture
def reader(journal):
    opened = journal.reader()
    yield opened
    opened.close()


def payloads(waiting):
    return [batch.lines.payload for batch in waiting]


def test_rows_come_out_as_they_went_in_and_in_their_order(journal, reader):
    first, second, third = lines(b"ab", b"c"), lines(b"", b"d", table="u"), lines(b"\x00\xff")
    journal.append([first, second], {})
    journal.append([third], {})
    assert [batch.lines for batch in reader.oldest(1_000)] == [first, second, third]
    assert (journal.rows, journal.bytes) == (5, 6)
    assert reader.oldest(1_000)[0].lines.ends == array("Q", [2, 3])


@pytest.mark.parametrize(
    ("most", "count"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (99, 3)]
)
def test_a_request_has_the_oldest_batches_and_at_least_one(journal, reader, most, count):
    journal.append([lines(b"ab"), lines(b"cd"), lines(b"ef")], {})
    assert payloads(reader.oldest(most)) == [b"ab", b"cd", b"ef"][:count]


def test_an_empty_journal_has_nothing(journal, reader):
    assert reader.oldest(1_000) == []
    assert (journal.rows, journal.bytes) == (0, 0)


def test_forgotten_batches_do_not_come_again_and_newer_ones_do(journal, reader):
    journal.append([lines(b"ab", b"c"), lines(b"d")], {})
    taken = reader.oldest(1_000)
    journal.append([lines(b"e")], {})
    reader.forget(taken)
    assert payloads(reader.oldest(1_000)) == [b"e"]
    assert (journal.rows, journal.bytes) == (1, 1)


def test_numbers_of_batches_are_not_given_twice(journal, reader):
    """Else a batch appended while the last one is sent could be forgotten in its place."""
    journal.append([lines(b"ab")], {})
    taken = reader.oldest(1_000)
    reader.forget(taken)
    journal.append([lines(b"cd")], {})
    assert reader.oldest(1_000)[0].id > taken[0].id


def test_refused_rows_move_in_the_same_step_as_the_rest_leaves(journal, reader):
    journal.append([lines(b"ab", b"c", b"d")], {})
    taken = reader.oldest(1_000)
    reader.forget(taken, [(lines(b"c", table="t"), "bad row")])
    assert journal.quarantined() == [("t", b"c", "bad row")]
    assert reader.oldest(1_000) == []
    assert (journal.rows, journal.bytes) == (0, 0)


def test_facts_are_replaced_and_found_by_their_start(journal):
    assert journal.fact("a") is None
    assert journal.fact("a", 7) == 7
    journal.append([], {"a": 1, "tally/x|y": {"n": 2**62}, "tally/z": None})
    journal.append([], {"a": [1, "é"]})
    assert journal.fact("a") == [1, "é"]
    assert journal.fact("tally/z", "default") is None, "a fact that says null is a fact"
    assert journal.facts("tally/") == {"x|y": {"n": 2**62}, "z": None}
    assert journal.facts("nothing/") == {}


def test_all_is_there_after_closing(path):
    with Journal(path) as journal:
        journal.append([lines(b"ab", b"c")], {"a": 1})
    with Journal(path) as journal:
        assert (journal.rows, journal.bytes, journal.fact("a")) == (2, 3, 1)


def test_a_batch_and_its_facts_enter_together_or_not_at_all(journal, reader):
    journal.append([lines(b"ab")], {"n": 1})
    with pytest.raises(TypeError):
        journal.append([lines(b"cd")], {"n": 2, "bad": object()})
    assert payloads(reader.oldest(1_000)) == [b"ab"]
    assert (journal.fact("n"), journal.rows) == (1, 1)
    journal.append([lines(b"ef")], {"n": 3})
    assert payloads(reader.oldest(1_000)) == [b"ab", b"ef"]


def test_a_full_disk_leaves_nothing_half_and_takes_more_when_there_is_room(journal, reader):
    journal.append([lines(b"ab")], {"n": 1})
    pages = journal._file.execute("pragma page_count").fetchone()[0]
    journal._file.execute(f"pragma max_page_count = {pages + 2}")
    great = [lines(b"x" * 20_000), lines(b"y" * 20_000)]
    for _ in range(3):
        with pytest.raises(sqlite3.OperationalError, match="full"):
            journal.append(great, {"n": 2})
        assert payloads(reader.oldest(10**6)) == [b"ab"]
        assert (journal.fact("n"), journal.rows, journal.bytes) == (1, 1, 2)
    journal._file.execute("pragma max_page_count = 100000")
    journal.append(great, {"n": 2})
    assert payloads(reader.oldest(10**6))[1:] == [b"x" * 20_000, b"y" * 20_000]
    assert (journal.fact("n"), journal.rows) == (2, 3)


def test_one_journal_has_one_owner_and_then_the_next(path):
    first = Journal(path)
    with pytest.raises(SessionBusy, match="'one' is being written by another collector"):
        Journal(path)
    first.close()
    Journal(path).close()


def test_another_process_is_an_owner_too(path):
    code = (
        "import sys, pathlib; from fxlab.collect._live.journal import Journal;"
        "j = Journal(pathlib.Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(SessionBusy):
            Journal(path)
        other.kill()
    Journal(path).close()


def test_what_is_no_journal_is_said_and_left_alone(path):
    path.parent.mkdir()
    path.write_bytes(b"something else, and long enough to be read as a header" * 100)
    before = path.read_bytes()
    for _ in range(2):  # the lock is free again
        with pytest.raises(CollectionFailed, match="FXLAB_HOME"):
            Journal(path)
    assert path.read_bytes() == before


def test_discarding_leaves_no_file(path, tmp_path):
    journal = Journal(path)
    journal.append([lines(b"ab")], {"a": 1})
    journal.discard()
    assert list(path.parent.iterdir()) == []
    with Journal(path) as again:
        assert (again.rows, again.fact("a")) == (0, None)


def test_one_thread_appends_while_another_takes_out(journal):
    count, got = 300, []

    def take():
        reader = journal.reader()
        while len(got) < count:
            journal.news.wait(5)
            journal.news.clear()
            waiting = reader.oldest(50)
            while waiting:
                got.extend(payloads(waiting))
                reader.forget(waiting)
                waiting = reader.oldest(50)
        reader.close()

    taker = threading.Thread(target=take)
    taker.start()
    for number in range(count):
        journal.append([lines(b"%05d" % number)], {"n": number})
    taker.join(60)
    assert got == [b"%05d" % number for number in range(count)]
    assert (journal.rows, journal.bytes) == (0, 0)


WRITER = """
import random, sys
from array import array
from pathlib import Path
from fxlab.collect._live.journal import Journal
from fxlab._questdb.ingest import Lines

journal, rng, number = Journal(Path(sys.argv[1])), random.Random(int(sys.argv[2])), 0
while True:
    rows = [rng.randbytes(rng.randint(1, 4_000)) for _ in range(rng.randint(1, 8))]
    ends = array("Q", [sum(map(len, rows[: n + 1])) for n in range(len(rows))])
    number += 1
    facts = {"number": number, "rows": journal.rows + len(rows), "digest": sum(rows[-1])}
    journal.append([Lines("t", b"".join(rows), ends)], facts)
    print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(5))
def test_a_killed_writer_leaves_a_state_before_or_after(path, seed):
    """Batches and facts agree, and nothing is lost of which somebody was told."""
    acknowledged = random.Random(seed).randint(1, 60)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(seed)], stdout=subprocess.PIPE, text=True
    ) as writer:
        told = 0
        while told < acknowledged:
            told = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        told = max([told, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    rng = random.Random(seed)
    with Journal(path) as journal:
        number = journal.fact("number")
        assert number >= told
        reader = journal.reader()
        batches = reader.oldest(10**9)
        reader.close()
        assert len(batches) == number
        for batch in batches:
            rows = [rng.randbytes(rng.randint(1, 4_000)) for _ in range(rng.randint(1, 8))]
            parts = [batch.lines.part(n, n + 1).payload for n in range(batch.lines.rows)]
            assert parts == rows
        assert journal.fact("rows") == journal.rows == sum(batch.lines.rows for batch in batches)
        assert journal.fact("digest") == sum(rows[-1])
        assert journal.bytes == sum(len(batch.lines.payload) for batch in batches)
        journal.append([lines(b"on it goes")], {"number": number + 1})


def test_a_log_that_was_cut_in_the_middle_of_a_write_is_read_up_to_there(path, tmp_path):
    """As a power cut leaves it: the last transaction's bytes are there in part."""
    source = tmp_path / "source" / "one.journal"
    with Journal(source) as journal:
        sizes = []
        for number in range(5):
            journal.append([lines(b"z" * 9_000)], {"number": number})
            sizes.append(source.with_name("one.journal-wal").stat().st_size)
        main, log = source.read_bytes(), source.with_name("one.journal-wal").read_bytes()
    path.parent.mkdir()
    rng = random.Random(1)
    for _ in range(12):
        cut = rng.randint(0, len(log))
        path.write_bytes(main)
        path.with_name("one.journal-wal").write_bytes(log[:cut])
        path.with_name("one.journal-shm").unlink(missing_ok=True)
        with Journal(path) as journal:
            whole = sum(size <= cut for size in sizes)
            assert journal.rows == whole
            assert journal.fact("number") == (whole - 1 if whole else None)
