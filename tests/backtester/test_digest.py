"""The digest: the same for any chunks, another for any other value that was read."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxlab.backtester._feeds import RowHasher

COLUMNS = {
    "price": st.floats(1, 100),
    "volume": st.none() | st.floats(0, 9),
    "trades": st.none() | st.integers(0, 9),
    "side": st.none() | st.sampled_from(["buy", "sell", "", "\0", "a\nb"]),
    "maker": st.none() | st.booleans(),
}
KINDS = {
    "price": pl.Float64,
    "volume": pl.Float64,
    "trades": pl.Int64,
    "side": pl.String,
    "maker": pl.Boolean,
}


def frame_of(rows):
    frame = pl.DataFrame(rows, schema=KINDS, orient="row")
    number = pl.int_range(pl.len(), dtype=pl.Int64)
    return frame.select(
        number.cast(pl.Datetime("us", "UTC")).alias("timestamp"), number.alias("seq"), pl.all()
    )


def digest_of(*frames, names=None):
    digest = RowHasher()
    for frame in frames:
        digest.update(frame, names)
    return digest.hexdigest()


frames = st.lists(st.tuples(*COLUMNS.values()), min_size=1, max_size=40).map(frame_of)


@settings(deadline=None)
@given(frame=frames, size=st.integers(1, 40), words=st.sampled_from([pl.String, pl.Categorical]))
def test_the_digest_does_not_see_chunks(frame, size, words):
    parts = [frame.slice(start, size) for start in range(0, frame.height, size)]
    cast = [part.with_columns(pl.col("side").cast(words)) for part in parts]
    assert digest_of(*cast) == digest_of(frame)


@settings(deadline=None)
@given(one=frames, other=frames)
def test_other_values_have_another_digest(one, other):
    assert (digest_of(one) == digest_of(other)) == one.equals(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["a\nb", "c"], ["a", "b\nc"]),
        (["ab", "c"], ["a", "bc"]),
        ([None, "a"], ["", "a"]),
        ([None, "a"], ["\0", "a"]),
        ([None, "a", "a"], ["a", None, "a"]),
        ([None, 0.0], [0.0, 0.0]),
        ([None, 0.0], [0.0, None]),
        ([0.0, 1.0], [-0.0, 1.0]),
        ([True, None], [True, False]),
        ([1, 2], [2, 1]),
    ],
)
def test_values_that_are_nearly_the_same(one, other):
    digests = [digest_of(pl.DataFrame({"x": values})) for values in (one, other)]
    assert digests[0] != digests[1]


def test_only_what_is_read_counts_and_time_seq_and_price_always_do():
    frame = frame_of([(1.0, 2.0, 3, "buy", True), (4.0, 5.0, 6, "sell", False)])
    read = frozenset({"volume"})
    other = frame.with_columns(side=pl.lit("sell"), trades=pl.col("trades") + 1)
    assert digest_of(frame, names=read) == digest_of(other, names=read)
    assert digest_of(frame) != digest_of(other)
    for name in ("timestamp", "seq", "price", "volume"):
        changed = frame.with_columns(pl.col(name).shift(-1, fill_value=frame[name][0]))
        assert digest_of(changed, names=read) != digest_of(frame, names=read), name


def test_the_names_of_columns_and_the_number_of_rows_count():
    frame = pl.DataFrame({"price": [1.0, 2.0]})
    assert digest_of(frame, names=frozenset()) != digest_of(frame.rename({"price": "seq"}))
    assert digest_of(frame.head(0)) != digest_of(frame)
    assert digest_of(frame, frame.head(0)) == digest_of(frame)


def test_price_ticks_are_the_price_again():
    frame = pl.DataFrame({"price": [1.0], "price_ticks": [10]})
    assert digest_of(frame) == digest_of(frame.drop("price_ticks"))


def test_books_count_apart_from_ticks():
    ticks = pl.DataFrame({"price": [1.0]})
    books = pl.DataFrame({"bid_price_1": [1.0, None], "symbol": ["A", "A"]})
    digests = []
    for fed in ([], [books], [books.head(1), books.tail(1)], [books.reverse()]):
        digest = RowHasher()
        digest.update(ticks, None)
        for part in fed:
            digest.update_books(part)
        digests.append(digest.hexdigest())
    assert digests[1] == digests[2]
    assert len(set(digests)) == 3
    renamed = RowHasher()
    renamed.update(ticks, None)
    renamed.update_books(books.with_columns(symbol=pl.lit("B")))
    assert renamed.hexdigest() == digests[1]  # the run knows each symbol's digest by its name
