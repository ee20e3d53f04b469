"""Which data a run reads, and what it is told when it is not there."""

from __future__ import annotations

import polars as pl
import pytest
from markets import random_walk

from fxlab import Execution, Latency, errors
from fxlab.backtester._feeds import needs_of, open_feeds
from fxlab.backtester._frame_source import FrameSource
from fxlab.backtester._source import gap_bounds as holes_of
from fxlab.backtester._source import gap_records
from fxlab.backtester.strategy.signals import Signals
from fxlab.schema import book_levels

PRICE = Signals(pl.col("price"), lookback=3)
VOLUME = Signals(pl.col("volume"), lookback=5)
EVERYTHING = Signals.from_frame(lambda ticks: ticks)
BOOK = Execution(fill="book")


def books_of(frame):
    return frame.select(
        "timestamp",
        "seq",
        *(name for name in ("symbol",) if name in frame.columns),
        bid_price_1=pl.col("price") - 0.01,
        ask_price_1=pl.col("price") + 0.01,
    )


def two_symbols():
    return pl.concat([random_walk(20, symbol="A"), random_walk(30, seed=8, symbol="B")])


def test_several_strategies_need_what_any_of_them_needs():
    one = needs_of([PRICE], Execution())
    assert (one.lookback, one.columns) == (3, {"price"})
    both = needs_of([PRICE, VOLUME], Execution())
    assert (both.lookback, both.columns) == (5, {"price", "volume"})
    whole = needs_of([PRICE, EVERYTHING], Execution())
    assert (whole.lookback, whole.columns) == (None, None)
    assert needs_of([], Execution()).lookback == 0


def test_assumptions_need_books_queues_and_measurements():
    plain = needs_of([PRICE], Execution(latency=Latency.lognormal("1ms", 0.5)))
    assert (plain.books, plain.queue, plain.latency) == (False, False, None)
    measured = Latency.measured("1ms")
    full = needs_of([PRICE], Execution(fill="book", queue=True, latency=measured))
    assert (full.books, full.queue, full.latency) == (True, True, measured)


def test_a_feed_of_ticks_for_each_symbol_and_of_books_beside_trades():
    frame = two_symbols()
    source = FrameSource(frame, books=books_of(frame))
    feeds, books = open_feeds(source, ("B", "A"), needs_of([PRICE], BOOK))
    assert [(feed.symbol, feed.leg, feed.quotes) for feed in feeds] == [
        ("B", 0, False),
        ("A", 1, False),
    ]
    assert [book.leg for book in books] == [0, 1]
    assert books[0].digest is feeds[0].digest
    assert sum(len(part) for part in books[0].take(2**62)) == 30
    assert sum(piece.own.height for piece in feeds[1].take(2**62)) == 20
    assert open_feeds(source, ("A",), needs_of([PRICE], Execution()))[1] == []


def test_quotes_bring_all_their_levels():
    quotes = books_of(random_walk(20)).with_columns(bid_qty_7=pl.lit(2.0))
    source = FrameSource(quotes)
    feeds, books = open_feeds(source, source.symbols, needs_of([PRICE], BOOK))
    assert books == []
    assert feeds[0].quotes
    (piece,) = feeds[0].take(2**62)
    assert set(book_levels()) <= set(piece.frame.columns)
    assert piece.frame["bid_qty_7"].to_list() == [2.0] * 20
    assert piece.frame["ask_qty_2"].null_count() == 20


def test_measured_latency_asks_for_the_time_of_arrival():
    frame = random_walk(5).with_columns(received_at=pl.col("timestamp"))
    source = FrameSource(frame)
    needs = needs_of([PRICE], Execution(latency=Latency.measured()))
    (piece,) = open_feeds(source, source.symbols, needs)[0][0].take(2**62)
    assert piece.frame["received_at"].to_list() == frame["timestamp"].to_list()


def test_chunks_have_the_size_that_was_asked_for():
    source = FrameSource(random_walk(20))
    feeds, _ = open_feeds(source, source.symbols, needs_of([PRICE], Execution()), chunk_rows=6)
    assert [piece.own.height for piece in feeds[0].take(2**62)] == [6, 6, 6, 2]


def test_a_time_range_concerns_books_too():
    frame = random_walk(40)
    start, end = frame["timestamp"].unique(maintain_order=True)[[5, 15]]
    source = FrameSource(frame, books=books_of(frame))
    feeds, books = open_feeds(source, source.symbols, needs_of([PRICE], BOOK), start=start, end=end)
    inside = frame.filter(pl.col("timestamp") >= start, pl.col("timestamp") < end).height
    assert sum(piece.own.height for piece in feeds[0].take(2**62)) == inside
    assert sum(len(part) for part in books[0].take(2**62)) == inside


@pytest.mark.parametrize("missing", ["A", "B"])
def test_without_books_of_a_symbol_the_next_trade_is_offered(missing):
    frame = two_symbols()
    books = books_of(frame.filter(pl.col("symbol") != missing))
    source = FrameSource(frame, "eur", books=books)
    words = rf"session 'eur' has none of {missing}; use fill='next_trade'"
    with pytest.raises(errors.InvalidParameter, match=words):
        open_feeds(source, ("A", "B"), needs_of([PRICE], BOOK))


def test_ends_of_holes_are_ordered_by_time_and_leg():
    times = [pl.Series([micros]).cast(pl.Datetime("us", "UTC"))[0] for micros in range(9)]
    holes = pl.DataFrame(
        {
            "from_time": [times[1], times[4], times[2]],
            "to_time": [times[3], times[5], times[3]],
            "symbol": ["B", None, "A"],
        }
    )
    source = FrameSource(two_symbols(), gaps=holes)
    for symbols, ends in (
        (("A", "B"), [(3, 0), (3, 1), (5, 0), (5, 1)]),
        (("B",), [(3, 0), (5, 0)]),
    ):
        found = holes_of(source, symbols)
        assert found.columns == ["from_time", "to_time", "symbol"]
        assert gap_records(found, symbols).tolist() == ends


def test_no_holes_are_known_only_if_somebody_watched():
    source = FrameSource(two_symbols())
    assert holes_of(source, ("A", "B")) is None
    assert not len(gap_records(None, ("A", "B")))
    source.source = "live"
    watched = holes_of(source, ("A", "B"))
    assert watched.is_empty()
    assert not len(gap_records(watched, ("A", "B")))
