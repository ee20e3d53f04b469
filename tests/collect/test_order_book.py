"""The book in lists equals a dictionary that is sorted when it is looked at."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fxlab.collect._live.books import OrderBook
from fxlab.schema import book_levels

prices = st.integers(1, 40).map(lambda n: n / 4)
quantities = st.sampled_from([0.0, 0.0, 0.5, 1.0, 7.25])
levels = st.lists(st.tuples(prices, quantities), max_size=8)
steps = st.lists(st.tuples(levels, levels, st.sampled_from([None, None, 1, 3])), max_size=12)


class Twin:
    """Two dictionaries."""

    def __init__(self):
        self.sides = {}, {}

    def reset(self, bids, asks):  # noqa: D102
        self.sides = {}, {}
        self.apply(bids, asks)

    def apply(self, bids, asks):  # noqa: D102
        for side, changes in zip(self.sides, (bids, asks), strict=True):
            for price, quantity in changes:
                side[price] = quantity
                if quantity == 0:
                    del side[price]

    def ordered(self):  # noqa: D102
        bids = sorted(self.sides[0].items(), reverse=True)
        return bids, sorted(self.sides[1].items())

    def trim(self, depth):  # noqa: D102
        bids, asks = self.ordered()
        self.sides = dict(bids[:depth]), dict(asks[:depth])

    def top(self, depth):  # noqa: D102
        flat = []
        for side in self.ordered():
            shown = [value for level in side[:depth] for value in level]
            flat += shown + [None] * (2 * depth - len(shown))
        return tuple(flat)


def unique(levels):
    """Return levels of distinct prices, as a snapshot has them."""
    return list(dict(levels).items())


@given(levels, levels, steps)
def test_book_equals_its_twin_after_every_step(bids, asks, steps):
    book, twin = OrderBook(), Twin()
    book.reset(unique(bids), unique(asks))
    twin.reset(unique(bids), unique(asks))
    for more_bids, more_asks, depth in steps:
        book.apply(more_bids, more_asks)
        twin.apply(more_bids, more_asks)
        if depth is not None:
            book.trim(depth)
            twin.trim(depth)
        for shown in (1, 3, 10):
            assert book.top(shown) == twin.top(shown)
        best_bids, best_asks = twin.ordered()
        best = (best_bids or [None])[0], (best_asks or [None])[0]
        assert book.best == best
        assert book.crossed == (None not in best and best[0][0] >= best[1][0])


def test_top_has_the_order_of_the_table():
    book = OrderBook()
    book.reset([(9.0, 1.0), (10.0, 2.0)], [(12.0, 4.0), (11.0, 3.0)])
    named = dict(zip(book_levels(2), book.top(2), strict=True))
    assert (named["bid_price_1"], named["bid_qty_1"]) == (10.0, 2.0)
    assert [named[n] for n in ("bid_price_2", "ask_price_1", "ask_qty_2")] == [9.0, 11.0, 4.0]
    assert len(book.top()) == len(book_levels())


def test_snapshot_forgets_what_was_before():
    book = OrderBook()
    book.reset([(9.0, 1.0)], [(11.0, 1.0)])
    book.reset([(8.0, 1.0)], [])
    assert book.top(2) == (8.0, 1.0, None, None, None, None, None, None)
    assert not book.crossed
