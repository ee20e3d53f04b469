"""What holding a position costs over time: a perpetual's funding, an FX swap.

A rate is a fraction of the position's notional that its holder pays at one moment. A perpetual's
funding rate is paid by longs to shorts (or the other way round, if negative); an FX swap charges
each side its own rate at the end of the trading day.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from fxlab.backtester.records import FUNDING
from fxlab.errors import InvalidParameter
from fxlab.schema import UTC_MICROS
from fxlab.times import Time, from_micros, parse_range, to_micros

Rates = tuple[tuple[str | None, int, float, float], ...]
"""(symbol or None for all, microseconds, rate of longs, rate of shorts), ordered by time."""

NEW_YORK: Final = ZoneInfo("America/New_York")
ROLLOVER: Final = time(17)
WEDNESDAY: Final = 2
LARGEST_RATE: Final = 1.0
_SWAP: Final[dict[str, Any]] = {
    "timestamp": UTC_MICROS,
    "symbol": pl.String,
    "rate_long": pl.Float64,
    "rate_short": pl.Float64,
}


def parse_funding(value: object) -> Rates:
    """Return funding rates, ordered by time; None means none.

    Raises
    ------
    InvalidParameter
        If the frame lacks a column, a rate is no number within one notional, or a symbol has two
        rates for one moment (one of its own beside one of all symbols, too).
    """
    if value is None:
        return ()
    if isinstance(value, pl.DataFrame):
        return _unique(_from_frame(value))
    if isinstance(value, tuple) and all(isinstance(r, tuple) and len(r) == 4 for r in value):
        return _unique(value)  # as this function returns them
    raise InvalidParameter(
        f"funding={value!r:.80} is not a frame; give timestamp, rate (and symbol) as a DataFrame"
    )


def _from_frame(frame: pl.DataFrame) -> Rates:
    names = set(frame.columns)
    if "timestamp" not in names or not ("rate" in names or {"rate_long", "rate_short"} <= names):
        raise InvalidParameter(
            f"funding has the columns {', '.join(frame.columns)}; it needs timestamp, and rate or "
            "rate_long and rate_short (and symbol, if they differ by symbol)"
        )
    if not isinstance(frame.schema["timestamp"], pl.Datetime):
        raise InvalidParameter("funding's timestamp is not a Datetime; cast it first")
    for name in names & {"rate", "rate_long", "rate_short"}:
        if not frame.schema[name].is_numeric():
            raise InvalidParameter(f"funding's {name} is {frame.schema[name]}, not a number")
    long = pl.col("rate") if "rate" in names else pl.col("rate_long")
    short = -pl.col("rate") if "rate" in names else pl.col("rate_short")
    plain = frame.select(
        pl.col("symbol").cast(pl.String) if "symbol" in names else pl.lit(None).alias("symbol"),
        pl.col("timestamp").dt.epoch("us").alias("time"),
        long.cast(pl.Float64).alias("long"),
        short.cast(pl.Float64).alias("short"),
    ).sort("time", maintain_order=True)
    for symbol, micros, *rates in plain.iter_rows():
        if micros is None or not all(r is not None and abs(r) <= LARGEST_RATE for r in rates):
            raise InvalidParameter(
                f"funding of {symbol or 'all symbols'} has the rate {rates[0]} and the time "
                f"{None if micros is None else from_micros(micros)}; a rate is a fraction of the "
                "notional, from -1 to 1, at a known time"
            )
    return tuple(plain.iter_rows())


def _unique(rates: Rates) -> Rates:
    """Return the rates, or refuse those that would be charged twice."""
    seen: dict[int, dict[str | None, tuple[float, float]]] = {}
    for symbol, micros, *pair in rates:
        there = seen.setdefault(micros, {})
        other = next((name for name in (symbol, None, *there) if name in there), symbol)
        if there and (symbol in there or symbol is None or None in there):
            again = there[other] == tuple(pair) and other == symbol
            raise InvalidParameter(
                f"funding has two rates at {from_micros(micros)} UTC, of {other or 'all symbols'} "
                f"({there[other][0]:g}) and of {symbol or 'all symbols'} ({pair[0]:g}): both would "
                f"be charged; {'repeated rows go with .unique()' if again else 'keep one'}"
            )
        there[symbol] = (pair[0], pair[1])
    return rates


def funding_records(rates: Rates, symbols: tuple[str, ...]) -> np.ndarray:
    """Return the kernel's `FUNDING` records of these symbols, ordered by (time, leg)."""
    rows = [
        (micros, leg, long, short)
        for wanted, micros, long, short in rates
        for leg, symbol in enumerate(symbols)
        if wanted is None or wanted == symbol
    ]
    return np.array(sorted(rows), FUNDING)


def swap_rates(
    symbol: str,
    start: Time,
    end: Time,
    *,
    long_annual: float,
    short_annual: float,
    days_per_year: float = 365.0,
) -> pl.DataFrame:
    """Return the swap of an FX position as `funding`: charged at 17:00 New York, Monday to Friday.

    Wednesday's rollover counts three days, because spot settles two days later and the weekend
    falls due then.

    Parameters
    ----------
    symbol
        The pair.
    start, end
        The time range to cover, half open.
    long_annual, short_annual
        What each side pays a year, as a fraction of notional; negative is received.

    Returns
    -------
    polars.DataFrame
        ``timestamp``, ``symbol``, ``rate_long``, ``rate_short``.
    """
    first, last = parse_range(start, end)
    if first is None or last is None:
        raise InvalidParameter("swap_rates needs a start and an end")
    if not days_per_year > 0:
        raise InvalidParameter(f"days_per_year={days_per_year!r} is not a number above zero")
    rows: list[dict[str, Any]] = []
    day: date = from_micros(first).astimezone(NEW_YORK).date()
    while day <= from_micros(last).date() + timedelta(days=1):
        moment = datetime.combine(day, ROLLOVER, NEW_YORK)
        if moment.weekday() < 5 and first <= to_micros(moment) < last:
            days = 3 if moment.weekday() == WEDNESDAY else 1
            share = days / days_per_year
            rows.append(
                {
                    "timestamp": from_micros(to_micros(moment)),
                    "symbol": symbol,
                    "rate_long": long_annual * share,
                    "rate_short": short_annual * share,
                }
            )
        day += timedelta(days=1)
    return pl.DataFrame(rows, schema=_SWAP)
