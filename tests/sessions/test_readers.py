"""Reading in slices: every row once, in order, whatever the slices."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab import errors
from fxlab._questdb.sql import Scope
from fxlab._times import to_micros
from fxlab.schema import PRICES, UTC_MICROS
from fxlab.sessions import _catalog, _reader
from fxlab.sessions._reader import Slice, page, plan_slices, rechunk

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "source", "started", "created", "first", "last"),
    [
        ("completed", "live", NOON, NOON, 0, 1),
        ("completed", "csv", None, NOON, None, None),
        # Of a running recording: what a venue's history may hold before its first row, no end.
        ("collecting", "live", NOON, NOON, -7, None),
        ("collecting", "live", NOON, NOON - timedelta(days=1), -8, None),
        ("collecting", "live", NOON, NOON + timedelta(days=900), -7, None),
        # Nothing is known of their times yet.
        ("collecting", "live", None, NOON, None, None),
        ("collecting", "csv", NOON, NOON, None, None),
    ],
)
def test_the_range_of_a_session_holds_all_its_ticks(status, source, started, created, first, last):
    row = {"status": status, "source": source, "started": started, "created_at": created}
    low, high = _catalog.tick_range(row | {"ended": started})
    day = 86_400_000_000
    assert low == (None if first is None else to_micros(NOON) + first * day)
    assert high == (None if last is None else to_micros(NOON) + last)


@st.composite
def bins(draw):
    """Draw counts of neighbouring and of separate stretches of time."""
    found, time = [], 0
    for gap, width, rows in draw(
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.integers(1, 50)), max_size=40)
    ):
        found.append(Slice(time + gap, time + gap + width, rows))
        time += gap + width
    return found


@given(bins(), st.integers(1, 120))
def test_a_plan_covers_every_row_once_and_in_order(counts, chunk_rows):
    slices = plan_slices(counts, chunk_rows)
    assert sum(piece.rows for piece in slices) == sum(piece.rows for piece in counts)
    for before, after in itertools.pairwise(slices):
        assert before.start < before.end <= after.start < after.end
    for piece in counts:
        holders = [s for s in slices if s.start <= piece.start and piece.end <= s.end]
        assert len(holders) == 1
    for piece in slices:
        inside = [bin_ for bin_ in counts if piece.start <= bin_.start < piece.end]
        assert piece.rows == sum(bin_.rows for bin_ in inside)
        assert piece.rows <= chunk_rows or len(inside) == 1


@given(bins(), st.integers(1, 120))
def test_a_plan_is_not_finer_than_needed(counts, chunk_rows):
    slices = plan_slices(counts, chunk_rows)
    for before, after in itertools.pairwise(slices):
        first = next(bin_ for bin_ in counts if bin_.start == after.start)
        assert before.rows + first.rows > chunk_rows


@given(bins(), st.integers(0, 300), st.none() | st.integers(0, 300))
def test_a_page_reads_the_slices_that_hold_it_and_no_others(counts, offset, limit):
    rows = [(piece, n) for piece in counts for n in range(piece.rows)]
    wanted = rows[offset:] if limit is None else rows[offset : offset + limit]
    chosen, skipped = page(counts, offset, limit)
    read = [(piece, n) for piece in chosen for n in range(piece.rows)]
    assert (read[skipped:] if limit is None else read[skipped : skipped + limit]) == wanted
    if wanted:
        assert {piece for piece, _ in wanted} == set(chosen)


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 40))
def test_chunks_have_the_size_asked_for(sizes, rows):
    whole = pl.DataFrame({"n": range(sum(sizes))})
    frames, start = [], 0
    for size in sizes:
        frames.append(whole.slice(start, size))
        start += size
    chunks = list(rechunk(frames, rows))
    assert all(chunk.height == rows for chunk in chunks[:-1])
    assert all(0 < chunk.height <= rows for chunk in chunks[-1:])
    assert pl.concat([whole.head(0), *chunks]).equals(whole)


@pytest.fixture(scope="module")
def crowded(db, unique):
    """Store 3,000 trades: a crowded second, a crowded millisecond, and hours apart."""
    rng = random.Random(5)
    moments = (
        [NOON + timedelta(microseconds=rng.randrange(1_000_000)) for _ in range(1_500)]
        + [NOON + timedelta(hours=2)] * 700
        + [NOON + timedelta(hours=2, microseconds=rng.randrange(1_000)) for _ in range(300)]
        + [NOON + timedelta(seconds=rng.randrange(100_000)) for _ in range(500)]
    )
    rng.shuffle(moments)
    name = unique("crowded")
    frame = pl.concat(
        [
            pl.DataFrame(schema=PRICES.frame),
            pl.DataFrame(
                {"timestamp": moments, "seq": range(len(moments))},
                schema={"timestamp": UTC_MICROS, "seq": pl.Int64},
            ).with_columns(
                price=pl.col("seq") + 0.5, session_id=pl.lit(name), symbol=pl.lit("BTC_USDT")
            ),
        ],
        how="diagonal",
    )
    for part in (frame.tail(1_000), frame.head(1_000), frame.slice(1_000, 1_000)):
        db.write(PRICES, part)  # what shares an instant comes in several transactions
    db.wait_visible(PRICES)
    return Scope(PRICES, name, "BTC_USDT"), frame.sort("timestamp", "seq")


NAMES = ["timestamp", "seq", "price"]


def test_all_rows_come_in_order(db, crowded):
    scope, expected = crowded
    assert _reader.read(db, scope, NAMES).equals(expected.select(NAMES))


@pytest.mark.parametrize("chunk_rows", [1, 7, 999, 3_000, 10_000])
def test_a_scan_gives_the_same_rows_on_any_chunks(db, crowded, chunk_rows):
    scope, expected = crowded
    chunks = list(_reader.scan(db, scope, NAMES, chunk_rows=chunk_rows))
    assert {chunk.height for chunk in chunks[:-1]} <= {chunk_rows}
    assert pl.concat(chunks).equals(expected.select(NAMES))


def test_crowded_hours_are_split_down_to_a_millisecond(db, crowded):
    scope, expected = crowded
    counted = _reader.count_rows(db, scope, 100)
    assert sum(piece.rows for piece in counted) == 3_000
    for piece in counted:
        assert piece.rows <= 100 or piece.end - piece.start == 1_000, piece
    assert max(piece.rows for piece in counted) >= 700
    for piece in counted:
        inside = expected.filter(
            pl.col("timestamp").to_physical().is_between(piece.start, piece.end - 1)
        )
        assert inside.height == piece.rows


def test_many_small_slices_read_the_same(db, crowded, monkeypatch):
    monkeypatch.setattr(_reader, "SLICE_ROWS", range(50, 101))
    scope, expected = crowded
    heard = []
    frame = _reader.read(db, scope, NAMES, progress=lambda share, _: heard.append(share))
    assert frame.equals(expected.select(NAMES))
    assert len(heard) > 15
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    chunks = _reader.scan(db, scope, NAMES, chunk_rows=33)
    assert pl.concat(chunks).equals(expected.select(NAMES))


@pytest.mark.parametrize("slices", [range(50, 101), _reader.SLICE_ROWS])
def test_pages_follow_each_other_without_gap_or_overlap(db, crowded, monkeypatch, slices):
    monkeypatch.setattr(_reader, "SLICE_ROWS", slices)
    scope, expected = crowded
    pages = [
        _reader.read(db, scope, NAMES, limit=701, offset=offset) for offset in range(0, 3_500, 701)
    ]
    assert [found.height for found in pages] == [701, 701, 701, 701, 196]
    assert pl.concat(pages).equals(expected.select(NAMES))
    assert _reader.read(db, scope, NAMES, limit=0).is_empty()
    assert _reader.read(db, scope, NAMES, offset=3_000).schema == expected.select(NAMES).schema


@pytest.mark.parametrize(
    ("start", "end"), [(0, 1), (-1, 0), (0, 2), (-5, 500_000), (500_000, 7_200_000_001)]
)
def test_ranges_are_exact_to_the_microsecond(db, crowded, start, end):
    scope, expected = crowded
    low, high = to_micros(NOON) + start, to_micros(NOON) + end
    bounded = Scope(PRICES, scope.session_id, scope.symbol, low, high)
    inside = pl.col("timestamp").to_physical().is_between(low, high, closed="left")
    assert _reader.read(db, bounded, NAMES).equals(expected.filter(inside).select(NAMES))


def test_constants_are_not_sent_and_stand_where_asked(db, crowded):
    scope, _ = crowded
    frame = _reader.read(db, scope, ["symbol", "price", "session_id"], limit=2)
    assert frame.columns == ["symbol", "price", "session_id"]
    assert frame.row(0)[0] == "BTC_USDT"
    assert frame.row(0)[2] == scope.session_id
    only = _reader.read(db, scope, ["symbol"])
    assert only.height == 3_000


def test_nothing_is_an_empty_frame_with_the_right_types(db, unique):
    scope = Scope(PRICES, unique(), "BTC_USDT")
    assert _reader.read(db, scope, list(PRICES.columns)).schema == PRICES.frame
    assert list(_reader.scan(db, scope, NAMES)) == []


def test_a_reader_may_stop_half_way(db, crowded, monkeypatch):
    monkeypatch.setattr(_reader, "SLICE_ROWS", range(50, 101))
    scope, expected = crowded
    chunks = _reader.scan(db, scope, NAMES, chunk_rows=10)
    assert next(chunks).equals(expected.select(NAMES).head(10))
    chunks.close()

    def stop(share, text):
        raise errors.Cancelled(text)

    with pytest.raises(errors.Cancelled, match="of 3,000 rows read"):
        _reader.read(db, scope, NAMES, progress=stop)


def test_rows_that_went_missing_are_told(db, crowded, monkeypatch):
    scope, _ = crowded
    real = _reader.count_rows

    def one_more(*given):
        first, *others = real(*given)
        return [first._replace(rows=first.rows + 1), *others]

    monkeypatch.setattr(_reader, "count_rows", one_more)
    with pytest.raises(errors.QueryFailed, match=r"3,001 rows were counted and only 3,000 came"):
        _reader.read(db, scope, NAMES)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "all", True])
def test_a_chunk_has_rows(db, bad):
    with pytest.raises(errors.InvalidParameter, match="chunk_rows="):
        _reader.scan(db, Scope(PRICES, "s", "A"), NAMES, chunk_rows=bad)
