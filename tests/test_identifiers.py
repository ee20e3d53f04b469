"""Ids that cannot be anything else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize(
    ("currency", "symbols"),
    [
        ("USDT", "BTC_USDT BTC-USDT BTC/USDT BTCUSDT 1000PEPEUSDT BTC-USDT-SWAP BTCUSDT-PERP"),
        ("USDT", "BTC/USDT:USDT BTC/USDT:USDT-241227 BTC_USDT_20241227 BTCUSDT-27DEC24 OPUSDT"),
        ("USDT", "BINANCE:BTCUSDT BTCUSDT.P BTCUSDT-PERP.BINANCE WUSDT"),
        ("USD", "XBTUSD XBT/USD BTCUSD_PERP BTC-USD-SWAP ETHUSD_241227 BTC/USD:BTC XXBTZUSD"),
        ("USD", "PF_XBTUSD FI_XBTUSD_241227 DOGE:USD OPUSD BTC-USD-241227"),
        ("USD", "EURUSD EUR/USD EUR_USD EUR-USD XAUUSD EURUSD.PRO"),
        ("JPY", "USDJPY USD_JPY BTCJPY"),
        ("TRY", "USDTRY USDTTRY BTC_TRY"),
        ("BTC", "ETHBTC ETH_BTC ETH-BTC ETHXBT ETH/XBT"),
        ("USDC", "BTC_USDC-PERPETUAL BTC_USDC-27DEC24 BTCUSDC"),
        ("FDUSD", "BTCFDUSD PEPEFDUSD BTC_FDUSD"),
        ("BUSD", "BTCBUSD BTC_BUSD"),
        ("TUSD", "ETHTUSD DOT_TUSD"),
        ("USD", "BNBUSD DOT_USD"),
        ("XYZ", "BTC_XYZ"),
        # a contract alone, an option, a coin or a share by itself
        (None, "BTC-PERPETUAL BTC-PERP BTCPERP BTC-27DEC24 BTC-241227 ETH-SWAP XBTZ24"),
        (None, "BTC-27DEC24-50000-C BTC-USD-241227-50000-P BTC_USDC-27DEC24-50000-C"),
        (None, "BTC USDT USD WBTC STETH TUSD AAPL MSFT ABNB BRK-B BRK.B S42 A_B"),
        # two readings: DOT in USD or DO in TUSD; the quote in front as at some venues
        (None, "DOTUSD ARBUSD KRW-BTC USDT-XYZ"),
        (None, "btcusdt _USDT"),
    ],
)
def test_the_quote_currency_is_what_the_name_says(currency, symbols):
    found = {symbol: schema.quote_currency(symbol) for symbol in symbols.split()}
    assert found == dict.fromkeys(found, currency)


@given(st.text("ABCDEFTUSD0123_-/:.", max_size=32))
def test_a_quote_currency_is_never_part_of_the_contract(symbol):
    found = schema.quote_currency(symbol)
    assert found is None or (found and found in symbol)
    dated = re.fullmatch("[A-Z0-9]{3,10}", symbol) and schema.quote_currency(f"{symbol}_241227")
    assert not dated or dated == found
