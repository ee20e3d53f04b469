"""Understand rows: from a file's columns to those of the tick tables, losing and inventing nothing.

Three shapes are known by their columns: trades, quotes (best bid and ask) and books (up to ten
levels). A column that has no place in the tables is refused, not dropped. Doubled rows are kept:
most are real trades of the same millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from fxlab.books import level_columns
from fxlab.collect import fields
from fxlab.collect.checks import Place, check
from fxlab.collect.fields import Field
from fxlab.errors import did_you_mean
from fxlab.schema import BOOK_DEPTH, ORDERBOOK, PRICES, Table

VENUE_SEQ: Final = "venue_seq"
"""The venue's number of a row, if it gave one: the wish for `seq`, granted by the importer."""

_VOLUMES: Final = ("volume", "qty", "amount")
_HEAD: Final = ("symbol", "recv_ns", "received_at", "seq")
_OWN: Final = ("session_id", "origin")  # of an exported frame; the new session has its own
_DERIVED: Final = ("best_bid", "best_ask", "spread", "mid")  # follow from the levels
_TIMES: Final = ("timestamp", "received_at")
_WORDS: Final = ("symbol", "side", "buyer_is_maker", "is_snapshot", "trade_id", *_OWN)
_ONE_OF: Final = (_VOLUMES, ("recv_ns", "received_at"), ("side", "buyer_is_maker"))


@dataclass(frozen=True, slots=True)
class Shape:
    """One known set of columns."""

    name: str
    data_type: str
    table: Table
    needed: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def known(self) -> tuple[str, ...]:
        """Return all column names that have a meaning here."""
        return (*self.needed, *self.optional, *_HEAD, *_OWN)


TRADES: Final = Shape(
    "trades",
    "prices",
    PRICES,
    ("timestamp", "price"),
    (*_VOLUMES, "quote_volume", "trade_id", "side", "buyer_is_maker"),
)
BOOKS: Final = Shape(
    "books",
    "orderbook",
    ORDERBOOK,
    ("timestamp", "bid_price_1", "ask_price_1"),
    (*level_columns(), "first_update_id", "last_update_id", "is_snapshot", *_DERIVED),
)
QUOTES: Final = Shape(
    "quotes", "orderbook", ORDERBOOK, ("timestamp", "bid", "ask"), ("bid_size", "ask_size", "mid")
)
SHAPES: Final = (TRADES, BOOKS, QUOTES)


def understand(place: Place, raw: pl.DataFrame, symbol: str | None) -> tuple[Shape, pl.DataFrame]:
    """Return the shape of a file's rows, and the rows with the columns of its table.

    Parameters
    ----------
    place
        Where they came from, for errors.
    raw
        Columns as in the file: text (CSV) or typed (Parquet).
    symbol
        For a file without a symbol column.

    Returns
    -------
    (Shape, polars.DataFrame)
        The frame has `VENUE_SEQ` and the table's columns but ``session_id``, ``origin`` and
        ``seq``; the rows are in the file's order.

    Raises
    ------
    ImportRefused
        For unknown columns, and for the first row that is not a tick: a missing or odd number, a
        price not above zero, a negative quantity, a time that is none, an unknown side.
    """
    shape = shape_of(place, raw.columns)
    _refuse_odd_types(place, raw)
    named = _with_symbol(place, raw, symbol)
    wanted = [*_head(named), *_BODIES[shape.name](named)]
    rows = named.select(field.value.alias(field.target) for field in wanted)
    check(place, named, rows, wanted)
    return shape, _completed(shape, named, rows)


def shape_of(place: Place, names: Sequence[str]) -> Shape:
    """Return the shape that the columns have, or refuse them with what is known."""
    shape = next((shape for shape in SHAPES if set(shape.needed) <= set(names)), None)
    if shape is None:
        known = "; ".join(f"{shape.name} have {', '.join(shape.needed)}" for shape in SHAPES)
        place.refuse(f"the columns {', '.join(names)} are of no kind that fxlab knows ({known})")
    _refuse_odd_columns(place, shape, names)
    return shape


def _refuse_odd_columns(place: Place, shape: Shape, names: Sequence[str]) -> None:
    for name in names:
        if name not in shape.known:
            hint = did_you_mean(name, shape.known) or "rename it or take it out of the file"
            place.refuse(
                f"column {name!r} has no place among {shape.name} and would be lost; {hint}"
            )
    for group in _ONE_OF:
        found = [name for name in group if name in names]
        if len(found) > 1:
            place.refuse(f"columns {' and '.join(found)} say the same; take one out of the file")
    if shape is TRADES and not set(_VOLUMES) & set(names):
        place.refuse(f"trades need one of the columns {', '.join(_VOLUMES)}")


def _refuse_odd_types(place: Place, raw: pl.DataFrame) -> None:
    """Refuse a typed column that Polars would turn into a number, and that is none."""
    for name, kind in raw.schema.items():
        if name in _WORDS:
            fits = kind.is_integer() or isinstance(kind, pl.Boolean | pl.Categorical | pl.Enum)
        else:
            fits = kind.is_numeric() or (name in _TIMES and isinstance(kind, pl.Datetime))
        if not fits and kind not in (pl.String, pl.Null):
            wanted = "text" if name in _WORDS else "a time" if name in _TIMES else "a number"
            place.refuse(f"column {name!r} is {kind}, not {wanted}; cast it before")


