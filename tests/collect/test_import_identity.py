"""Rows that come doubled, in another order, or with digits lost: exact, or refused."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from import_rows import rows_of_part, whole_frames

from fxlab import errors
from fxlab.collect._files import discovery, quarantine, session_data
from fxlab.collect._files.discovery import FrameSession, read_file
from fxlab.collect._files.quarantine import ReadOptions
from fxlab.collect._files.session_data import ImportedSession

NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)
HEADER = "timestamp,symbol,price,qty,trade_id"
BOOK = "timestamp,symbol,bid_price_1,bid_qty_1,bid_price_2,bid_qty_2,ask_price_1,ask_qty_1"


def write(path: Path, header: str, lines: list[str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in (header, *lines)), encoding="utf-8")
    return path


def rows_of(*files: Path) -> list[pl.DataFrame]:
    parts = [part for file in files for part in read_file(file)]
    return [frame for _, frame in whole_frames(ImportedSession("s", tuple(parts)))]


def refusal(*files: Path, symbol: str | None = None) -> str:
    with pytest.raises(errors.ImportRefused) as caught:
        ImportedSession("s", tuple(part for file in files for part in read_file(file, symbol)))
    return str(caught.value)


def trades(ids, start=0):
    return [f"{1723118400 + start + n * 0.25},BTC,{100 + n},1,{one}" for n, one in enumerate(ids)]


# ---- identity and order --------------------------------------------------------------------


@pytest.mark.parametrize("ids", [(7, 7, 8), (9, 9, 7), ("a", "b", "b"), ("x", "1", "1")])
def test_an_id_that_two_trades_have_is_refused_with_both_lines(tmp_path, ids):
    message = refusal(write(tmp_path / "a.csv", HEADER, trades(ids)))
    lines = (2, 3) if ids[0] == ids[1] else (3, 4)
    assert f"a.csv, line {lines[1]}: the id" in message
    assert f"in line {lines[0]} (1 rows are doubled" in message


def test_one_id_of_two_symbols_and_equal_trades_with_two_ids_stay(tmp_path):
    lines = ["1723118400,BTC,100,1,7", "1723118400,ETH,100,1,7", "1723118400,BTC,100,1,8"]
    found = rows_of(write(tmp_path / "a.csv", HEADER, lines))
    assert [frame["seq"].to_list() for frame in found] == [[7, 8], [7]]


def test_any_order_of_rows_with_ids_is_the_same_session(tmp_path):
    draw = random.Random(5)
    times = sorted(draw.choice(range(20)) for _ in range(60))  # many share theirs
    lines = [
        f"{1723118400 + time}.5,{draw.choice(('BTC', 'ETH'))},{draw.randint(1, 9)},1,{100 + n * 3}"
        for n, time in enumerate(times)
    ]
    wanted = rows_of(write(tmp_path / "a.csv", HEADER, lines))
    assert sum(frame.height for frame in wanted) == len(lines)
    for _ in range(20):
        draw.shuffle(lines)
        found = rows_of(write(tmp_path / "a.csv", HEADER, lines))
        assert all(one.equals(other) for one, other in zip(found, wanted, strict=True))
        cut = draw.randint(1, 59)  # and over files that overlap
        found = rows_of(
            write(tmp_path / "b.csv", HEADER, lines[:cut]),
            write(tmp_path / "c.csv", HEADER, lines[cut:]),
        )
        assert all(
            one.drop("origin").equals(other.drop("origin"))
            for one, other in zip(found, wanted, strict=True)
        )


def test_newest_first_within_one_microsecond(tmp_path):
    lines = [
        f"2024-08-08T10:00:00.400123Z,BTC,{price},1,{n}" for n, price in ((6, 3), (5, 2), (4, 1))
    ]
    (frame,) = rows_of(write(tmp_path / "a.csv", HEADER, lines))
    assert frame["price"].to_list() == [1.0, 2.0, 3.0]


def test_newest_first_without_ids_is_refused_where_the_order_decides(tmp_path):
    header = "timestamp,symbol,price,qty"
    newest = ["1723118402,A,3,1", "1723118401,A,2,1", "1723118401,A,1,1"]
    assert "put the oldest first" in refusal(write(tmp_path / "a.csv", header, newest))
    (frame,) = rows_of(write(tmp_path / "b.csv", header, newest[:2]))
    assert frame["price"].to_list() == [3.0, 2.0], "their times are all the order that is needed"


def test_pages_that_share_a_trade_are_refused_and_pages_that_overlap_in_time_are_not(tmp_path):
    one = write(tmp_path / "a.csv", HEADER, trades((1, 3, 5)))
    two = write(tmp_path / "b.csv", HEADER, trades((2, 4, 6)))
    (frame,) = rows_of(two, one)
    assert frame["seq"].to_list() == [1, 2, 3, 4, 5, 6]
    again = write(tmp_path / "c.csv", HEADER, trades((5, 7, 9)))
    assert "both have id 5, with different rows (1 ids are in both)" in refusal(one, again)


def test_a_trade_on_both_sides_of_a_seam_is_refused_where_ids_are_words(tmp_path):
    one = write(tmp_path / "a.csv", HEADER, trades(("u1", "u2", "u3")))
    last = trades(("u3", "u4"), start=0.5)
    assert "with the id 'u3' of BTC" in refusal(one, write(tmp_path / "b.csv", HEADER, last))
    other = trades(("u5", "u6"), start=0.5)
    (frame,) = rows_of(one, write(tmp_path / "c.csv", HEADER, other))
    assert frame["trade_id"].to_list() == ["u1", "u2", "u3", "u5", "u6"]


def test_one_id_for_all_rows_is_refused_before_all_of_them_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(session_data, "MOST_BAD", 5)
    monkeypatch.setattr(quarantine, "MOST_BYTES", 5 * 400)
    file = write(tmp_path / "a.csv", HEADER, trades(["0"] * 40))
    with pytest.raises(errors.ImportRefused, match="5 of the first 40 lines"):
        read_file(file, how=ReadOptions(max_bad=1.0))


def test_one_file_under_two_names_is_refused_also_without_ids(tmp_path):
    header, lines = "timestamp,symbol,price,qty", ["1723118400,A,1,1"] * 2
    files = [write(tmp_path / name, header, lines) for name in ("a.csv", "b.csv")]
    assert "overlap for A prices" in refusal(*files)


def test_missing_ids_are_told(tmp_path):
    (part,) = read_file(write(tmp_path / "a.csv", HEADER, trades((1, "", 3))))
    assert part.notes == ("1 of 3 rows have no number: their place identifies all",)


# ---- digits --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["1.72316E+09,BTC,1,1,7"], "its exponent has cost digits"),
        (["1723118400,BTC,1,1,4.22837E+09"], "an id is written out in full"),
        (["1723118400,BTC,1,1,4228370001.0"], "an id is written out in full"),
        (["2024-08-08D23:54:15.342,BTC,1,1,7"], "such as 2024-08-08T23:54:15.342Z"),
    ],
)
def test_a_number_that_lost_its_digits_or_unit_is_named(tmp_path, lines, words):
    message = refusal(write(tmp_path / "a.csv", HEADER, lines))
    assert "line 2:" in message
    assert words in message


def test_semicolons_are_named(tmp_path):
    message = refusal(write(tmp_path / "a.csv", HEADER.replace(",", ";"), ["1,5;BTC;1,5;1;7"]))
    assert "separated by semicolons" in message


NANOS = 1_723_161_255_342_000_000


@pytest.mark.parametrize("off", [0, -128, 128, 372, 499, 500, 501, 999])
def test_one_instant_is_one_microsecond_however_it_is_written(tmp_path, off):
    nanos = NANOS + off
    typed = pl.DataFrame(
        {
            "timestamp": pl.Series([nanos]).cast(pl.Datetime("ns", "UTC")),
            "symbol": ["BTC"],
            "price": [1.0],
            "qty": [1.0],
            "recv_ns": [nanos],
        }
    )
    typed.write_parquet(tmp_path / "typed.parquet")
    whole, rest = divmod(nanos, 1_000_000_000)
    moment = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    header = "timestamp,symbol,price,qty,recv_ns"
    texts = [f"{whole}.{rest:09}", f"{moment}.{rest:09}Z"]
    files = [
        write(tmp_path / f"{n}.csv", header, [f"{text},BTC,1,1,{nanos}"])
        for n, text in enumerate(texts)
    ]
    wanted = (nanos + 500) // 1_000
    for file in (tmp_path / "typed.parquet", *files):
        (part,) = read_file(file)
        times = rows_of_part(part).select("timestamp", "received_at").cast(pl.Int64).row(0)
        assert times == (wanted, nanos // 1_000), file
        assert len(part.notes) == (2 if off else 0), "rounding and cutting are told"


def test_float32_is_refused_where_digits_are_lost(tmp_path):
    frame = pl.DataFrame({"timestamp": [NOON], "symbol": ["A"], "price": [50000.1], "qty": [0.5]})
    short = frame.with_columns(pl.col("price", "qty").cast(pl.Float32))
    short.write_parquet(tmp_path / "a.parquet")
    assert "50000.1 is 50000.1015625 in it" in refusal(tmp_path / "a.parquet")
    short.with_columns(price=pl.lit(50000.25, pl.Float32)).write_parquet(tmp_path / "b.parquet")
    (found,) = rows_of(tmp_path / "b.parquet")
    assert found["price"].to_list() == [50000.25]


# ---- books ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ("100,1,99,1,98,1", "bid_price_1='100' and ask_price_1='98', but the best bid is below"),
        ("100,1,99,1,100,1", "but the best bid is below"),
        ("100,1,100,1,101,1", "bid_price_1='100' and bid_price_2='100', but bids fall"),
        ("99,1,100,1,101,1", "but bids fall and asks rise"),
        ("0,0,99,1,101,1", "no level is missing between two"),
        (",,99,1,101,1", "no level is missing between two"),
    ],
)
def test_a_book_that_is_none_is_refused_with_its_values(tmp_path, levels, words):
    good = "1723118400,BTC,100,1,99,1,101,1"
    message = refusal(write(tmp_path / "a.csv", BOOK, [good, f"1723118401,BTC,{levels}"]))
    assert "a.csv, line 3: " in message
    assert words in message


def test_books_with_an_empty_side_and_short_books_are_books(tmp_path):
    lines = ["1723118400,BTC,,,,,101,1", "1723118401,BTC,100,1,0,0,0,0", "1723118402,BTC,,,,,,"]
    (frame,) = rows_of(write(tmp_path / "a.csv", BOOK, lines))
    assert frame["bid_price_1"].to_list() == [None, 100.0, None]


def test_asks_out_of_order_are_refused(tmp_path):
    header = "timestamp,symbol,bid_price_1,ask_price_1,ask_price_2"
    message = refusal(write(tmp_path / "a.csv", header, ["1723118400,BTC,1,3,2"]))
    assert "ask_price_1='3' and ask_price_2='2'" in message


def test_quotes_may_be_equal_and_may_not_cross(tmp_path):
    header = "timestamp,symbol,bid,ask"
    (frame,) = rows_of(write(tmp_path / "a.csv", header, ["1723118400,EUR,1.1,1.1"]))
    assert frame.height == 1
    message = refusal(write(tmp_path / "b.csv", header, ["1723118400,EUR,1.2,1.1"]))
    assert "bid='1.2' and ask='1.1', but the best bid is not above" in message


def test_a_doubled_update_id_is_one_only_at_one_time(tmp_path):
    header = "timestamp,symbol,bid_price_1,ask_price_1,last_update_id"
    lines = ["1723118401,A,1,2,7", "1723118400,A,1,2,7"]
    (frame,) = rows_of(write(tmp_path / "a.csv", header, lines))
    assert frame["seq"].to_list() == [7, 7]
    assert "was there before, in line 2" in refusal(
        write(tmp_path / "b.csv", header, lines[:1] * 2)
    )


# ---- columns -------------------------------------------------------------------------------

VENDORS = {
    "books": (
        "symbol,timestamp,local_timestamp,asks[0].price,asks[0].amount,bids[0].price,mood",
        "B,1723161255342000,1723161255342001,2,3,1,x",
        [
            "column 'mood' has no place among books",
        ],
    ),
    "bars": ("open_time,open,high,low,close,volume", "1723161240000,5,6,4,5,1", ["it holds bars"]),
    "headless": (
        "9000000001,50000.10,0.001,1723161255342,True",
        "9000000002,50000.10,0.001,1723161255342,True",
        ["first line must be a header", "the file has no header"],
    ),
    "twice": ("timestamp,price,size,Size", "1723161255,1,2,4", ["2 columns mean volume"]),
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_all_that_has_to_change_is_said_at_once(tmp_path, vendor):
    header, line, words = VENDORS[vendor]
    message = refusal(write(tmp_path / "a.csv", header, [line]))
    assert [word for word in words if word not in message] == []


# ---- folders -------------------------------------------------------------------------------


def test_a_folder_of_files_stands_for_its_files(tmp_path):
    write(tmp_path / "day" / "a.csv", HEADER, trades((1, 2)))
    write(tmp_path / "day" / "b.csv", HEADER, trades((3, 4), start=9))
    write(tmp_path / "day" / "readme.txt", "words", [])
    found, skipped = discovery.find_sources([tmp_path / "day"])
    assert [source.session_id for source in found] == ["day_a", "day_b"]
    assert skipped == [str(tmp_path / "day" / "readme.txt")]
    (one,), _ = discovery.find_sources([tmp_path / "day"], "both")
    assert one.read().rows == 4
    (tmp_path / "day" / "c.csv").symlink_to(tmp_path / "day" / "a.csv")
    with pytest.raises(errors.ImportRefused, match=r"c\.csv is a link"):
        discovery.find_sources([tmp_path / "day"])


# ---- frames --------------------------------------------------------------------------------

FRAME = pl.DataFrame({"timestamp": [NOON], "symbol": ["BTC"], "price": [50000.1], "qty": [1.5]})


def drafted(frame, kind="prices"):
    return FrameSession("s", {kind: frame}, "csv").read()


@pytest.mark.parametrize(
    "made",
    [
        FRAME.lazy,
        FRAME.to_pandas,
        FRAME.to_arrow,
        lambda: FRAME.with_columns(pl.col("price").cast(pl.Decimal(38, 18))),
    ],
    ids=["lazy", "pandas", "arrow", "decimal"],
)
def test_frames_of_other_kinds_are_the_same_rows(made):
    ((_, wanted),) = whole_frames(drafted(FRAME))
    ((_, found),) = whole_frames(drafted(made()))
    assert found.equals(wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"price": ["1.5"]}, "column 'price' is text, not a number"),
        ({"timestamp": ["2024-08-08"]}, "column 'timestamp' is text, not a time"),
        ({"timestamp": pl.Series([None], dtype=pl.Datetime("us"))}, "row 1: timestamp=None"),
        ({"seq": ["7"]}, "column 'seq' is text"),
        ({"seq": [1.5]}, "column 'seq' is Float64, not a whole number"),
        ({"seq": pl.Series([None], dtype=pl.Int64)}, "seq=None, but it is a whole number"),
        ({"symbol": pl.Series([None], dtype=pl.String)}, "symbol=None"),
        ({"qty": [-1.0]}, "qty=-1.0, but a quantity is a finite number, zero or above"),
    ],
)
def test_frames_that_hold_no_ticks_are_refused(change, words):
    frame = FRAME.with_columns(
        **{k: v if isinstance(v, pl.Series) else pl.Series(v) for k, v in change.items()}
    )
    with pytest.raises(errors.ImportRefused) as caught:
        drafted(frame)
    assert words in str(caught.value)


@pytest.mark.parametrize("given", [None, [1], "frame", 7, {"a": 1}])
def test_what_is_no_frame_is_refused(given):
    with pytest.raises(errors.ImportRefused, match="not a frame"):
        drafted(given)


# ---- damage --------------------------------------------------------------------------------


def damaged(draw: random.Random, text: bytes) -> bytes:
    """Return a good file with one to three of the things that happen to files."""
    for _ in range(draw.randint(1, 3)):
        lines = text.split(b"\n")
        at = draw.randrange(len(text))
        line = draw.randrange(len(lines))
        text = (
            draw.choice(
                (
                    text[:at],
                    text[:at] + bytes([draw.randrange(256)]) + text[at + 1 :],
                    text[:at] + text[at + 1 :],
                    b"\n".join((*lines[:line], *lines[line + 1 :])),
                    b"\n".join((*lines[:line], lines[line], *lines[line:])),
                    b"\n".join((*lines[:line], *lines[line:][::-1])),
                    text.replace(b",", b";"),
                    text.replace(b"1", draw.choice((b"9", b"-1", b"1e5", b"nan", b"")), 1),
                    text.replace(b"price", b"size", 1),
                    text.replace(b"\n", b"\r\n"),
                )
            )
            or b"\n"
        )
    return text


@pytest.mark.parametrize("seed", range(200))
def test_a_damaged_file_is_read_or_refused_and_never_a_traceback(tmp_path, seed):
    draw = random.Random(seed)
    start = NOON + timedelta(seconds=seed)
    ids = range(1, 13)
    if seed % 2:
        lines = [f"{start.timestamp() + n / 4!r},BTC,{100 + n / 10},{n},{n}" for n in ids]
        header = HEADER
    else:
        lines = [f"{start.timestamp() + n / 4!r},A,{99 - n},1,{90 - n},1,{101 + n},2" for n in ids]
        header = BOOK
    file = write(tmp_path / "a.csv", header, lines)
    file.write_bytes(damaged(draw, file.read_bytes()))
    refused, found = "", None
    try:
        found = ImportedSession("s", tuple(read_file(file)))
    except errors.ImportRefused as error:
        refused = str(error)
    if found is None:
        assert "a.csv" in refused
        assert len(refused) < 1_500
        return
    head, *rest = file.read_bytes().decode("utf-8").replace("\r", "").strip().split("\n")
    assert found.rows == len(rest)
    names = head.split(",")
    column = "price" if "price" in names else "bid_price_1"
    prices = pl.concat(frame[column] for _, frame in found.frames()).fill_null(0)
    assert sorted(prices) == sorted(
        float(line.split(",")[names.index(column)] or 0) for line in rest
    )
    ids = [line.split(",")[names.index("trade_id")] for line in rest if "trade_id" in names]
    assert len(ids) == len(set(ids)), "one id cannot be two trades"
    for _, frame in found.frames():
        if column == "bid_price_1":
            assert (frame["bid_price_1"] < frame["ask_price_1"]).all()
