"""An import is whole, or finished by the next one, and never twice."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from import_rows import parts_of
from tick_files import PRICES_HEADER, price_lines, write_lines, write_session

from fxlab import errors
from fxlab._questdb import ingest
from fxlab.collect._files import csv, importer, quarantine
from fxlab.collect._files.discovery import TreeSession, read_file
from fxlab.collect._files.fields import SourceLocation
from fxlab.collect._files.quarantine import STRICT
from fxlab.collect._files.session_data import ImportedSession, Origin
from fxlab.schema import IMPORTS, ORDERBOOK, PRICES, SESSIONS, TABLES
from fxlab.sessions import _catalog


def everything(db):
    """Return the number of rows of each table."""
    db.wait_visible(*TABLES)
    return {table.name: db.execute(f"select count() from {table.name}")[0][0] for table in TABLES}  # noqa: S608


def counts(lab, name):
    return {(s, kind): rows for s, kind, rows in lab.session(name).counts().iter_rows()}


WHOLE = {("BTC_USDT", "prices"): 400, ("BTC_USDT", "orderbook"): 200}


@pytest.fixture
def tree(tmp_path, unique):
    """Write a session of 400 prices and 200 books; return its folder and id."""
    name = unique("import")
    write_session(tmp_path / "data", name, rows=400)
    return tmp_path / "data", name


def states(db, name):
    return set(_catalog.imports(db, name)["state"])


def test_an_import_is_counted_recorded_and_completed(lab, db, tree):
    folder, name = tree
    report = lab.import_files(folder, exchange="mexc", notes="first", tags=["a", "b"])
    assert report.sessions == [name]
    assert report.rows == 600
    assert set(report.table()["state"]) == {"imported"}
    assert counts(lab, name) == WHOLE
    session = lab.session(name)
    assert (session.status, session.exchange, session.source) == ("completed", "mexc", "csv")
    assert (session.notes, session.tags) == ("first", ("a", "b"))
    files = _catalog.imports(db, name)
    assert files["state"].to_list() == ["done", "done"]
    assert sorted(files["rows_good"]) == [200, 400]
    assert set(files["rows_bad"]) == {0}
    assert all(path.startswith(f"session_{name}/BTC_USDT/") for path in files["path"])
    assert set(files["timestamp"]) == {session.created_at}


def test_the_same_data_again_changes_nothing(lab, db, tree):
    folder, name = tree
    lab.import_files(folder)
    before, row = everything(db), _catalog.find(db, name)
    for _ in range(2):
        assert set(lab.import_files(folder).table()["state"]) == {"unchanged"}
    assert everything(db) == before
    assert _catalog.find(db, name) == row


def test_what_is_said_of_a_session_is_set_by_a_later_import(lab, db, tree):
    folder, name = tree
    lab.import_files(folder, notes="first", tags=["raw"])
    before = everything(db)
    again = lab.import_files(folder, exchange="kraken", tags=["clean"])
    assert set(again.table()["state"]) == {"updated"}
    session = lab.session(name)
    assert (session.exchange, session.notes, session.tags) == ("kraken", "first", ("raw", "clean"))
    assert session.status == "completed"
    assert lab.sessions(exchange="kraken", text=name).height == 1
    assert everything(db) == before
    assert set(lab.import_files(folder, exchange="kraken").table()["state"]) == {"unchanged"}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"tags": "night"}, r"tags='night' is no list of texts; give tags=\['night'\]"),
        ({"tags": None}, "tags=None is no list of texts"),
        ({"tags": ["a", 7]}, r"tags\[1\]=7 is not text"),
        ({"notes": None}, "notes=None is not text"),
        ({"exchange": 7}, "exchange=7 is not text"),
        ({"session_id": ""}, "'' is not a session id"),
    ],
)
def test_options_that_are_none_are_refused_before_anything_is_read(lab, tree, option, words):
    with pytest.raises(errors.InvalidInput, match=words):
        lab.import_files(tree[0], **option)


def test_a_dry_run_reports_and_writes_nothing(lab, db, tree):
    folder, _ = tree
    before = everything(db)
    report = lab.import_files(folder, dry_run=True)
    assert set(report.table()["state"]) == {"new"}
    assert report.rows == 600
    assert everything(db) == before
    lab.import_files(folder)
    assert set(lab.import_files(folder, dry_run=True).table()["state"]) == {"unchanged"}


def test_an_id_taken_by_other_data_is_refused(lab, db, tree):
    folder, name = tree
    lab.import_files(folder)
    before = everything(db)
    write_session(folder, name, rows=402)
    with pytest.raises(
        errors.SessionExists, match=rf"{name}.*holds other data.*another session_id"
    ):
        lab.import_files(folder)
    assert everything(db) == before | {"csv_imports": before["csv_imports"] + 2}  # why it was not
    assert counts(lab, name) == WHOLE
    lab.import_files(folder / f"session_{name}", session_id=f"{name}_b")
    assert counts(lab, f"{name}_b")["BTC_USDT", "prices"] == 402


PX = {"timestamp": "t", "price": "px", "volume": "vol"}


@pytest.mark.parametrize("state", ["completed", "failed"])
def test_files_that_are_told_other_columns_are_refused(lab, db, tmp_path, unique, state):
    """They would be other rows, and "unchanged" would be a lie."""
    name = unique("columns")
    file = tmp_path / "a.csv"
    rows = (f"2024-01-01T00:00:{n:02}Z,{n + 1},{n + 50}\n" for n in range(20))
    file.write_text("t,px,vol\n" + "".join(rows))
    asked = {"session_id": name, "symbol": "BTC_USDT"}
    lab.import_files(file, columns=PX, **asked)
    before = lab.session(name).prices()
    _catalog.store(db, {**_catalog.find(db, name), "status": state})
    db.wait_visible(SESSIONS)
    other = PX | {"price": "vol", "volume": "px"}
    with pytest.raises(errors.SessionExists, match=r"with columns=.*'price': 'px'") as refused:
        lab.import_files(file, columns=other, **asked)
    assert f"columns={other}" in str(refused.value)
    assert f"lab.delete('{name}'), lab.purge(['{name}'])" in str(refused.value)
    assert lab.session(name).prices().equals(before)
    again = {"completed": "unchanged", "failed": "finished"}[state]
    assert set(lab.import_files(file, columns=PX, **asked).table()["state"]) == {again}


def test_a_file_that_is_told_another_symbol_is_refused(lab, tmp_path, unique):
    name = unique("symbol")
    file = write_lines(tmp_path / "a.csv", PRICES_HEADER, price_lines(20))
    lab.import_files(file, session_id=name, symbol="BTC_USDT")
    words = r"imported with symbol='BTC_USDT', and now symbol='ETH_USDT' is asked for; give them"
    with pytest.raises(errors.SessionExists, match=words):
        lab.import_files(file, session_id=name, symbol="ETH_USDT")
    assert counts(lab, name) == {("BTC_USDT", "prices"): 20}
    again = lab.import_files(file, session_id=name, symbol="BTC_USDT")
    assert set(again.table()["state"]) == {"unchanged"}


def test_a_symbol_beside_the_column_that_says_it_is_refused_then_too(lab, tmp_path, unique):
    name = unique("symbol")
    file = tmp_path / "a.csv"
    file.write_text("timestamp,symbol,price,volume\n2024-01-01T00:00:00Z,BTC_USDT,1,1\n")
    lab.import_files(file, session_id=name)
    with pytest.raises(errors.ImportRefused, match="symbol='ETH_USDT' cannot be given too"):
        lab.import_files(file, session_id=name, symbol="ETH_USDT")


def test_a_file_with_more_bad_lines_than_may_be_now_is_refused(lab, tmp_path, unique):
    name = unique("bad")
    file = write_lines(tmp_path / "a.csv", PRICES_HEADER, [*price_lines(99), "1,2"])
    asked = {"session_id": name, "symbol": "BTC_USDT"}
    assert lab.import_files(file, **asked).quarantined == 1
    assert set(lab.import_files(file, max_bad=0.01, **asked).table()["state"]) == {"unchanged"}
    with pytest.raises(errors.ImportRefused, match=r"1 of 100 lines .* max_bad=0.009 allows"):
        lab.import_files(file, max_bad=0.009, **asked)
    assert counts(lab, name) == {("BTC_USDT", "prices"): 99}


def test_an_id_being_deleted_is_refused(lab, db, tree):
    folder, name = tree
    lab.import_files(folder)
    _catalog.store(db, {**_catalog.find(db, name), "status": "deleting"})
    db.wait_visible(SESSIONS)
    with pytest.raises(errors.SessionNotFound):
        lab.session(name)
    assert name not in lab.sessions(limit=1_000)["session_id"]
    with pytest.raises(errors.SessionExists, match="was deleted"):
        lab.import_files(folder)


def test_nothing_is_written_if_any_session_is_refused(lab, db, tree):
    folder, name = tree
    bad = write_session(folder, f"{name}_x")
    (bad / "BTC_USDT" / "prices.csv").write_text("timestamp,price,volume,quote_volume\n1,2,3\n")
    before = everything(db)
    with pytest.raises(errors.ImportRefused, match="line 2"):
        lab.import_files(folder, strict=True)
    assert everything(db) == before | {"csv_imports": before["csv_imports"] + 1}  # why it was not


def test_a_cancelled_import_is_failed_and_finished_by_the_next(lab, db, tree, monkeypatch):
    monkeypatch.setattr(ingest, "CELLS_IN_BATCH", 50 * len(PRICES.columns))
    folder, name = tree

    def stop(share, text):
        if share > importer.READING + 0.2:
            raise errors.Cancelled(text)

    with pytest.raises(errors.Cancelled):
        lab.import_files(folder, progress=stop)
    session = lab.session(name)
    assert session.status == "failed"
    assert 0 < sum(counts(lab, name).values()) < 600
    assert states(db, name) == {"failed"}
    assert set(lab.import_files(folder, dry_run=True).table()["state"]) == {"unfinished"}
    assert set(lab.import_files(folder).table()["state"]) == {"finished"}
    assert counts(lab, name) == WHOLE
    assert lab.session(name).status == "completed"
    assert states(db, name) == {"done"}


KILLS = 20
REALLY = KILLS if os.environ.get("FXLAB_FAULTS") == "long" else 3
IMPORT = textwrap.dedent(
    """
    import os, signal, sys
    from fxlab.lab import connect
    from fxlab._questdb import ingest
    ingest.CELLS_IN_BATCH = 550
    left, is_sent, post = int(sys.argv[2]), sys.argv[3] == "sent", ingest.LinePost.post
    def watched(self, payload):
        global left
        left -= 1
        if left < 0 and not is_sent:
            os.kill(os.getpid(), signal.SIGKILL)
        post(self, payload)
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    with connect() as lab:
        ingest.LinePost.post = watched
        lab.import_files(sys.argv[1])
    """
)


def run_import(folder, writes=10**6, *, is_sent=False):
    """Import in another process, which is killed at a write, before or after the server has it."""
    where = "sent" if is_sent else "not sent"
    command = [sys.executable, "-c", IMPORT, str(folder), str(writes), where]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)


class Killed(BaseException):
    """Stands for the end of the process: no more is written, whatever catches it."""


@contextlib.contextmanager
def killed_at(writes, *, is_sent=False):
    """Let the writes of this process end, before or after the server has the last one."""
    post, made = ingest.LinePost.post, []

    def watched(self, payload):
        made.append(payload)
        if len(made) <= writes or (is_sent and len(made) == writes + 1):
            post(self, payload)
        if len(made) > writes:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "CELLS_IN_BATCH", 550)
        patch.setattr(ingest.LinePost, "post", watched)
        yield made


LIVED = {("BTC_USDT", "prices"): 200, ("BTC_USDT", "orderbook"): 100}


def tree_with_a_bad_line(folder, name):
    """Write a session whose import writes ticks in many batches, files, events and its row."""
    root = write_session(folder / name, name, rows=200)
    with (root / "BTC_USDT" / "prices.csv").open("a", encoding="utf-8") as file:
        file.write("1,2\n")
    return folder / name


def everything_of(lab, name):
    """Return all that an import leaves of a session, but its id and when."""
    session = lab.session(name)
    files = _catalog.imports(lab._db, name).select("data_type", "rows_good", "rows_bad", "state")
    events = _catalog.events(lab._db, name).select("event", "count", "seq", "timestamp")
    row = (session.status, session.records_collected, session.errors_count)
    return [session.prices(), session.orderbook(), files, events], row, counts(lab, name)


@pytest.fixture(scope="module")
def clean(lab, unique, tmp_path_factory):
    """Import such a session undisturbed; return what it left, and how often it wrote."""
    name = unique("clean")
    folder = tree_with_a_bad_line(tmp_path_factory.mktemp("clean"), name)
    before = everything(lab._db)
    with killed_at(10**6) as made:
        lab.import_files(folder)
    after = everything(lab._db)
    more = {table: rows - before[table] for table, rows in after.items()}
    assert len(made) >= KILLS - 1
    return everything_of(lab, name), len(made), more


def assert_one_clean_import(lab, name, clean):
    (frames, row, found), _, _ = clean
    now_frames, now_row, now_found = everything_of(lab, name)
    assert (now_row, now_found) == (row, found)
    assert found == LIVED
    assert all(now.equals(one) for now, one in zip(now_frames, frames, strict=True))


def points(writes, count):
    """Return moments to be killed at: from before the first write until after the last one."""
    ends = [(number, is_sent) for number in range(writes) for is_sent in (False, True)]
    return [ends[n * (len(ends) - 1) // (count - 1)] for n in range(count)]


def test_an_import_killed_at_twenty_points_is_one_clean_import_after_the_next(
    lab, db, unique, tmp_path, clean
):
    _, writes, more = clean
    seen, before = [], everything(db)
    for number, is_sent in points(writes, KILLS):
        name = unique("killed")
        folder = tree_with_a_bad_line(tmp_path, name)
        with killed_at(number, is_sent=is_sent), pytest.raises(Killed):
            lab.import_files(folder)
        db.wait_visible(SESSIONS, IMPORTS)  # who was to wait until it shows is dead
        seen.extend(set(lab.import_files(folder).table()["state"]))
        assert_one_clean_import(lab, name, clean)
        now = everything(db)
        assert now == {table: before[table] + more[table] for table in more}
        before = now
    assert len(seen) == KILLS
    # Before anything was written, and after all of it was.
    assert (seen[0], seen[-1]) == ("imported", "unchanged")
    assert set(seen[1:-1]) == {"finished"}


@pytest.mark.faults
@pytest.mark.parametrize("point", range(REALLY))
def test_a_killed_import_is_finished_by_the_next(lab, db, unique, tmp_path, clean, point):
    number, is_sent = points(clean[1] - 1, REALLY)[point]  # the last rows, and not yet "completed"
    name = unique("killed")
    folder = tree_with_a_bad_line(tmp_path, name)
    killed = run_import(folder, number, is_sent=is_sent)
    assert (killed.communicate()[1], killed.returncode) == ("", -signal.SIGKILL)
    db.wait_visible(SESSIONS, IMPORTS)  # who was to wait until it shows is dead
    row, began = _catalog.find_any(db, name), _catalog.raw_rows(db, IMPORTS, name)
    assert row is None or row["status"] == "collecting"
    state = "finished" if began else "imported"  # or killed before the first row was written
    assert set(lab.import_files(folder).table()["state"]) == {state}
    assert_one_clean_import(lab, name, clean)
    assert [path.name for path in (lab.settings.home / "spool").iterdir()] == ["lock"]


def test_imports_at_once_are_one(lab, db, tree):
    folder, name = tree
    running = [run_import(folder) for _ in range(3)]
    outcomes = [(process.communicate()[1], process.returncode) for process in running]
    assert [code for _, code in outcomes] == [0, 0, 0], outcomes
    assert counts(lab, name) == WHOLE
    assert lab.session(name).status == "completed"
    assert db.execute(f"select count() from csv_imports where session_id = '{name}'") == [[2]]  # noqa: S608


def test_a_catalogue_row_lost_in_the_middle_is_made_again(lab, db, tree):
    """The files were recorded and the process ended before the session's row."""
    folder, name = tree
    draft = draft_of(folder, name)
    importer._record_files(db, draft, "started")
    db.wait_visible(IMPORTS)
    assert set(lab.import_files(folder).table()["state"]) == {"finished"}
    assert counts(lab, name) == WHOLE


