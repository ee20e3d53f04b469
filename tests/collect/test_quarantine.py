"""Lines that are no ticks: kept with number, reason and text, counted, and never too many."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter

import polars as pl
import pytest
from import_rows import rows_and_bad, rows_of_part
from test_import_identity import BOOK, HEADER, damaged, trades, write
from typer.testing import CliRunner

from fxlab import errors
from fxlab._cli import app
from fxlab._questdb.client import QuestDB
from fxlab.collect._files.discovery import FileSession, read_file
from fxlab.collect._files.quarantine import ReadOptions
from fxlab.schema import IMPORTS
from fxlab.sessions import _catalog

LOOSE = ReadOptions(max_bad=1.0)
GOOD = trades(range(1, 301))


def with_faults(faults):
    """Return 300 good lines with others put in after given ones."""
    lines = list(GOOD)
    for place, line in sorted(faults.items(), reverse=True):
        lines.insert(place, line)
    return lines


FAULTS = {
    "price": ("1723118400.5,BTC,nan,1,7001", "price='nan', but a price is a finite number"),
    "time": ("yesterday,BTC,1,1,7001", "timestamp='yesterday', but a time is ISO 8601"),
    "symbol": ("1723118400.5,btc,1,1,7001", "symbol='btc', but a symbol has capital letters"),
    "short": ("1723118400.5,BTC,1", "has 3 fields and the header has 5"),
    "long": ("1723118400.5,BTC,1,1,7001,9", "has 6 fields and the header has 5"),
    "blank": ("", "has 1 fields and the header has 5"),
    "quoted": ('"1723118400.5",BTC,1,1,7001', "a quoted field stands there"),
    "nul": ("1723118400.5,BTC,1,\0,7001", "a NUL character stands there"),
    "doubled": ("1723118400.5,BTC,1,1,3", "the id '3' of BTC was there before, in line 4"),
    "huge": ("1" * 1_000_001, "the line is longer than 1,000,000 bytes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_line_is_kept_with_its_number_reason_and_text(tmp_path, fault):
    line, words = FAULTS[fault]
    file = write(tmp_path / "a.csv", HEADER, with_faults({100: line}))
    (part,) = read_file(file, None, ReadOptions())
    assert rows_of_part(part)["trade_id"].to_list() == [str(n) for n in range(1, 301)]
    assert (part.bad, part.quarantine.rows) == (1, 301)
    part.quarantine.keep(tmp_path / "kept.csv")
    with (tmp_path / "kept.csv").open(newline="", encoding="utf-8") as kept:
        head, (number, reason, text) = csv.reader(kept)
    assert head == ["line", "reason", "text"]
    assert number == "102"
    assert words in reason
    assert text.startswith(line[:10_000].replace("\0", "\\0"))
    assert len(text) < 10_100


def test_a_cut_last_line_and_bytes_that_are_no_text_are_quarantined(tmp_path):
    file = write(tmp_path / "a.csv", HEADER, GOOD)
    whole = file.read_bytes().replace(b"5,BTC,101,", b"5,B\xff,101,", 1)
    file.write_bytes(whole + b"1723118500.25,BTC,1")
    (part,) = read_file(file, None, ReadOptions())
    assert (part.rows, part.bad, part.quarantine.rows) == (299, 2, 301)
    assert [one.row for one in part.quarantine.bad] == [1, 300]


def test_more_than_the_share_refuses_with_the_three_commonest_reasons_and_a_line_each(tmp_path):
    faults = {10: "x,BTC,1,1,1000", 20: "x,BTC,1,1,1001", 30: "1,2", 40: "1723118400,BTC,0,1,1002"}
    faults |= {50: "1723118400,BTC,0,1,1003", 60: "1723118400,BTC,1,-1,1004", 70: "1,2,3"}
    file = write(tmp_path / "a.csv", HEADER, with_faults(faults | {80: "y,BTC,1,1,1005"}))
    with pytest.raises(errors.ImportRefused) as caught:
        read_file(file, None, ReadOptions())
    message = str(caught.value)
    assert "8 of 308 lines are no ticks, and max_bad=0.01" in message
    assert "(3, such as line 12: timestamp='x', but" in message
    assert "such as line 34: '1,2' has 2 fields" in message
    assert "price='0', but" in message
    assert "and 1 more; mend the file, or raise max_bad; nothing was imported" in message
    (part,) = read_file(file, None, ReadOptions(max_bad=0.03))
    assert part.bad == 8


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1723118400500,BTC,1,1,7001", "these are milliseconds"),
        ("1.72316E+09,BTC,1,1,7001", "its exponent has cost digits"),
        ("1723118400.5,BTC,1,1,4.2E+09", "an id is written out in full"),
    ],
)
def test_one_line_that_shows_the_file_is_wrong_refuses_it(tmp_path, line, words):
    file = write(tmp_path / "a.csv", HEADER, with_faults({100: line}))
    with pytest.raises(errors.ImportRefused, match=r"a\.csv, line 102: .*") as caught:
        read_file(file, None, LOOSE)
    assert words in str(caught.value)


@pytest.mark.parametrize("max_bad", [-0.1, 1.5, "1%", True, None, float("nan")])
def test_a_share_that_is_none_is_refused(max_bad):
    with pytest.raises(errors.InvalidInput, match=r"max_bad=.* is no share"):
        ReadOptions(max_bad=max_bad)


FEW = range(1, 21)
BINANCE = [f"{n},{100 + n}.10,0.5,50.05,{1723161255342 + n},True,True" for n in FEW]
BOOKS = [f"{1723118400.25 + n},BTC,{100 + n},1,{99 + n},2,{101 + n},1" for n in FEW]
OBJECTS = [
    json.dumps(dict(zip(HEADER.split(","), line.split(","), strict=True))) for line in trades(FEW)
]
GOOD_FILES = {
    # name, header, lines, the column of a price, and the price of a good line
    "trades": ("a.csv", HEADER, trades(FEW), "price", lambda line: line.split(b",")[2]),
    "books": ("a.csv", BOOK, BOOKS, "bid_price_1", lambda line: line.split(b",")[2]),
    "without a header": (
        "BTCUSDT-trades-2024-08-08.csv", None, BINANCE, "price", lambda line: line.split(b",")[1],
    ),
    "json lines": ("a.jsonl", None, OBJECTS, "price", lambda line: json.loads(line)["price"]),
}  # fmt: skip
SEEDS = 125
"""For each of them: 500 in all."""


def body_of(file, header):
    """Return the lines of a file below its header; empty ones at its end are none."""
    text = file.read_bytes()
    body = text.partition(b"\n")[2] if header else text
    return body.rstrip(b"\r\n").split(b"\n") if body.strip() else []


@pytest.mark.parametrize("kind", GOOD_FILES)
def test_rows_and_quarantine_are_the_lines_of_a_damaged_file(tmp_path, kind):
    name, header, lines, column, price = GOOD_FILES[kind]
    outcomes = Counter()
    for seed in range(SEEDS):
        file = tmp_path / name
        whole = "".join(f"{line}\n" for line in ([header] if header else []) + lines)
        file.write_bytes(damaged(random.Random(f"{kind} {seed}"), whole.encode()))
        try:
            parts = read_file(file, None, LOOSE)
        except errors.ImportRefused as error:
            assert name in str(error), seed  # noqa: PT017 - either is right
            continue
        outcomes["read"] += 1
        body, (rows, bad) = body_of(file, header), rows_and_bad(parts)
        outcomes["bad"] += len(bad)
        assert sorted(rows + bad) == list(range(len(body))), seed
        wanted = Counter(float(price(line)) for n, line in enumerate(body) if n not in bad)
        assert Counter(one for part in parts for one in rows_of_part(part)[column]) == wanted, seed
    assert outcomes["read"] >= SEEDS // 3
    assert outcomes["bad"] >= SEEDS // 4


def test_damaged_files_in_one_import_have_all_their_lines_in_the_database(
    lab, db, tmp_path, unique
):
    name, lines, wanted = unique("damaged"), {}, Counter()
    for seed in range(60):
        # No damage makes the symbol of one file that of another, where the same ids are.
        symbol = "ABCDEFGHIJ"[seed % 10] * 4 + "STUVWX"[seed // 10] * 4
        good = [line.replace("BTC", symbol) for line in trades(FEW)]
        file = write(tmp_path / "files" / f"{seed:02}.csv", HEADER, good)
        file.write_bytes(damaged(random.Random(seed), file.read_bytes()))
        try:
            _, bad = rows_and_bad(read_file(file, None, LOOSE))
        except errors.ImportRefused:
            file.unlink()  # it would refuse the others, too
            continue
        body = body_of(file, HEADER)
        lines[file.name] = (len(body) - len(bad), len(bad))
        wanted.update(float(line.split(b",")[2]) for n, line in enumerate(body) if n not in bad)
    assert len(lines) >= 30
    report = lab.import_files(tmp_path / "files", session_id=name, max_bad=1.0)
    assert (report.rows, report.quarantined) == tuple(map(sum, zip(*lines.values(), strict=True)))
    told = Counter()
    for path, *balance in _catalog.imports(db, name).select("path", "rows_good", "rows_bad").rows():
        told.update({(path.rpartition("/")[2], what): n for what, n in enumerate(balance)})
    assert told == Counter({(file, n): one[n] for file, one in lines.items() for n in (0, 1)})
    prices = db.export(f"select price from tick_prices where session_id = '{name}'")  # noqa: S608
    assert Counter(prices["price"]) == wanted
    assert lab.session(name).errors_count == report.quarantined > 0


def test_bad_lines_end_in_a_file_and_in_the_events(lab, db, tmp_path, unique):
    name = unique("bad")
    file = write(tmp_path / "a.csv", HEADER, with_faults({5: "1,2", 200: "x,BTC,1,1,1000"}))
    report = lab.import_files(file, session_id=name)
    assert (report.rows, report.quarantined) == (300, 2)
    assert "2 of 302 lines are no ticks and are in quarantine" in report.notes[0]
    assert "rows=300 quarantined=2" in repr(report)
    (kept,) = (lab.settings.home / "quarantine" / name).iterdir()
    assert kept.read_text(encoding="utf-8").splitlines()[1].startswith("7,")
    (event,) = _catalog.events(db, name).iter_rows(named=True)
    assert (event["event"], event["count"]) == ("quarantine", 2)
    assert f"kept in {kept.relative_to(lab.settings.home)} of FXLAB_HOME" in event["detail"]
    assert str(kept) in report.notes[0]
    (told,) = lab.session(name).imports().select("state", "rows_good", "rows_bad").rows()
    assert told == ("done", 300, 2)
    assert lab.session(name).errors_count == 2
    again = lab.import_files(file, session_id=name)
    assert set(again.table()["state"]) == {"unchanged"}
    assert (again.rows, again.quarantined, again.notes) == (300, 2, report.notes)
    assert _catalog.events(db, name).height == 1
    with pytest.raises(errors.ImportRefused, match=r"line 7: '1,2' has 2 fields"):
        lab.import_files(file, session_id=name, strict=True)


def test_a_dry_run_tells_bad_lines_and_keeps_none(lab, tmp_path, unique):
    name = unique("bad")
    file = write(tmp_path / "a.csv", HEADER, with_faults({5: "1,2"}))
    report = lab.import_files(file, session_id=name, dry_run=True)
    assert (report.rows, report.quarantined) == (300, 1)
    assert not (lab.settings.home / "quarantine" / name).exists()
    assert "see" not in report.notes[0]


def test_a_finished_file_is_not_read_again(lab, db, tmp_path, unique, monkeypatch):
    name = unique("known")
    file = write(tmp_path / "a.csv", HEADER, GOOD)
    first = lab.import_files(file, session_id=name)
    (row,) = _catalog.raw_rows(db, IMPORTS, name)
    assert row["size_bytes"] == file.stat().st_size

    def refuse(*_):
        raise AssertionError("it was read")

    monkeypatch.setattr(FileSession, "read", refuse)
    monkeypatch.setattr(QuestDB, "export", refuse)
    again = lab.import_files(file, session_id=name)
    assert again.table().drop("state").equals(first.table().drop("state"))
    assert again.table()["state"].to_list() == ["unchanged"]
    said = lab.import_files(file, session_id=name, notes="said later")
    assert said.table()["state"].to_list() == ["updated"]


def test_a_file_that_came_to_the_others_is_named(lab, tmp_path, unique):
    name = unique("known")
    file = write(tmp_path / "a.csv", HEADER, GOOD[:5])
    lab.import_files(file, session_id=name)
    more = write(tmp_path / "b.csv", HEADER, GOOD[5:9])
    with pytest.raises(errors.SessionExists, match=r"b\.csv came since it was imported"):
        lab.import_files([file, more], session_id=name)


def test_a_changed_file_is_named(lab, tmp_path, unique):
    name = unique("known")
    file = write(tmp_path / "a.csv", HEADER, GOOD)
    lab.import_files(file, session_id=name)
    write(file, HEADER, GOOD[:-1])
    with pytest.raises(errors.SessionExists, match=r"a\.csv has changed since it was imported at"):
        lab.import_files(file, session_id=name)


def test_columns_are_mapped_by_their_user(tmp_path):
    lines = [f"{1723118400 + n},{100 + n},1" for n in range(3)]
    file = write(tmp_path / "a.csv", "when,px,n", lines)
    how = ReadOptions(columns=(("timestamp", "when"), ("price", "px"), ("volume", "n")))
    (part,) = read_file(file, "BTC", how)
    assert rows_of_part(part)["price"].to_list() == [100.0, 101.0, 102.0]
    with pytest.raises(errors.ImportRefused, match=r"no column 'pix'; did you mean 'px'"):
        read_file(file, "BTC", ReadOptions(columns=(("price", "pix"),)))


def test_a_quote_without_a_side_is_quarantined(tmp_path):
    lines = [f"{1723118400 + n},1.1,1.2" for n in range(300)]
    lines[7], lines[9] = "1723118407,,1.2", "1723118409,1.1,"
    (part,) = read_file(write(tmp_path / "a.csv", "timestamp,bid,ask", lines), "EUR", ReadOptions())
    assert (part.rows, [one.row for one in part.quarantine.bad]) == (298, [7, 9])
    assert part.quarantine.bad[0].reason.startswith("bid=None, but a price is")


def test_bad_rows_of_parquet_are_kept_as_json(tmp_path):
    frame = pl.DataFrame({"timestamp": [1.7e9] * 300, "symbol": ["A"] * 300, "price": [1.0] * 300})
    frame = frame.with_columns(qty=pl.Series([1.0] * 299 + [-1.0]))
    frame.write_parquet(tmp_path / "a.parquet")
    (part,) = read_file(tmp_path / "a.parquet", None, ReadOptions())
    assert (part.rows, part.bad) == (299, 1)
    assert part.quarantine.text(299) == (
        '{"timestamp": 1700000000.0, "symbol": "A", "price": 1.0, "qty": -1.0}'
    )


def test_the_command_quarantines_and_is_strict_if_asked(server, tmp_path, unique):
    name = unique("cli")
    lines = [line.replace(",BTC,", ",") for line in with_faults({5: "1,2"})]
    file = write(tmp_path / "a.csv", "time,px,qty,trade_id", lines)
    words = ["import", str(file), "--session", name, "--symbol", "BTC"]
    words += ["--columns", "timestamp=time,price=px"]
    refused = CliRunner().invoke(app, [*words, "--strict"])
    assert refused.exit_code == 1
    assert "line 7: '1,2' has 2 fields" in " ".join(refused.output.split())
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "300 rows, 1 quarantined lines" in done.output
    odd = CliRunner().invoke(app, [*words[:-1], "timestamp"])
    assert odd.exit_code == 1
    assert "is no mapping" in " ".join(odd.output.split())


def test_the_old_spelling_refuses_and_says_what_is_new(lab, tmp_path, unique):
    file = write(tmp_path / "a.csv", HEADER, with_faults({5: "1,2"}))
    with (
        pytest.warns(DeprecationWarning, match=r"lab\.import_files\(path\) now"),
        pytest.raises(errors.ImportRefused, match="line 7"),
    ):
        lab.import_csv(file, session_id=unique("old"))
