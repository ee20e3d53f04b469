"""What a recorder says it has stored: rows, range and checksum of each kind of row.

Tallies are journaled in the same transaction as the rows they count, so they are true after any
crash; the receipt of a session is made of them and compared with the database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy.typing as npt

from fxlab.collect.checksum import MODULUS, checksum


@dataclass(slots=True)
class Tally:
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
        Of `fxlab.collect.checksum`.
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