def draft_of(folder, name):
    from fxlab.collect._files import discovery

    (session,), _ = discovery.find_tree_sessions(folder / f"session_{name}")
    return session.read()


def test_rows_that_were_not_sent_fail_the_import(lab, db, tree):
    """Somebody else's rows under the id: the counts differ, and that is not "completed"."""
    folder, name = tree
    draft = draft_of(folder, name)
    (_, frame), *_ = draft.frames()
    alien = frame.head(1).with_columns(seq=pl.lit(10**9, pl.Int64))
    db.write(PRICES, alien)
    db.wait_visible(PRICES)
    with pytest.raises(errors.WriteFailed, match=r"400 prices rows of BTC_USDT were sent and 401"):
        lab.import_files(folder)
    assert lab.session(name).status == "failed"


def test_a_completed_session_that_lost_rows_is_mended_by_importing_again(lab, db, unique, tmp_path):
    """A partition dropped by hand: the same files bring the rows back."""
    name = unique("mend")
    lines = [line.replace("17231", "16231", 1) for line in price_lines(50)]
    write_lines(tmp_path / f"session_{name}" / "OLD_USDT" / "prices.csv", PRICES_HEADER, lines)
    lab.import_files(tmp_path)
    first = lab.session(name).started
    db.execute(f"alter table tick_prices drop partition list '{first:%Y-%m-%dT%H}'")
    db.wait_visible(PRICES)
    assert lab.session(name).counts().is_empty()
    assert set(lab.import_files(tmp_path).table()["state"]) == {"finished"}
    assert counts(lab, name) == {("OLD_USDT", "prices"): 50}


