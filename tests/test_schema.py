"""Tables that cannot lose a row."""

from __future__ import annotations

import pytest

from fxlab import schema


@pytest.mark.parametrize("table", schema.TABLES, ids=lambda t: t.name)
def test_every_table_is_whole(table):
    assert table.columns[table.timestamp] == "TIMESTAMP"
    assert set(table.dedup) <= set(table.columns)
    assert table.dedup[0] == table.timestamp
    assert set(table.columns.values()) <= set(schema.SQL_TYPES)


def test_ticks_are_identified_by_their_row_not_only_by_their_time():
    for table in (schema.PRICES, schema.ORDERBOOK):
        assert table.dedup == ("timestamp", "session_id", "symbol", "seq")


def test_books_have_ten_flat_levels_a_side():
    levels = [name for name in schema.ORDERBOOK.columns if name.startswith(("bid_", "ask_"))]
    assert len(levels) == 2 * 2 * schema.BOOK_DEPTH
    assert levels[:4] == ["bid_price_1", "bid_qty_1", "bid_price_2", "bid_qty_2"]
