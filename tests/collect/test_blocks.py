"""Tick files block by block: any size of block, any packing, nothing unsafe, bounded memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import stat
import subprocess
import sys
import textwrap
import zipfile
from collections import Counter
from datetime import UTC, datetime, timedelta

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from import_rows import rows_of_part
from test_import_identity import HEADER, damaged, trades, write

from fxlab import errors
from fxlab._questdb import sql
from fxlab.collect._files import blocks, csv, quarantine
from fxlab.collect._files.discovery import find_sources, read_file
from fxlab.collect._files.quarantine import STRICT, ReadOptions, lent
from fxlab.collect._files.session_data import ImportedSession
from fxlab.schema import ORDERBOOK, PRICES, SESSIONS, UTC_MICROS

LONG = os.environ.get("FXLAB_FAULTS") == "long"
LINES = trades(range(1, 201))
TABLE = pl.read_csv(io.StringIO("\n".join((HEADER, *LINES))), infer_schema=False)


def packed(folder, suffix):
    """Write the same rows as a file of some kind."""
    text = TABLE.write_csv().encode()
    jsonl = b"".join(json.dumps(row).encode() + b"\n" for row in TABLE.iter_rows(named=True))
    typed = TABLE.with_columns(pl.col("timestamp", "price", "qty").cast(pl.Float64))
    data = jsonl if "json" in suffix else text
    file = folder / f"ticks{suffix}"
    if suffix.endswith(".gz"):
        file.write_bytes(gzip.compress(data))
    elif suffix.endswith(".zst"):
        with pa.CompressedOutputStream(str(file), "zstd") as stream:
            stream.write(data)
    elif suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inside/ticks.csv", text)
            archive.writestr("README.txt", "about them")
    elif suffix == ".parquet":
        typed.write_parquet(file, row_group_size=30)
    elif suffix in blocks.ARROW:
        typed.write_ipc(file, record_batch_size=30)
    else:
        file.write_bytes(data)
    return file


@pytest.mark.parametrize("suffix", blocks.SUFFIXES)
def test_the_same_rows_come_from_every_kind_of_file(tmp_path, suffix):
    (wanted,) = read_file(write(tmp_path / "a.csv", HEADER, LINES))
    (source,), others = find_sources([packed(tmp_path, suffix)])
    (part,) = source.read(ReadOptions(batch_size=40)).parts
    assert rows_of_part(part).equals(rows_of_part(wanted))
    assert part.known == wanted.known
    assert [name.rpartition("/")[2] for name in others] == ["README.txt"] * (suffix == ".zip")
    assert source.digests() == {part.path: part.origin.sha256}


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.zst", ".zip", ".arrow"])
def test_a_damaged_packing_is_refused(tmp_path, suffix):
    file = packed(tmp_path, suffix)
    whole = file.read_bytes()
    for size in (len(whole) // 2, 10, 1):
        file.write_bytes(whole[:size])
        with pytest.raises(errors.ImportRefused, match=r"copy (?:the file|it) again"):
            (find_sources([file])[0])[0].read(STRICT)


KINDS = (".parquet", ".arrow", ".zstd.arrow", ".csv.gz", ".csv.zst", ".zip")
ROWS = 200


def good_bytes(folder, kind):
    start = datetime(2024, 8, 8, tzinfo=UTC)
    numbers = range(ROWS)
    frame = pl.DataFrame(
        {
            "timestamp": [start + timedelta(seconds=n) for n in numbers],
            "symbol": ["A_USD" if n % 3 else "B_USD" for n in numbers],
            "trade_id": [str(n) for n in numbers],
            "price": [100.0 + n % 7 for n in numbers],
            "volume": [1.0] * ROWS,
        }
    )
    file = folder / f"good{kind}"
    if kind == ".parquet":
        frame.write_parquet(file)
    elif kind.endswith(".arrow"):
        codec = "zstd" if "zstd" in kind else "uncompressed"
        frame.write_ipc(file, compression=codec, compat_level=pl.CompatLevel.oldest())
    else:
        text = frame.write_csv().encode()
        if kind == ".zip":
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as held:
                held.writestr("ticks.csv", text)
        else:
            packed = gzip.compress(text) if kind == ".csv.gz" else pa.compress(text, "zstd", True)
            file.write_bytes(packed)
    return file.read_bytes()


def mutated(data, rng):
    """Return bytes that a bad copy would have: cut, some of them flipped, lost or zero."""
    made, place = bytearray(data), rng.randrange(len(data))
    what = rng.choice(["cut", "flip", "flip", "many", "lost", "zero"])
    if what == "cut":
        del made[place:]
    elif what == "flip":
        made[place] ^= 1 << rng.randrange(8)
    elif what == "many":
        for _ in range(rng.randint(2, 40)):
            made[rng.randrange(len(made))] = rng.randrange(256)
    elif what == "lost":
        del made[place : place + rng.randint(1, 200)]
    else:
        made[place : place + 64] = bytes(len(made[place : place + 64]))
    return bytes(made)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_binary_file_is_read_or_refused_by_name_and_never_a_traceback(tmp_path, kind):
    good, outcomes = good_bytes(tmp_path, kind), Counter()
    for seed in range(150):
        file = tmp_path / f"damaged{kind}"
        file.write_bytes(mutated(good, random.Random(seed)))
        found = read_or_refused(file)
        if isinstance(found, int):
            outcomes["read"] += 1  # a flipped bit of a price is a price
            assert 0 < found <= ROWS
        else:
            outcomes["refused"] += 1
            assert file.name in found, seed
            assert len(found) > len(file.name) + 20, seed
    assert outcomes["refused"] > 60


def read_or_refused(file):
    """Return how many rows a file has, or why it is refused."""
    try:
        (source,), _ = find_sources([file], "x")
        return source.read(ReadOptions(max_bad=0.01)).rows
    except errors.ImportRefused as refused:
        return str(refused)


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_damaged_binary_file_nothing_is_stored(lab, db, tmp_path, unique, kind):
    name, file = unique("damaged"), tmp_path / f"cut{kind}"
    good = good_bytes(tmp_path, kind)
    file.write_bytes(good[: 2 * len(good) // 3])
    with pytest.raises(errors.ImportRefused, match=f"cut.*{kind}"):
        lab.import_files(file, session_id=name)
    db.wait_visible(SESSIONS, PRICES, ORDERBOOK)
    for table in (SESSIONS, PRICES, ORDERBOOK):
        assert db.execute(sql.count_scope(sql.Scope(table, name))) == [[0]]
    assert lab.imports(name)["state"].to_list() in (["refused"], [])  # of a zip, no file was opened


@pytest.mark.parametrize("kind", [".parquet", ".arrow"])
@pytest.mark.parametrize("time", [2**62, -(2**62), 10**18, -(10**17)])
def test_a_time_that_no_calendar_has_is_a_bad_row(tmp_path, kind, time):
    rows = 300
    times = [1_723_161_255_000_000 + n for n in range(rows)]
    times[7] = time
    frame = pl.DataFrame({"timestamp": times, "price": 1.0, "volume": 1.0}).with_columns(
        pl.col("timestamp").cast(pl.Datetime("us", "UTC")), symbol=pl.lit("A_USD")
    )
    file = tmp_path / f"odd{kind}"
    if kind == ".parquet":
        frame.write_parquet(file)
    else:
        frame.write_ipc(file, compat_level=pl.CompatLevel.oldest())
    (part,) = read_file(file, None, ReadOptions(max_bad=0.01))
    assert (part.rows, part.bad) == (rows - 1, 1)
    with pytest.raises(errors.ImportRefused, match=f"timestamp='{time} us since 1970', but"):
        read_file(file)


def archive(folder, *names, mode=0o644, flags=0):
    file = folder / "a.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            made.writestr(entry, "\n".join((HEADER, *LINES, "")))
    if flags:  # the flag of encryption, in the local header and in the directory
        data = bytearray(file.read_bytes())
        data[6] |= flags
        data[data.index(b"PK\x01\x02") + 8] |= flags
        file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["../a.csv"], {}, "leads out of the archive"),
        (["x/../../a.csv"], {}, "leads out of the archive"),
        (["/etc/a.csv"], {}, "leads out of the archive"),
        (["..\\a.csv"], {}, "leads out of the archive"),
        (["C:\\a.csv"], {}, "leads out of the archive"),
        (["."], {}, "is no name"),
        (["a.csv"], {"mode": stat.S_IFLNK | 0o777}, "is a link"),
        (["a.csv"], {"flags": 1}, "is encrypted"),
        (["a.parquet"], {}, "is packed already"),
        (["notes.md"], {}, "holds no .csv"),
    ],
)
def test_an_archive_that_is_none_of_ticks_is_refused(tmp_path, names, options, words):
    with pytest.raises(errors.ImportRefused, match=words):
        find_sources([archive(tmp_path, *names, **options)])


def test_each_member_is_a_file(tmp_path):
    found, _ = find_sources([archive(tmp_path, "x/a.csv", "x/b.csv")])
    assert [source.session_id for source in found] == ["a.zip_x_a", "a.zip_x_b"]
    (both,), _ = find_sources([archive(tmp_path, "x/a.csv", "x/b.csv")], "both")
    draft = both.read(STRICT)
    assert draft.rows == 200, "the members hold the same rows under the same ids"
    assert "200 rows are in another file too, under the same ids: stored once" in str(
        [part.notes for part in draft.parts]
    )


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.zst", ".zip"])
def test_what_unpacks_to_far_too_much_is_refused(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(blocks, "SMALL", 2**20)
    text = (HEADER + "\n" + "0" * 900_000 + "\n").encode() * 20
    file = tmp_path / f"bomb{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("a.csv", text)
    else:
        is_gzip = suffix == ".csv.gz"
        file.write_bytes(gzip.compress(text) if is_gzip else pa.compress(text, "zstd", True))
    with pytest.raises(errors.ImportRefused, match=r"more than 200 times as much.*unpack it your"):
        (find_sources([file])[0])[0].read(ReadOptions(max_bad=1.0))


def test_many_members_that_unpack_to_far_too_much_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "SMALL", 2**20)
    file = tmp_path / "bomb.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for number in range(4):
            made.writestr(f"{number}.csv", "0" * 900_000)
    with pytest.raises(errors.ImportRefused, match=r"unpack to 3,600,000"):
        find_sources([file])


def test_ten_thousand_columns_are_refused(tmp_path):
    names = ",".join(f"c{n}" for n in range(10_000))
    file = write(tmp_path / "a.csv", f"timestamp,{names}", [])
    with pytest.raises(errors.ImportRefused, match="10,001 columns, and 500 is the most"):
        read_file(file)


def test_lines_of_json_that_are_no_rows_are_quarantined(tmp_path):
    row = {"timestamp": "2024-08-08T00:00:00Z", "symbol": "A", "price": 1.25, "qty": 1}
    odd = [
        "{",
        "[1]",
        '{"price": {}}',
        '{"timestamp": 1, "other": 2}',
        '{"price": NaN}',
        "[" * 9999,
    ]
    lines = [json.dumps(row)] * 20 + odd + [json.dumps(row)] * 20
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(lines) + "\n")
    (part,) = read_file(file, None, ReadOptions(max_bad=0.5))
    assert (part.rows, part.bad, part.quarantine.rows) == (40, len(odd), len(lines))
    assert [one.text for one in part.quarantine.bad] == [line[:10_000] for line in odd]
    with pytest.raises(errors.ImportRefused, match="line 21"):
        read_file(file)


# ---- blocks --------------------------------------------------------------------------------


def outcome(file, options):
    """Return all that reading a file gives, or the refusal."""
    try:
        parts = read_file(file, None, options)
    except errors.ImportRefused as error:
        return str(error)
    bad = [one for part in parts if part.quarantine for one in part.quarantine.bad]
    return [(one.row, one.rule, one.text) for one in bad], [
        (
            *(part.symbol, part.rows, part.known.first, part.known.last, part.known.decimals),
            *(part.key, part.backward, part.notes, rows_of_part(part).to_dicts()),
        )
        for part in parts
    ]


@pytest.mark.parametrize("seed", range(60))
def test_blocks_of_any_size_give_the_same(tmp_path, seed, monkeypatch):
    draw = random.Random(seed)
    ids = draw.choice(
        [list(range(1, 41)), draw.sample(range(1, 99), 40), [f"x{n % 37}" for n in range(40)]]
    )
    lines = trades(ids)
    for _ in range(draw.randint(0, 3)):
        lines[draw.randrange(40)] = draw.choice(["1,2", "", "x,BTC,1,1,900", lines[3]])
    file = write(tmp_path / "a.csv", HEADER, lines + [""] * draw.randint(0, 3))
    if draw.random() < 0.3:
        file.write_bytes(damaged(draw, file.read_bytes()))
    whole = outcome(file, ReadOptions(max_bad=1.0))
    monkeypatch.setattr(csv, "_FIRST_BYTES", draw.randint(20, 300))
    monkeypatch.setattr(csv, "_MOST_BYTES", 100)
    monkeypatch.setattr(quarantine, "BUCKET_ROWS", draw.randint(3, 30))
    monkeypatch.setattr(quarantine, "_SAMPLE", 3)
    with lent(tmp_path / "spool") as room:
        room.budget = draw.choice([0, 10**9])
        cut = outcome(file, ReadOptions(max_bad=1.0, room=room))
    if isinstance(whole, str):
        assert isinstance(cut, str)  # of several reasons the first in the file may be told
    else:
        assert cut == whole
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["lock"]


def test_the_folder_of_a_killed_import_is_removed_and_that_of_a_running_one_is_not(tmp_path):
    left = tmp_path / "import-dead"
    left.mkdir()
    (left / "00000001.arrow").write_bytes(b"x")
    with lent(tmp_path) as first:
        assert not left.exists()
        with lent(tmp_path) as second:
            assert first.folder.exists()
            assert second.folder != first.folder
    assert not first.folder.exists()


SECONDS = st.integers(631_152_000_000_000, 4_102_444_799_999_999)
FRAMES = st.lists(
    st.tuples(
        SECONDS,
        st.floats(1e-9, 1e9),
        st.floats(0, 1e12),
        st.sampled_from(["A", "BTC_USDT"]),
        st.sampled_from(["buy", "sell", None]),
    ),
    min_size=1,
    max_size=30,
)


@settings(deadline=None, max_examples=60)
@given(FRAMES, st.sampled_from([".csv", ".parquet", ".arrow", ".csv.gz", ".jsonl"]))
def test_a_frame_that_is_written_and_read_is_the_same(tmp_path_factory, rows, suffix):
    folder = tmp_path_factory.mktemp("trip")
    frame = pl.DataFrame(
        rows,
        schema={
            "timestamp": pl.Int64,
            "price": pl.Float64,
            "volume": pl.Float64,
            "symbol": pl.String,
            "side": pl.String,
        },
        orient="row",
    ).with_columns(
        pl.col("timestamp").cast(UTC_MICROS),
        trade_id=pl.int_range(1, pl.len() + 1).cast(pl.String),
    )
    file = folder / f"a{suffix}"
    iso = frame.with_columns(pl.col("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    if suffix == ".parquet":
        frame.write_parquet(file)
    elif suffix == ".arrow":
        frame.write_ipc(file)
    elif suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in iso.iter_rows(named=True)))
    else:
        text = iso.write_csv().encode()
        file.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
    parts = read_file(file)
    found = pl.concat(rows_of_part(part).select(frame.columns) for part in parts)
    assert found.sort(pl.col("trade_id").cast(int)).equals(frame)


# ---- several files -------------------------------------------------------------------------


def test_rows_that_two_files_share_are_stored_once_and_told(lab, tmp_path, unique):
    name = unique("seam")
    one = write(tmp_path / "a.csv", HEADER, LINES[:120])
    two = write(tmp_path / "b.csv", HEADER, LINES[100:])
    report = lab.import_files([one, two], session_id=name)
    assert (report.rows, lab.session(name).records_collected) == (220, 200)
    assert "20 rows are in another file too, under the same ids: stored once" in str(report.notes)
    assert lab.session(name).prices()["seq"].to_list() == list(range(1, 201))
    again = lab.import_files([one, two], session_id=name)
    assert set(again.table()["state"]) == {"unchanged"}


def test_shared_rows_are_found_whatever_the_size_of_buckets(tmp_path, monkeypatch):
    draw = random.Random(3)
    lines = draw.sample(LINES, len(LINES))
    files = [write(tmp_path / f"{n}.csv", HEADER, lines[n * 40 : n * 40 + 60]) for n in range(5)]
    for rows in (10, 33, 10**6):
        monkeypatch.setattr(quarantine, "BUCKET_ROWS", rows)
        monkeypatch.setattr(quarantine, "_SAMPLE", 7)
        with lent(tmp_path / "spool") as room:
            how = ReadOptions(strict=True, room=room)
            parts = [part for file in files for part in read_file(file, None, how)]
            draft = ImportedSession("s", tuple(parts), room)
            assert draft.rows == 200
    odd = write(tmp_path / "odd.csv", HEADER, [lines[0].replace(",BTC,", ",BTC,9")])
    with pytest.raises(errors.ImportRefused, match="with different rows"):
        ImportedSession("s", tuple(part for file in (files[0], odd) for part in read_file(file)))


# ---- memory --------------------------------------------------------------------------------

READ = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from fxlab import errors
    from fxlab.collect._files.discovery import read_file
    from fxlab.collect._files.quarantine import ReadOptions, lent
    def most():
        # ru_maxrss would hold that of the process that started this one.
        told = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
        return int(told) * 1024
    spool, *files = map(Path, sys.argv[1:])
    for file in files:
        before = most()
        with lent(spool) as room:
            room.budget = 64 * 2**20
            try:
                parts = read_file(file, None, ReadOptions(room=room, batch_size=100_000))
                rows, bad = (sum(getattr(part, it) for part in parts) for it in ("rows", "bad"))
                told = f"{rows} {bad}"
            except errors.ImportRefused as refused:
                told = str(refused)
        print(most() - before, most(), told, sep="\\t")
    """
)


