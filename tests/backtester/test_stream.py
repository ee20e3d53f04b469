"""Feeds are merged by time in chunks of any size, checked, hashed, and held one at a time."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxlab import errors
from fxlab.backtester._feeds import BookFeed, Needs, RowHasher, SymbolFeed
from fxlab.backtester._market_arrays import decisions_on, merge
from fxlab.backtester.strategy.signals import Signals

UTC = pl.Datetime("us", "UTC")


def needs(lookback=0, **others):
    return Needs(lookback=lookback, columns=frozenset({"wanted"}), **others)


def ticks(times, leg=0, wanted=None):
    """Return one leg's rows; a price says whose row it is and which."""
    return pl.DataFrame(
        {
            "timestamp": pl.Series(times, dtype=pl.Int64).cast(UTC),
            "seq": pl.Series(range(len(times)), dtype=pl.Int64),
            "price": 1_000.0 * (leg + 1) + np.arange(len(times)),
            "wanted": pl.Series(
                [None] * len(times) if wanted is None else wanted, dtype=pl.Float64
            ),
        }
    )


def books(times):
    return pl.DataFrame(
        {
            "timestamp": pl.Series(times, dtype=pl.Int64).cast(UTC),
            "seq": pl.Series(range(len(times)), dtype=pl.Int64),
            "bid_price_1": np.arange(len(times)) + 0.5,
        }
    )


def cut(frame, size):
    return (frame.slice(first, size) for first in range(0, frame.height, size))


def feed(frame, leg=0, size=1_000, wants=None):
    return SymbolFeed(f"S{leg}", leg, cut(frame, size), wants or needs())


def rows_of(stretches):
    """Return (time, leg, kind, number) of every row, in order."""
    found = []
    for market, _ in stretches:
        for i in range(len(market.time)):
            if np.isnan(market.price[i]):
                number = market.books["bid_price"][market.book[i], 0] - 0.5
                found.append((int(market.time[i]), int(market.leg[i]), 1, number))
            else:
                number = market.price[i] - 1_000.0 * (market.leg[i] + 1)
                found.append((int(market.time[i]), int(market.leg[i]), 0, number))
    return found


moments = st.lists(st.integers(0, 12), max_size=25).map(sorted)


@settings(deadline=None)
@given(
    legs=st.lists(st.tuples(moments, moments), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 7), min_size=6, max_size=6),
)
def test_merge_keeps_every_row_in_the_order_of_time_leg_and_kind(legs, sizes):
    feeds, shown = [], []
    for leg, (times, of_books) in enumerate(legs):
        feeds.append(feed(ticks(times, leg), leg, sizes[leg]))
        shown.append(BookFeed(leg, cut(books(of_books), sizes[3 + leg]), RowHasher()))
    plain = sorted(
        (time, leg, kind, float(number))
        for leg, kinds in enumerate(legs)
        for kind, times in enumerate(kinds)
        for number, time in enumerate(times)
    )
    assert rows_of(merge(len(legs), feeds, shown)) == plain


@settings(deadline=None)
@given(times=moments, size=st.integers(1, 9), lookback=st.none() | st.integers(0, 9))
def test_each_piece_has_the_rows_that_it_looks_back_on(times, size, lookback):
    frame = ticks(times)
    stretches = list(merge(1, [feed(frame, size=size, wants=needs(lookback))], []))
    seen = 0
    for piece in (piece for _, chunks in stretches for piece in chunks):
        assert piece.seen == seen
        assert piece.own.equals(frame.slice(seen, piece.own.height))
        front = frame.slice(0, seen).tail(seen if lookback is None else min(seen, lookback))
        assert piece.frame.head(piece.first).equals(front)
        seen += piece.own.height
    assert seen == frame.height
    if lookback is None:
        assert len(stretches) <= 1