def test_rows_that_do_not_fit_into_memory_wait_on_disk(lab, tree, monkeypatch):
    waited = []
    monkeypatch.setattr(quarantine.Room, "takes", lambda *_: False)
    from_disk = quarantine._from_disk
    monkeypatch.setattr(
        quarantine, "_from_disk", lambda path: waited.append(path) or from_disk(path)
    )
    folder, name = tree
    lab.import_files(folder, batch_size=100)
    assert counts(lab, name) == WHOLE
    assert waited
    assert not any(path.exists() or path.parent.exists() for path in waited)


def test_a_file_that_changes_while_it_is_read_is_refused(tree):
    (file,) = tree[0].rglob("BTC_USDT/prices.csv")
    with pytest.raises(errors.ImportRefused, match="changed while it was read"):
        read_file(file, "BTC_USDT", progress=lambda *_: os.utime(file, ns=(0, 0)))


def test_progress_runs_from_reading_to_the_end(lab, tree):
    heard = []
    lab.import_files(tree[0], progress=lambda share, text: heard.append((share, text)))
    shares = [share for share, _ in heard]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    (checked,) = [share for share, text in heard if "600 rows checked" in text]
    assert checked == importer.READING


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl", "a.parquet"])
def test_reading_one_file_tells_rows_a_second(lab, tmp_path, unique, monkeypatch, name):
    """As of one of 20 GB; what is left is told in seconds, which is what test_progress looks at."""
    monkeypatch.setattr(csv, "_FIRST_BYTES", 20_000)
    noon = datetime(2025, 1, 1, 12, tzinfo=UTC)
    frame = pl.DataFrame(
        {
            "timestamp": pl.datetime_range(
                noon, noon + timedelta(seconds=19_999), "1s", eager=True
            ),
            "symbol": "BTC_USDT",
            "price": [1.0 + n / 7 for n in range(20_000)],
            "volume": 1.0,
        }
    )
    file = tmp_path / name
    text = frame.with_columns(pl.col("timestamp").dt.epoch("s"))
    if name.endswith(".parquet"):
        frame.write_parquet(file)
    elif name.endswith(".jsonl"):
        text.write_ndjson(file)
    else:
        written = text.write_csv().encode()
        file.write_bytes(gzip.compress(written) if name.endswith(".gz") else written)
    heard = []
    asked = {"batch_size": 500, "dry_run": True}
    lab.import_files(
        file,
        session_id=unique("pace"),
        progress=lambda share, text: heard.append((share, text)),
        **asked,
    )
    reading = [text for share, text in heard if share < 1.0]
    assert any(re.match(r"read, [\d,]+ rows/s", text) for text in reading)


