"""Tick primitives: price decimals, mids of quotes, book levels, gaps, time spans, instruments.

Decimals. How many decimals write a column of prices exactly is what makes integer arithmetic
possible. The difference or mean of two decimal prices is seldom the double nearest to the decimal
result (61837.64 - 61837.63 is 0.010000000002037268), so mid and spread are rounded to the decimals
that the prices themselves have: 0.01 is 0.01.

Spans. Gaps of a recording (overlaps merged), positions and the intervals of a chart are all spans
of time; how much of one lies in another is one question, answered once, exactly, in whole
microseconds.

Instruments. What listings say of sizes and fees comes in many forms, and is kept as plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from fxlab._times import integer, required
from fxlab.errors import InvalidParameter, check_names
from fxlab.schema import BOOK_DEPTH, CHANNELS, INSTRUMENT, UTC_MICROS, book_levels, check_symbol

MAX_DECIMALS: Final = 22  # the largest power of ten that a float holds exactly
PRICE_TICKS: Final = "price_ticks"
LARGEST_TICKS: Final = 1e14  # beyond, neighbouring ticks come close to a float's own spacing
UNIT_DECIMALS: Final = 13  # of a price below ten, so that it has no more ticks than that
BLOCK_ROWS: Final = 16_384  # a block and its temporaries stay in the cache
ROUNDING: Final = 4 * 2.0**-53  # a few units in the last place


def find_decimals(prices: pl.Series, least: int = 0) -> int | None:
    """Return the smallest number of decimals, from a least one on, that writes all prices, or None.

    A price has d decimals if it is the double nearest to such a number, or within a few units in
    the last place of it: a mid of two quotes, or a price after an addition, is off by one or two.
    None if no number of decimals fits that 64-bit floats can still tell apart.
    """
    values = (prices.drop_nulls() if prices.null_count() else prices).to_numpy()
    largest = float(values.max(initial=0.0))
    start = least
    # A small sample rules out most candidates; one full pass confirms the survivor.
    for some in (values[:1000], values) if len(values) > 1000 else (values,):
        for decimals in range(start, MAX_DECIMALS + 1):
            if largest * 10.0**decimals > LARGEST_TICKS:
                return None
            if _has_decimals(some, decimals):
                start = decimals
                break
        else:
            return None
    return start


def _has_decimals(values: np.ndarray, decimals: int) -> bool:
    scale = 10.0**decimals
    for start in range(0, len(values), BLOCK_ROWS):
        block = values[start : start + BLOCK_ROWS]
        off = np.abs(np.rint(block * scale) / scale - block)
        if not (off <= ROUNDING * block).all():
            return False
    return True


def advice(prices: pl.Series) -> str:
    """Return what brings these prices on a grid, worked out from them."""
    low, high = float(prices.min() or 1.0), float(prices.max() or 1.0)  # type: ignore[arg-type]
    fitting = [d for d in range(MAX_DECIMALS + 1) if high * 10.0**d <= LARGEST_TICKS]
    if fitting and low * 10.0 ** fitting[-1] >= 1.0:
        return f"round them first: pl.col('price').round({fitting[-1]})"
    exponent = math.floor(math.log10(high))
    if low / 10.0**exponent * 10.0**UNIT_DECIMALS >= 1.0:
        return (
            f"they need another unit: (pl.col('price') * 1e{-exponent}).round({UNIT_DECIMALS}), "
            f"and money is in that unit then"
        )
    return (
        f"they run from {low:g} to {high:g}, too far apart for one grid of 64-bit integers: use a "
        "strategy that reads price, not price_ticks"
    )


BEST: Final = ("bid_price_1", "ask_price_1")


def mid(decimals: int | None) -> pl.Expr:
    """Return the mean of the best prices, rounded to decimals; null if a side is empty."""
    bid, ask = map(pl.col, BEST)
    return rounded((bid + ask) / 2, decimals)


def spread(decimals: int | None) -> pl.Expr:
    """Return best ask minus best bid, rounded to decimals; null if a side is empty."""
    bid, ask = map(pl.col, BEST)
    return rounded(ask - bid, decimals)


def with_mid_price(frame: pl.DataFrame, decimals: int | None) -> pl.DataFrame:
    """Add the mid as `price`; leave out rows that have none: a side is empty, or they cross.

    Equal prices are no cross: quotes put together from many banks lock now and then.
    """
    bid, ask = map(pl.col, BEST)
    return frame.with_columns(price=mid(decimals)).filter(bid <= ask)


def usable(columns: Collection[str]) -> pl.Expr:
    """Return whether a book can be trusted.

    It shows something, no level is missing before another, bids fall and asks rise from level to
    level, the best bid is below the best ask, prices are above zero and quantities not below it.
    Judged by the levels that `columns` name.
    """
    sides = {side: _levels(columns, f"{side}_price_") for side in ("bid", "ask")}
    checks = [worse.is_null() | _known(better > worse) for better, worse in pairwise(sides["bid"])]
    checks += [worse.is_null() | _known(better < worse) for better, worse in pairwise(sides["ask"])]
    checks += [bid < ask for bid in sides["bid"][:1] for ask in sides["ask"][:1]]
    prices = [*sides["bid"], *sides["ask"]]
    checks += [(price > 0) & price.is_finite() for price in prices]
    for side in ("bid", "ask"):
        checks += [(qty >= 0) & qty.is_finite() for qty in _levels(columns, f"{side}_qty_")]
    shown = pl.any_horizontal(pl.lit(value=False), *(price.is_not_null() for price in prices))
    return pl.all_horizontal(shown, *(check.fill_null(value=True) for check in checks))


def trusted(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame in which books that cannot be trusted are not there: their levels are null."""
    names = [name for name in book_levels() if name in frame.columns]
    if not any("_price_" in name for name in names):
        return frame
    good = frame.select(usable(names)).to_series()
    if good.all():
        return frame
    return frame.with_columns(pl.when(good).then(pl.col(names)))


