"""From chunks of ticks to the time-merged arrays that the kernel replays.

A strategy is evaluated per symbol on each chunk, with as many rows in front of it as it looks
back, so that chunking cannot be seen in its output. Several symbols are then merged by time; at
equal times the order of the symbols decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import xxhash

from fxlab.backtester.indicators import PRICE_TICKS
from fxlab.backtester.strategy import Signals
from fxlab.backtester.ticks import OrderCheck, with_price_ticks
from fxlab.errors import InvalidParameter


@dataclass(frozen=True, slots=True)
class Rows:
    """Aligned arrays of replayable rows: int64 µs, float64, float64 (nan keeps), int64 leg."""

    time: np.ndarray
    price: np.ndarray
    target: np.ndarray
    leg: np.ndarray

    def part(self, first: int, last: int | None = None) -> Rows:
        """Return a slice; nothing is copied."""
        cut = slice(first, last)
        return Rows(self.time[cut], self.price[cut], self.target[cut], self.leg[cut])


class Digest:
    """Hashes the rows read, column by column, so that chunking cannot change it."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns = [xxhash.xxh3_128() for _ in range(3)]

    def update(self, *columns: np.ndarray) -> None:
        """Feed one chunk of time, seq and price."""
        self.rows += len(columns[0])
        for hasher, values in zip(self._columns, columns, strict=True):
            hasher.update(np.ascontiguousarray(values).data)

    def hexdigest(self) -> str:
        """Return the digest of all columns and the number of rows."""
        return f"{self.rows}:" + ":".join(hasher.hexdigest() for hasher in self._columns)


@dataclass
class SymbolStream:
    """One symbol's ticks with the strategy's targets, chunk by chunk."""

    symbol: str
    number: int
    chunks: Iterable[pl.DataFrame]
    signals: Signals
    decimals: int | None
    max_leverage: float
    digest: Digest

    def __iter__(self) -> Iterator[Rows]:
        """Yield checked rows with their targets."""
        order = OrderCheck(self.symbol)
        tail: pl.DataFrame | None = None
        for chunk in self._whole_or_chunks():
            time = chunk["timestamp"].to_physical().to_numpy()
            seq, price = chunk["seq"].to_numpy(), chunk["price"].to_numpy()
            order.check(time, seq, price)
            self.digest.update(time, seq, price)
            ticks = with_price_ticks(chunk, self.decimals)
            frame = ticks if tail is None else pl.concat([tail, ticks])
            targets = evaluate(self.signals, self.symbol, frame, max_leverage=self.max_leverage)
            target = targets[frame.height - chunk.height :]
            yield Rows(time, price, target, np.full(len(time), self.number, np.int64))
            tail = frame.tail(self.signals.lookback or 0)

    def _whole_or_chunks(self) -> Iterator[pl.DataFrame]:
        chunks = (chunk for chunk in self.chunks if chunk.height)
        if self.signals.lookback is not None:
            yield from chunks
            return
        frames = list(chunks)
        if frames:
            yield pl.concat(frames)


def evaluate(
    signals: Signals, symbol: str, frame: pl.DataFrame, *, max_leverage: float = np.inf
) -> np.ndarray:
    """Return a strategy's target of each row (nan keeps), checked.

    Raises
    ------
    InvalidParameter
        For a target that is NaN or beyond `max_leverage`, or a column that is not there.
    """
    target = _target(signals, symbol, frame)
    if target.is_nan().any():
        raise InvalidParameter(
            f"{symbol}: the strategy's target is NaN in row {target.is_nan().arg_max()}; "
            "use null to keep the position"
        )
    worst = max(target.max() or 0.0, -(target.min() or 0.0))  # type: ignore[operator]
    if worst > max_leverage:  # type: ignore[operator]
        raise InvalidParameter(
            f"{symbol}: the strategy's target {worst} is beyond max_leverage="
            f"{max_leverage:g}; scale the target or raise Execution(max_leverage=...)"
        )
    return target.fill_null(np.nan).to_numpy()


def _target(signals: Signals, symbol: str, frame: pl.DataFrame) -> pl.Series:
    try:
        evaluated = frame.select(signals.target.alias("target"))
    except pl.exceptions.ColumnNotFoundError as error:
        raise InvalidParameter(_missing_column(signals, symbol, frame)) from error
    target = evaluated["target"].cast(pl.Float64)
    if target.len() != frame.height:  # a constant target
        target = target.new_from_index(0, frame.height)
    return target


def _missing_column(signals: Signals, symbol: str, frame: pl.DataFrame) -> str:
    missing = [name for name in signals.target.meta.root_names() if name not in frame.columns]
    if PRICE_TICKS in missing:
        return (
            f"{symbol}: its prices are on no decimal grid, so there is no {PRICE_TICKS}; "
            "round them first, for example pl.col('price').round(2)"
        )
    return (
        f"{symbol}: the strategy asks for {', '.join(map(repr, missing))}, which the "
        f"ticks do not have; they have: {', '.join(frame.columns)}"
    )


def merge(streams: list[Iterator[Rows]]) -> Iterator[Rows]:
    """Merge streams by time, holding one chunk of each; at equal times the first stream first."""
    if len(streams) == 1:
        yield from streams[0]
        return
    held: list[Rows | None] = [next(stream, None) for stream in streams]
    while any(rows is not None for rows in held):
        limit = min(rows.time[-1] for rows in held if rows is not None)
        ready: list[Rows] = []
        for number, stream in enumerate(streams):
            rows = held[number]
            # More rows at `limit` may follow in the next chunk: take them all before merging.
            while rows is not None and rows.time[-1] <= limit:
                ready.append(rows)
                rows = next(stream, None)
            if rows is not None:
                cut = int(np.searchsorted(rows.time, limit, side="right"))
                ready.append(rows.part(0, cut))
                rows = rows.part(cut)
            held[number] = rows
        yield _interleave(ready)


def _interleave(parts: list[Rows]) -> Rows:
    time, price, target, leg = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("time", "price", "target", "leg")
    )
    order = np.lexsort((leg, time))  # stable: rows of one leg keep their order
    return Rows(time[order], price[order], target[order], leg[order])