def test_rows_that_run_backward_are_stored_and_read_in_order(lab, unique, tmp_path):
    name = unique("backward")
    lines = price_lines(60)
    lines[10], lines[40] = lines[40], lines[10]
    write_lines(tmp_path / f"session_{name}" / "BTC" / "prices.csv", PRICES_HEADER, lines)
    report = lab.import_files(tmp_path)
    assert report.table()["backward"].to_list() == [2]
    found = lab.session(name).prices(columns=["timestamp", "seq"])
    assert found.height == 60
    assert found.equals(found.sort("timestamp", "seq"))
    assert sorted(found["seq"]) == list(range(60))


def test_the_report_tells_in_text_and_html(lab, tree):
    folder, name = tree
    (folder / "notes<b>.txt").write_text("x")
    report = lab.import_files(folder, dry_run=True)
    assert "sessions=1 files=2 (2 new), 1 skipped rows=600" in repr(report)
    page = report._repr_html_()
    assert "notes&lt;b&gt;.txt" in page
    assert name in page
    assert report.skipped == (str(folder / "notes<b>.txt"),)
    assert report.table().columns[:8] == [
        "session_id", "symbol", "file", "kind", "rows", "first", "last", "backward",
    ]  # fmt: skip


def test_frames_are_imported_like_files(lab, unique):
    name = unique("frame")
    frame = pl.DataFrame(
        {"timestamp": [datetime(2024, 8, 8, 12, tzinfo=UTC)] * 3, "symbol": ["A", "B", "A"],
         "price": [1.0, 2, 3], "qty": [1.0, 1, 1]}
    )  # fmt: skip
    report = lab.import_frame(frame, "prices", session_id=name, source="live", notes="<b>")
    assert report.table()["file"].to_list() == ["frame/prices"] * 2
    assert counts(lab, name) == {("A", "prices"): 2, ("B", "prices"): 1}
    assert lab.session(name).source == "live"
    again = lab.import_frame(frame.clone(), "prices", session_id=name, source="live")
    assert set(again.table()["state"]) == {"unchanged"}
    with pytest.raises(errors.SessionExists):
        lab.import_frame(frame.head(2), "prices", session_id=name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "price"}, "not a kind; did you mean 'prices'"),
        ({"kind": "orderbook"}, "its columns are those of prices"),
        ({"source": "magic"}, "not a source; choose one of: live"),
        ({"price": 0.0}, r"the prices frame, row 1: price=0\.0"),
    ],
)
def test_a_frame_that_breaks_a_rule_is_refused(lab, unique, change, words):
    frame = pl.DataFrame(
        {"timestamp": [1_723_161_255.5], "symbol": ["A"], "price": [1.0], "qty": [1.0]}
    )
    frame = frame.with_columns(price=pl.lit(change.get("price", 1.0)))
    with pytest.raises(errors.ImportRefused, match=words):
        lab.import_frame(
            frame,
            change.get("kind", "prices"),
            session_id=unique(),
            source=change.get("source", "synthetic"),
        )