def _known(check: pl.Expr) -> pl.Expr:
    return check.fill_null(value=False)


def _levels(columns: Collection[str], start: str) -> list[pl.Expr]:
    names = [f"{start}{level}" for level in range(1, BOOK_DEPTH + 1)]
    there = [pl.col(name).cast(pl.Float64) for name in names if name in columns]
    return [level.fill_nan(None) for level in there]


def price_decimals(frame: pl.DataFrame) -> int | None:
    """Return the decimals that write all best prices exactly, or None if no number does."""
    return find_decimals(pl.concat([frame[name].alias("price") for name in BEST]))


def mid_decimals(frame: pl.DataFrame, least: int = 0) -> int | None:
    """Return the decimals that write all mids exactly, or None if no number does."""
    decimals = price_decimals(frame)
    if decimals is None:
        return None
    return find_decimals(frame.select(mid(decimals + 1)).to_series(), least)


def rounded(value: pl.Expr, decimals: int | None) -> pl.Expr:
    """Return the double nearest to a decimal number; None leaves the value as it is."""
    # Not (value * scale).round() / scale: Polars divides by a constant as it would multiply by
    # the inverse, and 3 / 10 is 0.30000000000000004 then.
    return value if decimals is None else value.round(decimals)


def level_columns(depth: int = BOOK_DEPTH) -> list[str]:
    """Return `fxlab.schema.book_levels` for a depth that a user gave."""
    rule = f"depth={depth!r:.80} is not a number of levels; give 1 to {BOOK_DEPTH}"
    return book_levels(required(integer(depth, 1, BOOK_DEPTH), rule))


def shaped(frame: pl.DataFrame, depth: int, *, nested: bool) -> pl.DataFrame:
    """Add `spread` and `mid`; with `nested` turn the levels into lists of [price, qty]."""
    decimals = price_decimals(frame)
    finer = None if decimals is None else decimals + 1
    whole = frame.with_columns(spread=spread(decimals), mid=mid(finer))
    if not nested:
        return whole
    sides = [_nested("bid", depth).alias("bids"), _nested("ask", depth).alias("asks")]
    return whole.select("timestamp", "symbol", "seq", *sides, "spread", "mid")


def _nested(side: str, depth: int) -> pl.Expr:
    levels = [
        pl.when(pl.col(f"{side}_price_{level}").is_not_null()).then(
            pl.concat_arr(f"{side}_price_{level}", f"{side}_qty_{level}")
        )
        for level in range(1, depth + 1)
    ]
    return pl.concat_list(levels).list.drop_nulls().cast(pl.List(pl.List(pl.Float64)))


GAPS: Final = {"from_time": UTC_MICROS, "to_time": UTC_MICROS}


