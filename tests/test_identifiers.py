"""Ids that cannot be anything else."""

from __future__ import annotations

import pytest

from fxlab import errors, schema

HOSTILE = [
    "x' OR '1'='1",
    "../x",
    ".",
    "..",
    "../BTC",
    "BTC/..",
    "A/../B",
    "./BTC",
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
    for check in (schema.check_session_id, schema.check_symbol):
        with pytest.raises(errors.InvalidIdentifier) as raised:
            check(value)
        assert len(str(raised.value)) < 250


def test_good_ids_come_back_as_they_are():
    assert schema.check_session_id("exec_20240808_235413_657c2dd6") == (
        "exec_20240808_235413_657c2dd6"
    )
    for session_id in ("...", "..x", "x..", ".x", "a..b"):
        assert schema.check_session_id(session_id) == session_id
    for symbol in ("BTC_USDT", "BTC-USD", "EUR/USD", "BRK.B", "X:Y", "..A", "A..", "A/.B", "/ES"):
        assert schema.check_symbol(symbol) == symbol


def test_a_symbol_is_written_in_capitals():
    with pytest.raises(errors.InvalidIdentifier, match=r"'btc_usdt' is not a symbol.* capital"):
        schema.check_symbol("btc_usdt")


def test_lengths_end_where_the_words_say():
    assert schema.check_session_id("a" * 64) == "a" * 64
    assert schema.check_symbol("A" * 32) == "A" * 32
    with pytest.raises(errors.InvalidIdentifier, match="64 at most"):
        schema.check_session_id("a" * 65)
    with pytest.raises(errors.InvalidIdentifier, match="32 at most"):
        schema.check_symbol("A" * 33)


@pytest.mark.parametrize("value", ["abc\n", "\nabc", "abc\u2028"])
def test_no_line_end_slips_through(value):
    for check in (schema.check_session_id, schema.check_symbol):
        with pytest.raises(errors.InvalidIdentifier):
            check(value)
