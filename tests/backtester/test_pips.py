"""What a pip is, and how many a round trip made."""

from __future__ import annotations

import polars as pl
import pytest

import fxlab
from fxlab import errors


@pytest.mark.parametrize(
    ("symbol", "size"),
    [("EUR_USD", 0.0001), ("EURUSD", 0.0001), ("USD/JPY", 0.01), ("GBPHUF", 0.01)],
)
def test_a_pip_is_the_fourth_decimal_or_the_second(symbol, size):
    assert fxlab.pip_size(symbol) == size


@pytest.mark.parametrize("symbol", ["BTC_USDT", "EUR", "eurusd"])
def test_other_symbols_have_no_pip(symbol):
    with pytest.raises(errors.InvalidParameter, match="not a currency pair"):
        fxlab.pip_size(symbol)


def test_round_trips_are_counted_in_pips():
    trades = pl.DataFrame(
        {
            "symbol": ["EUR_USD", "EUR_USD", "USD_JPY"],
            "direction": ["long", "short", "short"],
            "entry_price": [1.1000, 1.1000, 150.00],
            "exit_price": [1.1012, 1.1012, 149.50],
        }
    )
    assert fxlab.with_pips(trades)["pips"].to_list() == [12.0, -12.0, 50.0]
