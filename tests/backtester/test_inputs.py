"""What strategies may look at: books and other prices strictly before the tick, in any chunks."""

from __future__ import annotations

import bisect

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import START, random_walk

import fxlab
from fxlab import errors, indicators
from fxlab.backtester import _source
from fxlab.backtester._frame_source import FrameSource
from fxlab.backtester.strategy._decisions import decide

CHUNKS = [1, 7, 1000]


def at(offsets):
    return (pl.Series(offsets, dtype=pl.Int64) + START).cast(pl.Datetime("us", "UTC"))


def read(source, symbol, columns, **options):
    wanted = None if columns is None else frozenset(columns)
    decimals = source.price_decimals.get(symbol)
    return pl.concat(_source.joined_ticks(source, symbol, wanted, decimals=decimals, **options))


def books_of(rows, seed=5, *, symbol=None):
    """Return books of two levels with holes, about as often as a random walk's ticks."""
    rng = np.random.default_rng(seed)
    bid = 9_990 + np.cumsum(rng.integers(-3, 4, rows))
    frame = pl.DataFrame(
        {
            "timestamp": at(np.cumsum(rng.integers(0, 3, rows) * rng.integers(0, 300_000, rows))),
            "seq": np.arange(rows),
            "bid_price_1": bid / 100,
            "bid_qty_1": rng.integers(1, 99, rows) / 10,
            "ask_price_1": (bid + rng.integers(1, 9, rows)) / 100,
            "ask_qty_1": rng.integers(1, 99, rows) / 10,
            "bid_price_2": (bid - 1) / 100,
            "bid_qty_2": pl.Series(rng.integers(0, 3, rows)).replace(0, None) / 1.0,
        }
    )
    return frame if symbol is None else frame.with_columns(symbol=pl.lit(symbol))


def market(rows=400):
    """Return a source of two symbols with trades and books."""
    ticks = [random_walk(rows, seed, symbol=name) for seed, name in ((3, "A"), (4, "B"))]
    books = [books_of(rows, seed, symbol=name) for seed, name in ((5, "A"), (6, "B"))]
    frame = pl.concat(ticks).drop("bid_qty_1", "ask_qty_1")
    return FrameSource(frame, books=pl.concat(books))


def last_before(times, values, moment):
    """Return the last value whose time is strictly before a moment."""
    place = bisect.bisect_left(times, moment)
    return values[place - 1] if place else None


def test_books_are_those_strictly_before_the_tick():
    source = market()
    books = source.books.filter(symbol="A")
    found = read(source, "A", ["bid_price_1", "bid_qty_2", "spread", "mid"])
    times = books["timestamp"].to_list()
    for name in ("bid_price_1", "bid_qty_2"):
        values = books[name].to_list()
        plain = [last_before(times, values, moment) for moment in found["timestamp"].to_list()]
        assert found[name].to_list() == plain
        assert None in plain
    cents = [
        None if bid is None else (round(ask * 100) - round(bid * 100), round((ask + bid) * 500))
        for bid, ask in found.select("bid_price_1", "ask_price_1").iter_rows()
    ]
    assert found["spread"].to_list() == [c and c[0] / 100 for c in cents]
    assert found["mid"].to_list() == [c and c[1] / 1000 for c in cents]


def test_another_price_is_the_last_one_strictly_before_the_tick():
    source = market()
    other = source.frame.filter(symbol="B")
    found = read(source, "A", ["price:B", "price:A"])
    times, prices = other["timestamp"].to_list(), other["price"].to_list()
    moments = found["timestamp"].to_list()
    assert found["price:B"].to_list() == [last_before(times, prices, m) for m in moments]
    own = [last_before(moments, found["price"].to_list(), m) for m in moments]
    assert found["price:A"].to_list() == own  # not the tick's own price
    assert found["price:A"][0] is None


@pytest.mark.parametrize("chunk_rows", CHUNKS)
@pytest.mark.parametrize("columns", [["price:B", "ask_qty_1", "mid"], None])
def test_chunks_change_nothing(chunk_rows, columns):
    source = market()
    whole = read(source, "A", columns)
    assert read(source, "A", columns, chunk_rows=chunk_rows).equals(whole)


offsets = st.lists(st.integers(0, 12), max_size=25).map(sorted)


@settings(max_examples=150, deadline=None)
@given(ours=offsets, theirs=offsets, size=st.integers(1, 9), other_size=st.integers(1, 9))
def test_lock_step_is_the_last_row_before_for_any_times(ours, theirs, size, other_size):
    ticks = pl.DataFrame({"timestamp": at(ours), "n": range(len(ours))})
    rows = pl.DataFrame({"timestamp": at(theirs), "x": [float(i) for i in range(len(theirs))]})
    join = _source.AsOfJoin(rows.iter_slices(other_size), {"x": pl.Float64()})
    parts = [join.add(part) for part in ticks.iter_slices(size)]
    found = [value for part in parts for value in part["x"].to_list()]
    assert found == [last_before(theirs, rows["x"].to_list(), moment) for moment in ours]


