"""FX conventions: what a pip is.

A pip is the fourth decimal of a price, the second where the quote currency is worth about a
hundredth of the others (yen, forint). Brokers quote a tenth of it.
"""

from __future__ import annotations

import re
from typing import Final

import polars as pl

from fxlab.errors import InvalidParameter

COARSE: Final = frozenset({"JPY", "HUF", "KRW", "INR", "THB", "CLP"})
"""Quote currencies whose pip is 0.01."""

_PAIR: Final = re.compile(r"([A-Z]{3})[_/.:-]?([A-Z]{3})")


def pip_size(symbol: str) -> float:
    """Return the size of a pip of a currency pair, in quote currency.

    Parameters
    ----------
    symbol
        Six letters, with or without a separator: ``"EUR_USD"``, ``"USDJPY"``.

    Raises
    ------
    InvalidParameter
        If the symbol is no pair of currencies.
    """
    found = _PAIR.fullmatch(symbol)
    if found is None:
        raise InvalidParameter(
            f"{symbol!r} is not a currency pair such as EUR_USD or USDJPY; give the pip yourself"
        )
    return 0.01 if found[2] in COARSE else 0.0001


def with_pips(trades: pl.DataFrame) -> pl.DataFrame:
    """Return round trips with a column ``pips``: price gained, before costs, in pips.

    Parameters
    ----------
    trades
        As in `Result.trades`; every symbol a currency pair.
    """
    sizes = {symbol: pip_size(symbol) for symbol in trades["symbol"].unique().to_list()}
    size = pl.col("symbol").replace_strict(sizes, return_dtype=pl.Float64, default=None)
    side = pl.when(pl.col("direction") == "long").then(1.0).otherwise(-1.0)
    gained = side * (pl.col("exit_price") - pl.col("entry_price")) / size
    return trades.with_columns(gained.round(6).alias("pips"))
