"""Tables that cannot lose a row, and ids that cannot be anything else."""

from __future__ import annotations

import pytest

from fxlab import errors, identifiers, schema

HOSTILE = [
    "x' OR '1'='1",
    "../x",
    "/etc/passwd",
    "a b",
    "a;b",
    "a\nb",
    "a\x00b",
    "",
    "é",
    "a" * 65,
    "x" * 10_000,
    "$(id)",
    "a'--",
    'a"b',
    "a\\b",
    None,
    7,
    b"abc",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_ids_are_refused_in_few_words(value):
    for check in (identifiers.check_session_id, identifiers.check_symbol):
        with pytest.raises(errors.InvalidIdentifier) as raised:
            check(value)
        assert len(str(raised.value)) < 250


def test_good_ids_come_back_as_they_are():
    assert identifiers.check_session_id("exec_20240808_235413_657c2dd6") == (
        "exec_20240808_235413_657c2dd6"
    )
    for symbol in ("BTC_USDT", "BTC-USD", "EUR/USD", "BRK.B", "X:Y"):
        assert identifiers.check_symbol(symbol) == symbol


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