def read_elsewhere(folder, *files):
    """Read files in a process; return of each what more memory it took, the most, and what came."""
    words = [sys.executable, "-c", READ, str(folder / "spool"), *map(str, files)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = [line.split("\t") for line in told.splitlines()]
    return [(int(more), int(most), outcome) for more, most, outcome in found]


HUGE = 2**30 if LONG else 300 * 2**20
"""Bytes of a file; what unpacks to more than 256 MB is looked at for being a bomb."""
LONG_LINES = HUGE // 2**21


def with_one_endless_line(folder):
    """Write good rows, and after them a line that has no end: zeros that take no room on disk."""
    file = write(folder / "endless.csv", HEADER, LINES)
    os.truncate(file, HUGE)
    return file


def with_nothing_but_a_line(folder):
    file = folder / "alone.csv"
    file.write_text("timestamp,price")
    os.truncate(file, HUGE)
    return file


def with_lines_of_a_megabyte(folder):
    """Write good rows with lines of a megabyte among them, just too long, and just not."""
    file = folder / "long.csv"
    rows = "\n".join(trades(range(300 * LONG_LINES))) + "\n"
    with file.open("w", encoding="utf-8") as text:
        text.write(f"{HEADER}\n{rows}")
        for number in range(LONG_LINES):
            text.write("1" * (1_000_001 - number % 2) + "\n")
    return file


def with_a_bomb(folder):
    file = folder / "bomb.csv.zst"
    with pa.CompressedOutputStream(str(file), "zstd") as stream:
        stream.write("\n".join((HEADER, *LINES, "")).encode())
        for _ in range(HUGE // 2**20):
            stream.write(bytes(2**20))
    return file


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the most memory of a process")
def test_hostile_lines_and_bombs_are_read_in_bounded_memory(tmp_path):
    """A reader that held a file or a line whole would take several times its size."""
    makers = {
        with_one_endless_line: "200 1",
        with_nothing_but_a_line: "alone.csv",
        with_lines_of_a_megabyte: f"{300 * LONG_LINES} {LONG_LINES}",
        with_a_bomb: "more than 200 times as much",
    }
    files = [make(tmp_path) for make in makers]
    found = read_elsewhere(tmp_path, *files)
    for file, wanted, (more, most, outcome) in zip(files, makers.values(), found, strict=True):
        assert wanted in outcome, (file.name, outcome)
        assert more < 2**28 < HUGE, (file.name, more)
        assert most < 2**30, (file.name, most)
    for file in files:
        file.unlink()


ROWS_OF_A_GIGABYTE = 20_000_000


def with_so_many_rows(folder, count):
    """Write trades, some 60 bytes each, with a column of text."""
    step = 200_000
    start = datetime(2024, 8, 8, tzinfo=UTC)
    with (folder / "a.csv").open("wb") as file:
        for first in range(0, count, step):
            number = pl.int_range(first, first + step, dtype=pl.Int64, eager=True)
            rows = pl.select(
                timestamp=(start + number * timedelta(microseconds=37_001)).dt.strftime(
                    "%Y-%m-%dT%H:%M:%S%.6fZ"
                ),
                symbol=pl.lit("BTC_USDT"),
                price=60_000 + (number % 997) / 100,
                volume=(number % 83) / 1_000 + 0.001,
                trade_id=number + 10**9,
            )
            rows.write_csv(file, include_header=not first)
    return folder / "a.csv"


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the most memory of a process")
def test_a_file_is_read_in_bounded_memory(tmp_path):
    """In long form a file of 1 GB; a file read whole takes several times its size."""
    count = ROWS_OF_A_GIGABYTE if LONG else 1_200_000
    file = with_so_many_rows(tmp_path, count)
    assert file.stat().st_size > (2**30 if LONG else 60 * 2**20)
    ((_, most, told),) = read_elsewhere(tmp_path, file)
    assert told == f"{count} 0"
    assert most < (2**30 if LONG else 600 * 2**20)


IMPORT = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from fxlab.lab import connect
    with connect() as lab:
        lab.import_files(sys.argv[1], session_id=sys.argv[2], progress=False)
    print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024)
    """
)


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the most memory of a process")
def test_a_file_is_imported_in_bounded_memory(lab, tmp_path, unique):
    """In long form a file of 1 GB."""
    count = ROWS_OF_A_GIGABYTE if LONG else 400_000
    name, file = unique("large"), with_so_many_rows(tmp_path, count)
    words = [sys.executable, "-c", IMPORT, str(file), name]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert int(told) < 2**30
    assert lab.session(name).records_collected == count
    lab.delete(name)
    lab.purge(name)
    file.unlink()
