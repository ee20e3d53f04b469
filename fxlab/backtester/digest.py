"""The hash of the rows that a run read: part of its fingerprint.

Columns are hashed one by one, so that the chunks they came in cannot change the hash. Time, seq
and price are always in it, and every other column that the strategy reads.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import xxhash

from fxlab.backtester.indicators import PRICE_TICKS

ALWAYS = ("timestamp", "seq", "price")


class Digest:
    """Hashes the rows read by one symbol's strategy."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, xxhash.xxh3_128] = {}
        self._fed: dict[str, int] = {}

    def update(self, rows: pl.DataFrame, names: frozenset[str] | None) -> None:
        """Feed some rows: time, seq, price, and the columns named (None is all)."""
        self.rows += rows.height
        for name in rows.columns:
            if name == PRICE_TICKS:  # the price again
                continue
            if name in ALWAYS or names is None or name in names:
                self._feed(name, rows[name])

    def update_books(self, books: pl.DataFrame) -> None:
        """Feed the books that orders meet."""
        for name in books.columns:
            if name != "symbol":
                self._feed(f"books.{name}", books[name])

    def hexdigest(self) -> str:
        """Return the digest of all columns and the number of rows."""
        parts = (f"{name}={hasher.hexdigest()}" for name, hasher in sorted(self._columns.items()))
        return f"{self.rows}:" + ":".join(parts)

    def _feed(self, name: str, values: pl.Series) -> None:
        first = self._fed.get(name, 0)
        self._fed[name] = first + len(values)
        if values.null_count():  # by their place in the whole, which no chunk can change
            missing = values.is_null().arg_true().to_numpy().astype(np.int64) + first
            self._hasher(f"{name}?").update(np.ascontiguousarray(missing).data)
        if values.dtype == pl.Boolean:
            values = values.cast(pl.UInt8)
        if values.dtype.is_numeric() or values.dtype.is_temporal():
            plain = values.to_physical()
            plain = plain.fill_null(0) if plain.null_count() else plain
            self._hasher(name).update(np.ascontiguousarray(plain.to_numpy()).data)
            return
        # Categories are numbered in order of appearance: their words are what was read.
        words = values.cast(pl.String).fill_null("")
        sizes = words.str.len_bytes().to_numpy().astype(np.int64)
        self._hasher(f"{name}#").update(np.ascontiguousarray(sizes).data)
        self._hasher(name).update("".join(words.to_list()).encode())

    def _hasher(self, name: str) -> xxhash.xxh3_128:
        return self._columns.setdefault(name, xxhash.xxh3_128())
