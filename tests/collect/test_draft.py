"""What identifies a row, and what may not be one session."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from import_rows import parts_of, rows_of_part, whole_frames

from fxlab import errors
from fxlab.collect._files import quarantine, session_data
from fxlab.collect._files.fields import SourceLocation
from fxlab.collect._files.quarantine import STRICT
from fxlab.collect._files.session_data import ImportedSession, Origin
from fxlab.schema import PRICES

NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)


def parts(name="a.csv", *, seconds=(0, 1, 2), symbol="BTC", symbols=None, **columns):
    columns |= {} if symbols is None else {"symbol": symbols}
    frame = pl.DataFrame(
        {
            "timestamp": [NOON + timedelta(seconds=n) for n in seconds],
            "price": [1.5] * len(seconds),
            "qty": [1.0] * len(seconds),
            **columns,
        }
    )
    return parts_of(
        frame,
        Origin(name, hashlib.sha256(name.encode()).hexdigest(), "csv"),
        symbol,
        STRICT.of(SourceLocation(name)),
    )


def quotes(name="q.csv", symbol="EUR"):
    frame = pl.DataFrame({"timestamp": [NOON], "bid": [1.1], "ask": [1.2]})
    return parts_of(
        frame,
        Origin(name, hashlib.sha256(name.encode()).hexdigest(), "csv"),
        symbol,
        STRICT.of(SourceLocation(name)),
    )


def stored(*pieces):
    """Return (table, frame) of a draft made of lists of parts."""
    return whole_frames(ImportedSession("s", tuple(part for piece in pieces for part in piece)))


def seqs(*pieces):
    return [frame["seq"].to_list() for _, frame in stored(*pieces)]


def test_rows_are_numbered_by_their_place_without_ids():
    assert seqs(parts()) == [[0, 1, 2]]


def test_rising_ids_of_the_venue_are_the_numbers():
    assert seqs(parts(trade_id=[7, 9, 12])) == [[7, 9, 12]]
    assert seqs(parts(trade_id=["7", "9", "12"])) == [[7, 9, 12]]


@pytest.mark.parametrize("ids", [[7, None, 8], ["a", "b", "c"], ["1", "x", "3"]])
def test_ids_that_are_not_all_numbers_leave_the_place(ids):
    ((_, frame),) = stored(parts(trade_id=ids))
    assert frame["seq"].to_list() == [0, 1, 2]
    assert frame["trade_id"].to_list() == [None if n is None else str(n) for n in ids]


def test_files_that_follow_each_other_count_on_in_time_order():
    late = parts("b.csv", seconds=(5, 6), price=[2.5, 3.5])
    ((table, frame),) = stored(late, parts())
    assert table is PRICES
    assert frame["seq"].to_list() == [0, 1, 2, 3, 4]
    assert frame["price"].to_list() == [1.5, 1.5, 1.5, 2.5, 3.5]
    assert seqs(parts(trade_id=[1, 2, 3]), parts("b.csv", seconds=(2, 3), trade_id=[4, 5])) == [
        [1, 2, 3, 4, 5]
    ]


def test_symbols_and_kinds_are_numbered_apart():
    found = stored(parts(), parts("e.csv", symbol="ETH"), quotes())
    assert [(t.name, f["symbol"][0], f["seq"].to_list()) for t, f in found] == [
        ("tick_prices", "BTC", [0, 1, 2]),
        ("tick_prices", "ETH", [0, 1, 2]),
        ("tick_orderbook", "EUR", [0]),
    ]
    for table, frame in found:
        assert frame.schema == table.frame


def test_a_file_with_many_symbols_is_many_parts():
    found = parts(
        symbol=None, seconds=(0, 1, 2, 3), symbols=["B", "A", "B", "A"], price=[1.0, 2.0, 3.0, 4.0]
    )
    assert [(part.symbol, rows_of_part(part)["price"].to_list()) for part in found] == [
        ("B", [1.0, 3.0]),
        ("A", [2.0, 4.0]),
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"seconds": (0, 5)}, {"seconds": (4, 9)}),
        ({"seconds": (0, 5)}, {"seconds": (0, 5)}),
        (
            {"seconds": (0, 5), "trade_id": [1, 2]},
            {"seconds": (5, 6), "trade_id": [2, 3], "price": [9.0, 9.5]},
        ),
    ],
    ids=["times", "same", "ids"],
)
def test_files_that_may_hold_the_same_rows_are_refused(first, second):
    with pytest.raises(errors.ImportRefused, match=r"a\.csv .*and b\.csv .*overlap for BTC prices"):
        stored(parts("a.csv", **first), parts("b.csv", **second))


def test_the_same_file_twice_is_refused():
    with pytest.raises(errors.ImportRefused, match=r"two files are called a\.csv"):
        stored(parts(), parts())


def test_no_rows_are_no_session():
    with pytest.raises(errors.ImportRefused, match="'s' has no rows"):
        ImportedSession("s", tuple(parts(seconds=())))
    with pytest.raises(errors.ImportRefused, match="no file"):
        ImportedSession("s", ())


def test_an_empty_file_beside_others_is_counted_as_none():
    draft = ImportedSession("s", (*parts("empty.csv", seconds=()), *quotes()))
    assert draft.counts == {("EUR", "orderbook"): 1}
    assert json.loads(draft.catalogue_row()["symbols"]) == ["EUR"]
    assert len(draft.identity) == 2


def test_rows_that_run_backward_are_kept_and_counted():
    (part,) = parts(seconds=(3, 1, 2, 0))
    assert part.backward == 2
    assert (part.known.first, part.known.last) == (NOON, NOON + timedelta(seconds=3))
    assert seqs([part]) == [[0, 1, 2, 3]]


def test_the_catalogue_row_says_what_is_there():
    draft = ImportedSession("s", (*parts(price=[1.5, 1.25, 2.0]), *quotes()))
    row = draft.catalogue_row()
    assert row["created_at"] == row["started"] == NOON
    assert row["ended"] == NOON + timedelta(seconds=2)
    assert (row["prices_count"], row["orderbook_count"], row["records_collected"]) == (3, 1, 4)
    assert json.loads(row["price_decimals"]) == {"BTC": 2, "EUR": 2}
    assert json.loads(row["data_types"]) == ["prices", "orderbook"]


def test_prices_without_an_end_have_no_decimals():
    draft = ImportedSession("s", tuple(parts(price=[1 / 3, 2 / 3, 10 / 3])))
    assert draft.price_decimals() == {}


def test_trades_beat_books_for_decimals():
    draft = ImportedSession("s", (*quotes(symbol="BTC"), *parts(price=[1.0, 2.0, 3.0])))
    assert draft.price_decimals() == {"BTC": 0}


def test_rows_without_an_id_are_not_gathered_and_doubled_ids_are_found(monkeypatch):
    """Null is no id: as one key, all rows of a large file would be in memory at once."""
    monkeypatch.setattr(quarantine, "BUCKET_ROWS", 10)
    held = []
    buckets = session_data.buckets

    def watched(*given):
        for piece in buckets(*given):
            held.append(piece.height)
            yield piece

    monkeypatch.setattr(session_data, "buckets", watched)
    names = [None] * 200
    parts(seconds=range(200), trade_id=names)
    assert held == []
    names[17], names[181] = "x1", "x1"
    with pytest.raises(errors.ImportRefused, match="the id 'x1' of BTC was there before"):
        parts(seconds=range(200), trade_id=names)
    assert sum(held) == 2