@settings(deadline=None)
@given(
    legs=st.lists(
        st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, 0.5, 1.0])), max_size=20),
        min_size=1,
        max_size=3,
    ),
    size=st.integers(1, 9),
)
def test_decisions_stand_at_the_rows_that_made_them(legs, size):
    feeds, plain = [], []
    for leg, rows in enumerate(legs):
        ordered = sorted(rows, key=lambda row: row[0])
        times, wanted = [row[0] for row in ordered], [row[1] for row in ordered]
        feeds.append(feed(ticks(times, leg, wanted), leg, size))
        plain += [(time, leg, n, want) for n, (time, want) in enumerate(ordered)]
    signals = Signals(pl.col("wanted"), lookback=0, reentry="signal")  # that keeps every target
    found = []
    for rows, chunks in merge(len(legs), feeds, []):
        decisions = decisions_on(chunks, signals)
        assert np.all(np.diff(decisions["row"]) > 0)
        for decision in decisions:
            row = decision["row"]
            number = rows.price[row] - 1_000.0 * (rows.leg[row] + 1)
            found.append((rows.time[row], rows.leg[row], number, decision["target"]))
    assert found == [row for row in sorted(plain, key=lambda r: r[:3]) if row[3] is not None]


def test_targets_beyond_the_leverage_are_refused():
    ((_, chunks),) = merge(1, [feed(ticks([1, 2], wanted=[2.0, None]))], [])
    signals = Signals(pl.col("wanted"), lookback=0)
    assert decisions_on(chunks, signals, 2.0)["target"].tolist() == [2.0]
    with pytest.raises(errors.InvalidParameter, match="beyond max_leverage=1"):
        decisions_on(chunks, signals, 1.0)


def test_one_chunk_of_each_feed_is_held():
    pulled = [0, 0]

    def counted(number, frames):
        for frame in frames:
            pulled[number] += 1
            yield frame

    frames = [ticks(range(0, 1_000, 10)), ticks(range(5, 1_000, 20), 1)]
    feeds = [
        SymbolFeed(f"S{k}", k, counted(k, cut(frame, 5)), needs()) for k, frame in enumerate(frames)
    ]
    height = 0
    for market, _ in merge(2, feeds, []):
        height += len(market.time)
        now = int(market.time[-1])
        for number, frame in enumerate(frames):
            given_out = (frame["timestamp"].to_physical() <= now).sum()
            assert pulled[number] * 5 <= given_out + 2 * 5
    assert height == sum(frame.height for frame in frames)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_rows_out_of_order_are_refused_wherever_they_are_cut(size):
    frame = ticks([1, 2, 3, 3, 5])
    broken = frame.with_columns(pl.col("timestamp").reverse())
    twice = frame.with_columns(seq=pl.lit(0, pl.Int64))
    unpriced = frame.with_columns(
        price=pl.when(pl.col("seq") != 3).then(pl.col("price")).fill_null(0.0)
    )
    for bad, words in (
        (broken, "row 1 at .* does not come after"),
        (twice, "row 3 at .* does not come after"),
        (unpriced, "price 0.0 in row 3 is not a price"),
    ):
        one = feed(bad, size=size)
        with pytest.raises(errors.InvalidTicks, match=words):  # noqa: PT012 - when is its choice
            list(merge(1, [one], []))
            one.settle()


@settings(deadline=None, max_examples=40)
@given(times=moments, of_books=moments, size=st.integers(1, 9))
def test_what_was_read_is_hashed_whatever_the_chunks(times, of_books, size):
    digests = []
    for rows in (1_000, size):
        one = feed(ticks(times), size=rows)
        list(merge(1, [one], [BookFeed(0, cut(books(of_books), rows), one.digest)]))
        one.settle()
        digests.append(one.digest.hexdigest())
    assert digests[0] == digests[1]
    assert digests[0].startswith(f"{len(times)}:")
    assert ("books.bid_price_1" in digests[0]) == bool(of_books)
    assert "wanted" in digests[0] or not times


def test_nothing_is_merged_of_nothing():
    assert list(merge(2, [feed(ticks([])), feed(ticks([], 1), 1)], [])) == []