def _with_symbol(place: Place, raw: pl.DataFrame, symbol: str | None) -> pl.DataFrame:
    if "symbol" not in raw.columns and symbol is None:
        place.refuse("it has no column symbol; say which it is: symbol=")
    if "symbol" in raw.columns and symbol is not None:
        place.refuse(f"it has a column symbol, so symbol={symbol!r} cannot be given too")
    return raw if symbol is None else raw.with_columns(pl.lit(symbol).alias("symbol"))


def _head(raw: pl.DataFrame) -> list[Field]:
    """Return what all shapes have: times, symbol, and the venue's number of the row."""
    found = [_moment(raw, "timestamp"), fields.symbol()]
    if "received_at" in raw.columns:
        found.append(_moment(raw, "received_at").or_nothing())
    if "recv_ns" in raw.columns:
        found.append(fields.nanoseconds("received_at", "recv_ns").or_nothing())
    for source in ("seq", "last_update_id"):
        if source in raw.columns:
            found.append(fields.whole(VENUE_SEQ, source).or_nothing())
            break
    return found


def _moment(raw: pl.DataFrame, name: str) -> Field:
    return fields.moment(name, name, raw.schema[name], fields.first_value(raw, name))


def _trades(raw: pl.DataFrame) -> list[Field]:
    volume = next(name for name in _VOLUMES if name in raw.columns)
    found = [fields.price("price", "price"), fields.quantity("volume", volume)]
    if "quote_volume" in raw.columns:
        found.append(fields.quantity("quote_volume", "quote_volume").or_nothing())
    else:
        product = fields.number("price") * fields.number(volume)
        finite = pl.col("quote_volume").is_finite()
        found.append(Field("quote_volume", "price", product, finite, "price * volume is finite"))
    if "side" in raw.columns:
        found.append(fields.side().or_nothing())
    if "buyer_is_maker" in raw.columns:
        found.append(fields.side_of_maker().or_nothing())
    return found


def _quotes(raw: pl.DataFrame) -> list[Field]:
    found = [fields.price("bid_price_1", "bid"), fields.price("ask_price_1", "ask")]
    sizes = [
        fields.quantity(f"{side}_qty_1", f"{side}_size").or_nothing()
        for side in ("bid", "ask")
        if f"{side}_size" in raw.columns
    ]
    return [*found, *sizes]


def _books(raw: pl.DataFrame) -> list[Field]:
    found = [
        field
        for side in ("bid", "ask")
        for level in range(1, BOOK_DEPTH + 1)
        for field in _level(raw, f"{side}_price_{level}", f"{side}_qty_{level}")
    ]
    if "first_update_id" in raw.columns:
        found.append(fields.whole("first_update_id", "first_update_id").or_nothing())
    return found


def _level(raw: pl.DataFrame, price: str, qty: str) -> list[Field]:
    """Return price and quantity of a level; both 0 or both empty where the level is missing."""
    if price not in raw.columns:
        return []
    value = pl.col(price)
    holds = value.is_finite() & (value >= 0)
    rule = "a price is a finite number above zero, or 0 where the level is missing"
    found = [Field(price, price, fields.number(price), holds, rule).or_nothing()]
    if qty in raw.columns:
        size = fields.quantity(qty, qty).or_nothing()
        of_a_level = (value > 0).fill_null(value=False) | (pl.col(qty).fill_null(0) == 0)
        rule = f"{size.rule}, and belongs to a price"
        found.append(Field(qty, qty, size.value, size.holds & of_a_level, rule))
    return found


_BODIES: Final = {"trades": _trades, "quotes": _quotes, "books": _books}


def _completed(shape: Shape, raw: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Add what follows from the columns, null for what the file does not say, in table order."""
    extra: list[pl.Series] = []
    if shape is TRADES and "trade_id" in raw.columns:
        given = raw["trade_id"].cast(pl.String)
        extra.append(given)
        if VENUE_SEQ not in rows.columns:
            extra.append(given.cast(pl.Int64, strict=False).alias(VENUE_SEQ))
    if shape.table is ORDERBOOK:
        extra.append(_is_snapshot(raw))
        rows = _without_missing_levels(rows)
    rows = rows.with_columns(extra)
    types = {**shape.table.frame, VENUE_SEQ: pl.Int64()}
    kept = [name for name in types if name not in (*_OWN, "seq")]
    blank = [pl.lit(None, types[name]).alias(name) for name in kept if name not in rows.columns]
    return rows.with_columns(blank).select(kept)


def _is_snapshot(raw: pl.DataFrame) -> pl.Series:
    """Return whether each row stands alone: all do, unless they count the venue's updates."""
    if "is_snapshot" in raw.columns:
        return raw.select(fields.flag("is_snapshot").fill_null(value=False)).to_series()
    alone = "last_update_id" not in raw.columns
    return pl.repeat(alone, raw.height, dtype=pl.Boolean, eager=True).alias("is_snapshot")


def _without_missing_levels(rows: pl.DataFrame) -> pl.DataFrame:
    """Turn the 0 that the older system wrote for a missing level into null."""
    prices = [name for name in rows.columns if "_price_" in name]
    sizes = [name for name in rows.columns if "_qty_" in name]
    there = {name: pl.col(name) > 0 for name in prices}
    return rows.with_columns(
        *(pl.when(there[name]).then(pl.col(name)) for name in prices),
        *(pl.when(there[name.replace("qty", "price")]).then(pl.col(name)) for name in sizes),
    )
