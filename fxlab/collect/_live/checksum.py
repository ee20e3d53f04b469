"""Order-independent checksum over rows, and the counts, range and checksum of the rows recorded.

Each row is hashed over its columns' 64-bit patterns, and hashes are added modulo 2^64, so a batch
can be added when it comes, and the whole be computed again from the database in any order. A lost,
duplicate or changed row changes the sum. The mixing function is SplitMix64's (Steele, Lea, Flood,
"Fast Splittable Pseudorandom Number Generators", OOPSLA 2014): good spread, nothing secret.

A `RowTally` is journaled in the same transaction as the rows it counts, so it is true after any
crash; the receipt of a session is made of them and compared with the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from fxlab.schema import CHANNELS, ORDERBOOK, PRICES, Table, book_levels, value_columns

MODULUS: Final = 2**64
SIDE_CODES: Final = {None: 0, "buy": 1, "sell": 2}

TRADE_COLUMNS: Final = ("timestamp", "seq", "price", "volume", "side", "received_at")
BOOK_COLUMNS: Final = ("timestamp", "seq", "received_at", *book_levels())

SUMMED: Final[dict[str, tuple[str, ...]]] = {
    PRICES.name: TRADE_COLUMNS,
    ORDERBOOK.name: BOOK_COLUMNS,
    **{
        table.name: ("timestamp", "seq", *value_columns(table), "received_at")
        for table in CHANNELS.values()
    },
}
"""Table to the columns that are hashed, in this order."""

_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_FIRST: Final = np.uint64(0xBF58476D1CE4E5B9)
_SECOND: Final = np.uint64(0x94D049BB133111EB)

Words = npt.NDArray[np.uint64]


def checksum(columns: Sequence[npt.ArrayLike]) -> int:
    """Return the sum of the hashes of rows given column by column.

    Parameters
    ----------
    columns
        Integers, floats (nan for a missing one) or codes, all of one length.
    """
    state: Words | None = None
    for values in columns:
        word = _words(np.asarray(values))
        state = _mix(word if state is None else state ^ word)
    return 0 if state is None else int(np.add.reduce(state, dtype=np.uint64))


def frame_checksum(table: Table, frame: pl.DataFrame) -> int:
    """Return the checksum of rows as they are read from a tick table."""
    return checksum([_column(frame, name) for name in SUMMED[table.name]])


def _column(frame: pl.DataFrame, name: str) -> npt.NDArray[Any]:
    values = frame[name]
    if name == "side":
        codes = pl.when(pl.col(name) == "buy").then(1).when(pl.col(name) == "sell").then(2)
        return frame.select(codes.otherwise(0).cast(pl.Int64)).to_series().to_numpy()
    if isinstance(values.dtype, pl.Datetime):
        return values.to_physical().fill_null(0).to_numpy()
    if values.dtype == pl.Float64:
        return values.fill_null(float("nan")).to_numpy()
    return values.to_numpy()


def as_number(kind: str, value: Any) -> float | int:  # noqa: ANN401 - of a column of that type
    """Return what is hashed of one value of a channel's row, also of a missing one."""
    if kind == "SYMBOL":
        return SIDE_CODES[value]
    if value is None:
        return 0 if kind == "TIMESTAMP" else float("nan")
    return int(value) if kind == "TIMESTAMP" else float(value)


def _words(values: npt.NDArray[Any]) -> Words:
    """Return 64-bit patterns; all missing numbers look the same, and so do both zeros."""
    if values.dtype.kind == "f":
        plain = np.where(np.isnan(values), np.nan, values + 0.0)
        return plain.astype(np.float64).view(np.uint64)
    return values.astype(np.int64).view(np.uint64)


def _mix(state: Words) -> Words:
    with np.errstate(over="ignore"):
        state = state + _ODD
        state = (state ^ (state >> np.uint64(30))) * _FIRST
        state = (state ^ (state >> np.uint64(27))) * _SECOND
    return state ^ (state >> np.uint64(31))


@dataclass(slots=True)
class RowTally:
    """Rows of one symbol, data type and origin.

    Attributes
    ----------
    rows
        How many.
    first_seq, last_seq
        Lowest and highest row identity.
    first_time, last_time
        Earliest and latest timestamp, in microseconds.
    checksum
        Of `fxlab.collect._live.checksum`.
    """

    rows: int = 0
    first_seq: int = 0
    last_seq: int = 0
    first_time: int = 0
    last_time: int = 0
    checksum: int = 0

    def add(
        self, times: Sequence[int], seqs: Sequence[int], others: Sequence[npt.ArrayLike]
    ) -> None:
        """Count rows, given by the columns that are summed."""
        low, high = min(seqs), max(seqs)
        early, late = min(times), max(times)
        self.first_seq = min(self.first_seq, low) if self.rows else low
        self.last_seq = max(self.last_seq, high) if self.rows else high
        self.first_time = min(self.first_time, early) if self.rows else early
        self.last_time = max(self.last_time, late) if self.rows else late
        self.rows += len(times)
        self.checksum = (self.checksum + checksum([times, seqs, *others])) % MODULUS

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold without rounding."""
        return {**asdict(self), "checksum": f"{self.checksum:016x}"}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Return what `to_json` described."""
        return cls(**{**found, "checksum": int(found["checksum"], 16)})