def test_a_failure_is_marked_even_if_it_is_not_ours(lab, db, tree, monkeypatch):
    """Whatever stops the writing, the session says so."""
    folder, name = tree

    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(importer, "_write_ticks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.import_files(folder)
    assert lab.session(name).status == "failed"


def test_a_draft_of_the_same_rows_lands_on_the_same_rows(db, unique):
    """Two processes that know nothing of each other write the same identities."""
    name = unique("twice")
    frame = pl.DataFrame({"timestamp": [1_723_161_255.5] * 4, "price": [1.0] * 4, "qty": [1.0] * 4})
    for _ in range(2):
        draft = ImportedSession(
            name,
            tuple(parts_of(frame, Origin("f", "0", "csv"), "A", STRICT.of(SourceLocation("f")))),
        )
        for table, rows in draft.frames():
            db.write(table, rows)
    db.wait_visible(PRICES, ORDERBOOK)
    assert db.execute(f"select count() from tick_prices where session_id = '{name}'") == [[4]]  # noqa: S608
    assert draft.first + timedelta(0) == draft.last


@pytest.mark.parametrize("workers", [1, 3])
def test_progress_of_several_sessions_tells_rows_a_second_of_all(
    lab, tmp_path, unique, monkeypatch, workers
):
    """While sessions are read side by side, too: here one waits until that has been told."""
    monkeypatch.setattr(importer, "_TOLD_EVERY", 0.001)
    names = [unique(f"pace{number}") for number in range(3)]
    for name in names:
        write_session(tmp_path, name, rows=400)
    heard, told, read = [], threading.Event(), TreeSession.read

    def slow(source, how, progress):
        progress(0.5, "")
        if workers > 1 and source.session_id == names[0]:
            assert told.wait(60)
        return read(source, how, progress)

    def listen(share, text):
        heard.append((share, text))
        if " of 3 sessions checked, " in text:
            told.set()

    monkeypatch.setattr(TreeSession, "read", slow)
    lab.import_files(tmp_path, workers=workers, progress=listen)
    shares = [share for share, _ in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert any(" of 3 sessions checked, " in text for _, text in heard) is (workers > 1)
    for name in names:
        (text,) = (text for _, text in heard if text.startswith(f"{name}: 600 rows checked"))
        assert re.search(r", [\d,]+ rows/s", text)
    stored = [text for _, text in heard if "rows stored" in text]
    assert all(re.match(r"[\d,]+ of 1,800 rows stored, [\d,]+ rows/s", text) for text in stored)
    assert stored[-1].startswith("1,800 of")


@pytest.mark.parametrize("workers", [1, 3])
def test_good_sessions_are_stored_where_the_import_is_to_keep_going(lab, tmp_path, unique, workers):
    folder = tmp_path / unique("going")
    names = {letter: f"{folder.name}_{letter}" for letter in "abcde"}
    for letter in "ace":
        write_lines(folder / f"{letter}.csv", PRICES_HEADER, price_lines(20))
    write_lines(folder / "b.csv", PRICES_HEADER, ["1,2"] * 20)
    (folder / "d.zip").write_bytes(b"PK, and no archive")
    asked = {"symbol": "BTC_USDT", "workers": workers}
    lab.import_files(folder / "e.csv", **asked)
    write_lines(folder / "e.csv", PRICES_HEADER, price_lines(30))
    with pytest.raises(errors.ImportRefused):
        lab.import_files(folder, **asked)
    told = lab.import_files(folder, keep_going=True, dry_run=True, **asked)
    assert (told.sessions, len(told.refused)) == ([names["a"], names["c"]], 3)
    report = lab.import_files(folder, keep_going=True, **asked)
    assert report.sessions == [names["a"], names["c"]]
    assert set(report.table()["state"]) == {"imported"}
    assert report.refused.keys() == {names[letter] for letter in "bde"}
    assert "max_bad=0.01 allows" in report.refused[names["b"]]
    assert "no zip archive" in report.refused[names["d"]]
    assert "e.csv has changed since" in report.refused[names["e"]]
    assert "3 sessions refused" in repr(report)
    assert f"{names['b']} is refused: " in repr(report)
    assert report.refused[names["d"]][:20] in report._repr_html_()
    assert lab.imports(names["b"], 1)["reason"].to_list() == [report.refused[names["b"]]]
    assert [lab.session(names[letter]).prices_count for letter in "ace"] == [20, 20, 20]
    for file in ("b.csv", "d.zip", "e.csv"):  # one session by itself
        alone = lab.import_files(folder / file, keep_going=True, **asked)
        assert (alone.sessions, list(alone.refused)) == ([], [names[file[0]]])
    with pytest.raises(errors.ImportRefused, match="no zip archive"):  # one session of all files
        lab.import_files(folder, session_id=unique("one"), keep_going=True, **asked)


# ---- the status table ------------------------------------------------------------------------


def told(lab, name, *columns):
    return lab.imports(name).select(columns).rows()


def test_a_refused_file_is_in_the_status_table_with_the_reason_and_nothing_else_is(
    lab, db, tmp_path, unique
):
    name = unique("refused")
    good = write_lines(tmp_path / "a.csv", PRICES_HEADER, price_lines(20))
    bad = write_lines(tmp_path / "b.csv", PRICES_HEADER, ["1,2"] * 20)
    before = everything(db)
    with pytest.raises(errors.ImportRefused) as refused:
        lab.import_files([good, bad], session_id=name, symbol="BTC_USDT")
    assert everything(db) == before | {"csv_imports": before["csv_imports"] + 1}
    (row,) = lab.imports(name).iter_rows(named=True)
    assert (row["state"], row["reason"]) == ("refused", str(refused.value))
    assert row["path"].endswith("/b.csv")
    assert (row["size_bytes"], len(row["sha256"])) == (bad.stat().st_size, 64)
    assert (row["rows_good"], row["rows_bad"]) == (None, None)
    assert abs(row["updated_at"] - datetime.now(UTC)) < timedelta(hours=1)
    bad.unlink()
    assert set(lab.import_files(good, session_id=name, symbol="BTC_USDT").table()["state"]) == {
        "imported"
    }
    assert told(lab, name, "state", "rows_good") == [("done", 20), ("refused", None)]
    assert lab.session(name).imports()["state"].to_list() == ["done"]
    assert set(lab.import_files(good, session_id=name, symbol="BTC_USDT").table()["state"]) == {
        "unchanged"
    }


def test_a_dry_run_leaves_no_row_of_what_it_refuses(lab, db, tmp_path, unique):
    bad = write_lines(tmp_path / "b.csv", PRICES_HEADER, ["1,2"] * 20)
    before = everything(db)
    with pytest.raises(errors.ImportRefused):
        lab.import_files(bad, session_id=unique("dry"), symbol="BTC_USDT", dry_run=True)
    assert everything(db) == before


def test_other_data_under_an_id_is_refused_in_the_status_table(lab, db, tree, tmp_path):
    folder, name = tree
    lab.import_files(folder)
    other = write_lines(tmp_path / "other.csv", PRICES_HEADER, price_lines(7))
    with pytest.raises(errors.SessionExists):
        lab.import_files(other, session_id=name, symbol="BTC_USDT")
    states_now = [(Path(path).name, state) for path, state in told(lab, name, "path", "state")]
    assert states_now[0] == ("other.csv", "refused")
    assert sorted(states_now[1:]) == [("orderbook.csv", "done"), ("prices.csv", "done")]
    assert states(db, name) == {"done"}
    assert set(lab.import_files(folder).table()["state"]) == {"unchanged"}


def test_an_import_that_failed_says_so_of_its_files_until_it_is_finished(
    lab, db, tree, monkeypatch
):
    folder, name = tree

    def broken(*_):
        raise errors.WriteFailed("the disk is full; make room")

    with monkeypatch.context() as patch:
        patch.setattr(importer, "_write_ticks", broken)
        with pytest.raises(errors.WriteFailed):
            lab.import_files(folder)
    assert set(told(lab, name, "state", "reason")) == {("failed", "the disk is full; make room")}
    assert states(db, name) == {"failed"}
    assert set(lab.import_files(folder).table()["state"]) == {"finished"}
    assert set(told(lab, name, "state", "reason")) == {("done", None)}


def test_imports_are_listed_newest_first_one_row_a_file(lab, tmp_path, unique):
    name = unique("listed")
    header = f"symbol,{PRICES_HEADER}"
    lines = [f"{symbol},{line}" for symbol in "AB" for line in price_lines(30)]
    file = write_lines(tmp_path / "two.csv", header, lines)
    lab.import_files(file, session_id=name)
    assert told(lab, name, "state", "rows_good", "rows_bad") == [("done", 60, 0)]
    newest = lab.imports(limit=3)
    assert newest["session_id"][0] == name
    assert newest["updated_at"].is_sorted(descending=True)
    assert newest.height <= 3
    assert lab.imports(state="done", limit=1)["session_id"].to_list() == [name]
    with pytest.raises(errors.InvalidParameter, match="state of an import"):
        lab.imports(state="finished")
    with pytest.raises(errors.InvalidIdentifier):
        lab.imports("a'; drop table x")
