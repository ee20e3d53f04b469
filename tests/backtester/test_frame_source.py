"""Frames in the shape of a session: ticks, quotes, books beside ticks, holes."""

from __future__ import annotations

import polars as pl
import pytest
from markets import random_walk

import fxlab
from fxlab import errors
from fxlab.backtester._frame_source import FrameSource
from fxlab.schema import book_levels

QUOTES = pl.DataFrame(
    {
        "timestamp": ["2024-01-01 00:00:00", "2024-01-01 00:00:01", "2024-01-01 00:00:02"],
        "bid_price_1": [1.14542, 1.14543, None],
        "ask_price_1": [1.14545, 1.14545, 1.14546],
        "bid_qty_1": [1.0, 2.0, 3.0],
    }
).with_columns(pl.col("timestamp").str.to_datetime(time_unit="us"))
BOOKS = QUOTES.drop("bid_qty_1")


def times(frame, name="timestamp"):
    return frame[name].dt.strftime("%S").to_list()


def test_symbols_keep_their_order_of_appearance():
    both = pl.concat([random_walk(5, symbol="Z"), random_walk(5, symbol="A")])
    assert FrameSource(both).symbols == ("Z", "A")
    assert FrameSource(random_walk(5)).symbols == ("TICKS",)
    assert "5 ticks of TICKS" in repr(FrameSource(random_walk(5)))
    assert fxlab.FrameSource is FrameSource


def test_ticks_come_whole_or_in_slices_with_price_ticks():
    frame = random_walk(10)
    source = FrameSource(frame)
    whole = pl.concat(source.scan_ticks("TICKS"))
    assert whole.drop("price_ticks").equals(frame)
    assert [n / 100 for n in whole["price_ticks"]] == frame["price"].to_list()
    assert source.price_decimals == {"TICKS": 2}
    parts = list(source.scan_ticks("TICKS", chunk_rows=4))
    assert [part.height for part in parts] == [4, 4, 2]
    assert pl.concat(parts).equals(whole)


def test_quotes_are_a_frame_without_a_price():
    source = FrameSource(QUOTES)
    assert (source.has_trades("TICKS"), source.has_books("TICKS")) == (False, True)
    ticks = pl.concat(source.scan_ticks("TICKS"))
    assert ticks["price"].to_list() == [1.145435, 1.14544]  # no mid, no tick
    assert ticks["price_ticks"].to_list() == [1_145_435, 1_145_440]
    assert source.price_decimals == {"TICKS": 6}
    books = pl.concat(source.scan_books("TICKS"))
    assert books.columns == ["timestamp", "seq", *book_levels()]
    assert books["bid_price_1"].to_list() == QUOTES["bid_price_1"].to_list()
    assert books["ask_qty_10"].null_count() == 3
    assert "quotes" in repr(source)


def test_quotes_of_several_symbols_have_their_own_decimals():
    yen = QUOTES.with_columns(bid_price_1=145.42, ask_price_1=145.43, symbol=pl.lit("USDJPY"))
    both = pl.concat([QUOTES.with_columns(symbol=pl.lit("EURUSD")), yen])
    assert FrameSource(both).price_decimals == {"EURUSD": 6, "USDJPY": 3}


def test_a_frame_with_price_and_quotes_is_ticks():
    source = FrameSource(QUOTES.with_columns(price=1.1))
    assert (source.has_trades("TICKS"), source.has_books("TICKS")) == (True, False)
    assert list(source.scan_books("TICKS")) == []


def test_books_stand_beside_ticks():
    source = FrameSource(random_walk(5), books=BOOKS)
    assert (source.has_trades("TICKS"), source.has_books("TICKS")) == (True, True)
    found = pl.concat(source.scan_books("TICKS", start="2024-01-01 00:00:01", chunk_rows=1))
    assert times(found) == ["01", "02"]
    assert found["seq"].to_list() == [1, 2]
    assert found.schema["bid_qty_3"] == pl.Float64


def test_books_belong_to_their_symbol():
    both = pl.concat([random_walk(5, symbol="A"), random_walk(5, symbol="B")])
    only_b = BOOKS.with_columns(symbol=pl.lit("B"))
    source = FrameSource(both, books=only_b)
    assert (source.has_books("A"), source.has_books("B")) == (False, True)
    assert list(source.scan_books("A")) == []
    assert pl.concat(source.scan_books("B")).height == 3
    with pytest.raises(errors.InvalidTicks, match="several symbols: A, B"):
        list(FrameSource(both, books=BOOKS).scan_books("A"))


def test_books_out_of_order_are_refused():
    with pytest.raises(errors.InvalidTicks, match="not in the order of time"):
        list(FrameSource(random_walk(5), books=BOOKS.reverse()).scan_books("TICKS"))


def test_holes_are_joined_and_of_the_symbol():
    moments = QUOTES["timestamp"].dt.replace_time_zone("UTC")
    holes = pl.DataFrame(
        {
            "from_time": [moments[1], moments[0], moments[0], moments[2]],
            "to_time": [moments[2], moments[1], moments[0], None],
            "symbol": ["A", None, "B", "A"],
        }
    )
    both = pl.concat([random_walk(5, symbol="A"), random_walk(5, symbol="B")])
    source = FrameSource(both, gaps=holes)
    assert source.gaps("A").rows() == [(moments[0], moments[2])]
    assert source.gaps("B").rows() == [(moments[0], moments[1])]
    assert FrameSource(both).gaps("A").is_empty()
    assert FrameSource(both).gaps("A").schema == source.gaps("A").schema


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"books": BOOKS.drop("bid_price_1")}, "frame of books has no column 'bid_price_1'"),
        ({"books": BOOKS.with_columns(timestamp=1)}, "timestamp of the frame of books is Int32"),
        ({"gaps": BOOKS}, "frame of gaps has no column 'from_time'"),
        ({"gaps": pl.DataFrame({"from_time": ["x"], "to_time": ["y"]})}, "not a Datetime"),
    ],
)
def test_frames_that_are_no_books_or_holes_are_refused(options, words):
    with pytest.raises(errors.InvalidTicks, match=words):
        FrameSource(random_walk(5), **options)


def test_quotes_under_other_names_are_told_the_right_ones():
    frame = QUOTES.rename({"bid_price_1": "bid", "ask_price_1": "ask"})
    with pytest.raises(errors.InvalidTicks, match="quotes timestamp, bid_price_1 and ask_price_1"):
        FrameSource(frame)