@settings(max_examples=100, deadline=None)
@given(ours=offsets, size=st.integers(1, 9), other_size=st.integers(1, 9), keep=st.integers(1, 3))
def test_rows_beside_are_the_same_rows(ours, size, other_size, keep):
    rows = pl.DataFrame(
        {"timestamp": at(ours), "seq": range(len(ours)), "x": [float(i) for i in range(len(ours))]}
    )
    ticks = rows.select("timestamp", "seq").gather_every(keep)
    join = _source.ExactJoin(rows.iter_slices(other_size), ["x"])
    found = [v for part in ticks.iter_slices(size) for v in join.add(part)["x"].to_list()]
    assert found == rows["x"].gather_every(keep).to_list()


def test_lock_step_holds_no_more_than_it_needs():
    ticks = pl.DataFrame({"timestamp": at(range(0, 10_000, 10))})
    rows = pl.DataFrame({"timestamp": at(range(10_000)), "x": [1.0] * 10_000})
    pulled = []

    def stream():
        for part in rows.iter_slices(100):
            pulled.append(part.height)
            yield part

    join = _source.AsOfJoin(stream(), {"x": pl.Float64()})
    for part in ticks.iter_slices(50):
        join.add(part)
        assert join._held.height <= 200
    assert sum(pulled) == 10_000


def test_quotes_have_their_own_book_in_each_row():
    quotes = books_of(300, seed=8)
    source = FrameSource(quotes)
    for chunk_rows in (None, *CHUNKS):
        found = read(source, "TICKS", ["bid_qty_2", "ask_qty_9", "spread"], chunk_rows=chunk_rows)
        assert found["bid_qty_2"].equals(quotes["bid_qty_2"])
        assert found["ask_qty_9"].null_count() == 300
        assert found["price_ticks"].to_list() == [
            round(b * 500) + round(a * 500)
            for b, a in quotes.select("bid_price_1", "ask_price_1").iter_rows()
        ]


def test_what_a_frame_has_of_books_is_used_as_it_is():
    frame = random_walk(50)
    found = read(FrameSource(frame), "TICKS", ["bid_qty_1"])
    assert found["bid_qty_1"].equals(frame["bid_qty_1"])


def test_asking_for_what_is_not_there_is_refused():
    bare = FrameSource(random_walk(20), id="bare")
    with pytest.raises(errors.InvalidParameter, match=r"'ask_qty_3', .*'bare' has no order books"):
        read(bare, "TICKS", ["ask_qty_3"])
    with pytest.raises(errors.SymbolNotFound, match="no symbol named 'C'"):
        read(market(), "A", ["price:C"])
    assert "price:A" not in read(bare, "TICKS", None).columns


def test_received_at_comes_when_asked_for():
    frame = random_walk(20)
    stamped = frame.with_columns(received_at=pl.col("timestamp").dt.offset_by("3ms"))
    for given_frame, nulls in ((frame, 20), (stamped, 0)):
        found = read(FrameSource(given_frame), "TICKS", [], also=["received_at"])
        assert found["received_at"].null_count() == nulls
        assert found["received_at"].dtype == pl.Datetime("us", "UTC")


STRATEGIES = {
    "books and another symbol": lambda: fxlab.Signals(
        target=pl.when(pl.col("mid") > pl.col("price")).then(1.0).when(
            indicators.price_of("B") > pl.col("price")
        ).then(-1.0),
        stop_loss=pl.col("spread") / 10,
        lookback=0,
    ),
    "book over rows": lambda: fxlab.Signals(
        target=(pl.col("bid_qty_1") > pl.col("ask_qty_1").shift(2)).cast(pl.Float64), lookback=2
    ),
    "bars": lambda: fxlab.Signals(
        target=(pl.col("close") > pl.col("open")).cast(pl.Float64),
        take_profit=pl.col("bid_qty_1") / 100,
        every="5s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STRATEGIES)
def test_decisions_are_the_same_in_any_chunks(name):
    source, signals = market(), STRATEGIES[name]()
    whole = decide(signals, "A", read(source, "A", signals.roots))
    assert len(whole) > 8
    for chunk_rows in CHUNKS:
        frame = read(source, "A", signals.roots, chunk_rows=chunk_rows)
        assert decide(signals, "A", frame).tobytes() == whole.tobytes()