def merged(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the intervals of a frame with ``from_time`` and ``to_time``, joined and in order.

    Intervals that touch or overlap become one; empty ones (to before from) stay points in time.
    """
    start, end = pl.col("from_time"), pl.col("to_time")
    ordered = (
        frame.select(start.cast(UTC_MICROS), end.fill_null(start).cast(UTC_MICROS))
        .drop_nulls()
        .with_columns(to_time=pl.max_horizontal(start, end))
        .sort("from_time", "to_time")
    )
    apart = start > end.cum_max().shift(1)
    return (
        ordered.with_columns(number=apart.fill_null(value=True).cum_sum())
        .group_by("number", maintain_order=True)
        .agg(start.first(), end.max())
        .select(*GAPS)
    )


def merged_by_symbol(gaps: pl.DataFrame, symbols: Iterable[str]) -> dict[str, pl.DataFrame]:
    """Return the merged gaps of each symbol: its own, and those that name none; in one pass."""
    named = pl.col("symbol").cast(pl.String).fill_null("")
    shared = gaps.filter(named == "")
    own = gaps.filter(named != "").partition_by("symbol", as_dict=True)
    by_name = {str(key): part for (key,), part in own.items()}
    of_all = merged(shared)
    return {
        symbol: merged(pl.concat([shared, by_name[symbol]])) if symbol in by_name else of_all
        for symbol in symbols
    }


def known_gaps(
    events: pl.DataFrame, symbols: Iterable[str], data_type: str | None = None
) -> dict[str, pl.DataFrame]:
    """Return the gaps among the events that are a symbol's and were not filled, merged, of each.

    With a data type, without those that the recorder says are of another one; without one, those of
    ticks: what is missing of mark prices is no gap of the market.
    """
    gaps = events.filter(
        pl.col("event") == "gap", pl.col("count").is_null() | (pl.col("count") != 0)
    )
    said = pl.col("detail").str.extract(r'^\{"what": "(\w+)"')
    mine = ~said.is_in([*CHANNELS]) if data_type is None else said == data_type
    gaps = gaps.filter(said.is_null() | mine)
    gaps = gaps.with_columns(pl.col("from_time").fill_null(pl.col("timestamp")))
    return merged_by_symbol(gaps, symbols)


def gap_list(events: pl.DataFrame) -> pl.DataFrame:
    """Return each gap among the events of a recording by itself, as its recorder tells of it."""
    said = {name: pl.col("detail").str.json_path_match(f"$.{name}")
            for name in ("what", "state", "cause", "backfill")}  # fmt: skip
    filled = pl.when(pl.col("count") == 0).then(pl.lit("filled")).otherwise(pl.lit("open"))
    return events.filter(pl.col("event") == "gap").select(
        "symbol",
        "from_time",
        "to_time",
        data_type=said["what"],
        missing="count",
        state=pl.coalesce(said["state"], filled),
        cause=said["cause"],
        answer=said["backfill"],
    )


Micros = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spans:
    """Half-open spans ``[start, end)`` in µs, rising, none touching another.

    Build them with `of`, which sorts, merges, and drops what is empty.
    """

    starts: Micros
    ends: Micros

    @classmethod
    def of(cls, starts: Micros, ends: Micros) -> Self:
        """Return the union of spans in any order; those that overlap or touch become one."""
        real = ends > starts
        order = np.argsort(starts[real], kind="stable")
        starts, ends = starts[real][order], ends[real][order]
        reach = np.maximum.accumulate(ends)
        fresh = np.ones(len(starts), dtype=bool)
        fresh[1:] = starts[1:] > reach[:-1]
        last = np.append(fresh[1:], True) if len(starts) else fresh
        return cls(starts[fresh], reach[last])

    @property
    def total(self) -> int:
        """Return the time covered, in µs."""
        return int((self.ends - self.starts).sum())

    def union(self, other: Spans) -> Spans:
        """Return what either covers."""
        return Spans.of(
            np.concatenate((self.starts, other.starts)), np.concatenate((self.ends, other.ends))
        )

    def before(self, times: Micros) -> Micros:
        """Return how much is covered before each time, in µs."""
        lengths = np.concatenate(([0], np.cumsum(self.ends - self.starts)))
        count = np.searchsorted(self.starts, times, side="right")
        ends = np.concatenate(([np.iinfo(np.int64).min // 2], self.ends))
        return np.asarray(lengths[count] - np.maximum(0, ends[count] - times), dtype=np.int64)

    def inside(self, starts: Micros, ends: Micros) -> Micros:
        """Return how much of each of the given spans is covered, in µs."""
        return self.before(ends) - self.before(starts)

    def overlap(self, other: Spans) -> Spans:
        """Return what both cover."""
        edges = np.unique(np.concatenate((self.starts, self.ends, other.starts, other.ends)))
        starts, ends = edges[:-1], edges[1:]
        both = (self.inside(starts, ends) > 0) & (other.inside(starts, ends) > 0)
        return Spans.of(starts[both], ends[both])

    def within(self, first: int, last: int) -> Spans:
        """Return the part between two times."""
        return Spans.of(np.clip(self.starts, first, last), np.clip(self.ends, first, last))


_SIZES: Final = (1e-22, 1e18)
_FEES: Final = (-100.0, 1_000.0)
_BOUNDS: Final = {
    **dict.fromkeys(("contract_size", "tick_size", "lot_size", "min_qty", "min_notional"), _SIZES),
    **dict.fromkeys(("taker_bps", "maker_bps"), _FEES),
}


def instrument_terms(
    *, contract: object = 1, fee_bps: object = 1, **said: object
) -> dict[str, Any]:
    """Return what a listing says of an instrument, as plain values by names in `INSTRUMENT`.

    Parameters
    ----------
    contract
        Base units in which `lot_size` and `min_qty` are counted.
    fee_bps
        Basis points in which `taker_bps` and `maker_bps` are counted.
    **said
        Numbers may be texts. What is empty, zero or no number that an `Execution` would take is
        left out: a listing that is odd in a size can be recorded all the same.
    """
    check_names(said, INSTRUMENT, "an instrument")
    found: dict[str, Any] = {}
    units = {"lot_size": contract, "min_qty": contract, "taker_bps": fee_bps, "maker_bps": fee_bps}
    for name, value in said.items():
        if name not in _BOUNDS:
            kind = {"expiry": int, "fee_tiers": list}.get(name, str)
            found |= {name: value} if value and isinstance(value, kind) else {}
            continue
        try:
            number = float(Decimal(str(value)) * Decimal(str(units.get(name, 1))))
        except (ArithmeticError, ValueError):
            continue
        low, high = _BOUNDS[name]
        if low <= number <= high:
            found[name] = number
    return found


def instruments_frame(listed: Mapping[str, Mapping[str, Any]]) -> pl.DataFrame:
    """Return what is known of instruments (symbol to `instrument_terms`), one row a symbol."""
    rows = [{"symbol": symbol, **terms} for symbol, terms in sorted(listed.items()) if terms]
    expiry = pl.col("expiry").cast(UTC_MICROS)
    plain = {"symbol": pl.String(), **INSTRUMENT, "expiry": pl.Int64()}
    return pl.DataFrame(rows, schema=plain).with_columns(expiry)


def listed_instruments(frame: object) -> dict[str, dict[str, Any]]:
    """Return what a frame such as `Session.instruments` says of each symbol, as it is kept.

    Raises
    ------
    InvalidParameter
        If it is no such frame, names a symbol twice, or has a value that is no size or fee.
    """
    if not isinstance(frame, pl.DataFrame) or "symbol" not in frame.columns:
        raise InvalidParameter(
            f"instruments={frame!r:.80} is no frame of instruments; give one with symbol, "
            "lot_size, tick_size and others, as session.instruments() returns it"
        )
    if twice := frame.filter(frame["symbol"].is_duplicated())["symbol"].to_list():
        raise InvalidParameter(f"instruments has {twice[0]!r} twice; give one row a symbol")
    if isinstance(frame.schema.get("expiry"), pl.Datetime):
        frame = frame.with_columns(pl.col("expiry").cast(UTC_MICROS).to_physical())
    found: dict[str, dict[str, Any]] = {}
    for row in frame.to_dicts():
        symbol = check_symbol(row.pop("symbol"))
        found[symbol] = instrument_terms(**row)
        for name, value in row.items():
            if value is not None and name not in found[symbol]:
                raise InvalidParameter(
                    f"instruments: {name}={value!r:.40} of {symbol} is none that an order could "
                    "keep to; leave it null if it is not known"
                )
    return found
