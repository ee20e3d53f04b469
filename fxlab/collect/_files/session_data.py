"""Session data before it is stored: checked rows with their `seq`, their order, and the session id.

A row's `seq` is the venue's number where every row of a symbol has one, whatever order they came
in, so the same rows are the same session; else the row's position in its source. Either way it is
the same at each import, which is what lets an import be repeated, or finished by another one. A
number that an earlier row has goes to quarantine with its row: one id cannot be two trades.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import polars as pl

from fxlab._ticks import find_decimals, mid_decimals
from fxlab.collect._files import fields
from fxlab.collect._files.csv import ROW
from fxlab.collect._files.fields import SourceLocation
from fxlab.collect._files.parsing import VENUE_SEQ, parse_rows
from fxlab.collect._files.quarantine import BadRow, Quarantine
from fxlab.errors import ImportRefused
from fxlab.schema import ORDERBOOK, PRICES, Table


def keyed(
    place: SourceLocation, piece: pl.DataFrame, key: tuple[str, ...], bad: Quarantine
) -> tuple[pl.DataFrame, tuple[str, ...], list[str]]:
    """Return one symbol's rows, each once, their key or none, and what has to be told.

    Parameters
    ----------
    place
        The file, for errors.
    piece
        The rows of one symbol in it.
    key
        The columns that identify a row if all of them have a number.
    bad
        Takes the rows whose id an earlier row has.

    Raises
    ------
    ImportRefused
        If their order is the wrong way round and nothing tells the right one.
    """
    ids = piece[VENUE_SEQ]
    if ids.null_count() == 0:
        return piece if _rises(ids) else _without_doubles(place, piece, key, bad), key, []
    if "trade_id" in piece.columns and len(key) == 1:
        piece = _without_doubles(place, piece, ("trade_id",), bad)
        ids = piece[VENUE_SEQ]
    _refuse_newest_first(place, piece)
    blank = ids.null_count()
    if blank < piece.height:
        told = f"{blank:,} of {piece.height:,} rows have no number: their place identifies all"
        return piece, (), [told]
    return piece, (), []


def in_order(piece: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """Return rows in the order of their numbers; as they are if they have none."""
    return piece.sort(*key) if key and not _rises(piece[VENUE_SEQ]) else piece


def rounded_times(raw: pl.DataFrame) -> list[str]:
    """Return what has to be told of times that are finer than the microsecond."""
    told = []
    for name in ("timestamp", "received_at", "recv_ns"):
        finer = fields.finer_than_micros(raw[name]) if name in raw.columns else 0
        if finer:
            how = "cut to it" if name == "recv_ns" else "rounded to the nearest one"
            told.append(
                f"{name} is finer than a microsecond in {finer:,} of {raw.height:,} rows; each was "
                f"{how}"
            )
    return told


def _rises(ids: pl.Series) -> bool:
    return bool((ids.diff().drop_nulls() > 0).all())


def _without_doubles(
    place: SourceLocation, piece: pl.DataFrame, key: tuple[str, ...], bad: Quarantine
) -> pl.DataFrame:
    """Put the rows whose id an earlier row has into quarantine; return the others."""
    known = pl.all_horizontal(pl.col(*key).is_not_null())
    again = known & ~pl.struct(*key).is_first_distinct()
    doubled = piece.filter(again)
    if doubled.is_empty():
        return piece
    firsts = piece.filter(known).group_by(*key).agg(pl.col(ROW).min().alias("first"))
    found = doubled.join(firsts, on=list(key), how="left", maintain_order="left")
    told = f" ({found.height:,} rows are doubled so)" if bad.strict else ""
    rows = []
    for row in found.iter_rows(named=True):
        value = row.get("trade_id") if len(key) == 1 and row.get("trade_id") else row[VENUE_SEQ]
        what = "id" if len(key) == 1 else f"number at {row['timestamp']}"
        reason = (
            f"the {what} {value!r} of {row['symbol']} was there before, in {place.word} "
            f"{place.first + row['first']}{told}: one id cannot be two rows"
        )
        cure = "; take the doubled rows out, or, if these are no ids of single rows, the column"
        rows.append(BadRow(row[ROW], "an id that an earlier row has", reason, cure))
    bad.add(rows)
    return piece.filter(~again)


def _refuse_newest_first(place: SourceLocation, piece: pl.DataFrame) -> None:
    """Refuse a file that runs backward where its order decides: among rows of one time."""
    steps = piece["timestamp"].diff().drop_nulls().to_physical()
    falls, rises, ties = (steps < 0).sum(), (steps > 0).sum(), (steps == 0).sum()
    if falls > rises and ties:
        place.refuse(
            f"the newest rows of {piece['symbol'][0]} stand first, and {ties:,} have the time of "
            "the row before, so that their order would be the wrong way round; put the oldest "
            "first (in a shell: (head -1 FILE; tail -n +2 FILE | tac) > NEW), or add numeric ids"
        )


GATHERED_ROWS: Final = 100_000
"""So many rows of different symbols are written at once; more of one symbol by themselves."""

_DATA_TYPES: Final = {"prices": PRICES, "orderbook": ORDERBOOK}


@dataclass(frozen=True)
class Part:
    """The rows of one symbol in one file.

    Attributes
    ----------
    path, sha256
        What the file is called in the catalogue, and its digest.
    data_type
        "prices" or "orderbook".
    frame
        As `parse_rows` returns it; in the order of the venue's numbers, if
        every row has one.
    key
        The columns that tell its rows apart; none if their place does.
    notes
        What the import did that the rows do not show.
    size
        Bytes of the file.
    quarantine
        The bad rows of the whole file, at its first symbol.
    """

    path: str
    sha256: str
    origin: str
    data_type: str
    symbol: str
    frame: pl.DataFrame
    key: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    size: int = 0
    quarantine: Quarantine | None = None

    @property
    def bad(self) -> int:
        """Return the number of rows in quarantine."""
        return self.quarantine.count if self.quarantine is not None else 0

    @cached_property
    def first(self) -> datetime | None:
        """Return the earliest time."""
        return self.frame["timestamp"].min()  # type: ignore[return-value]  # a datetime column

    @cached_property
    def last(self) -> datetime | None:
        """Return the latest time."""
        return self.frame["timestamp"].max()  # type: ignore[return-value]  # a datetime column

    @cached_property
    def backward(self) -> int:
        """Return how many rows are earlier than the row before them."""
        return int((self.frame["timestamp"].diff().to_physical() < 0).sum())


@dataclass(frozen=True, slots=True)
class Origin:
    """A file as the catalogue knows it: its path there, its digest, and what it was."""

    path: str
    sha256: str
    kind: str
    """One of `fxlab.schema.ORIGINS`."""
    size: int = 0
    """Bytes of the file."""


def parts_of(
    raw: pl.DataFrame,
    origin: Origin,
    symbol: str | None,
    bad: Quarantine,
    numbers: pl.Series | None = None,
    *,
    assumed: Sequence[str] = (),
) -> list[Part]:
    """Return a file's good rows, understood, one part a symbol; the others are in quarantine.

    What was assumed of the file stands among the notes of its first part.

    Raises
    ------
    ImportRefused
        If the file is another thing than it seems, or too many of its rows are bad.
    """
    place, bad.rows = bad.place, max(bad.rows, raw.height)
    shape, rows = parse_rows(raw, symbol, bad, numbers)
    # An id always names one trade; a book's update id, and a seq of fxlab, a row of one time.
    of_trades = shape.data_type == "prices" and "seq" not in raw.columns
    key = (VENUE_SEQ,) if of_trades else (VENUE_SEQ, "timestamp")
    pieces = rows.partition_by("symbol", maintain_order=True)
    if not pieces and symbol is not None:
        pieces = [rows]  # a header and nothing below: known, counted, empty
    rounded = [*assumed, *rounded_times(raw)]
    made = []
    for piece in pieces:
        name = symbol or str(piece["symbol"][0])
        once, own, notes = keyed(place, piece, key, bad)
        told = (*(rounded if piece is pieces[0] else ()), *notes)
        made.append((name, in_order(once.drop(ROW), own), own, told))
    bad.settle()
    if bad.count and not made:
        place.refuse(f"none of its {bad.rows:,} rows is a tick: {bad.reasons()}")
    return [
        Part(
            path=origin.path,
            sha256=origin.sha256,
            origin=origin.kind,
            data_type=shape.data_type,
            symbol=name,
            frame=frame,
            key=own,
            notes=notes,
            size=origin.size,
            quarantine=bad if number == 0 and bad.count else None,
        )
        for number, (name, frame, own, notes) in enumerate(made)
    ]


@dataclass(frozen=True)
class ImportedSession:
    """All rows of one session, ready to be stored.

    Raises
    ------
    ImportRefused
        If there are no rows, or two files may hold the same rows of a symbol.
    """

    session_id: str
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            names = ", ".join(part.path for part in self.parts) or "no file"
            raise ImportRefused(
                f"session {self.session_id!r} has no rows ({names}); nothing was imported"
            )
        names_seen: set[tuple[str, str]] = set()
        for part in self.parts:
            if (part.path, part.symbol) in names_seen:
                raise ImportRefused(
                    f"two files are called {part.path}: their rows could not be told apart; "
                    "rename one of the folders"
                )
            names_seen.add((part.path, part.symbol))
        for _, _, group in self._groups():
            _refuse_overlap(group)

    @cached_property
    def rows(self) -> int:
        """Return the number of rows."""
        return sum(part.frame.height for part in self.parts)

    @cached_property
    def first(self) -> datetime:
        """Return the time of the first tick."""
        return min(part.first for part in self.parts if part.first is not None)

    @cached_property
    def last(self) -> datetime:
        """Return the time of the last tick."""
        return max(part.last for part in self.parts if part.last is not None)

    @property
    def identity(self) -> frozenset[tuple[str, str]]:
        """Return what makes two imports the same: (symbol, SHA-256) of each file."""
        return frozenset((part.symbol, part.sha256) for part in self.parts)

    @cached_property
    def counts(self) -> dict[tuple[str, str], int]:
        """Return the rows of each (symbol, data type) that has any."""
        found = {
            (symbol, data_type): sum(part.frame.height for part in group)
            for data_type, symbol, group in self._groups()
        }
        return {key: rows for key, rows in found.items() if rows}

    def frames(self) -> Iterator[tuple[Table, pl.DataFrame]]:
        """Yield the rows of each symbol with all columns of their table."""
        for data_type, _, group in self._groups():
            table = _DATA_TYPES[data_type]
            whole = pl.concat(part.frame.with_columns(origin=pl.lit(part.origin)) for part in group)
            filled = [part for part in group if part.frame.height]
            if all(part.key for part in filled):
                whole = in_order(whole, (VENUE_SEQ, "timestamp"))
            else:
                whole = whole.with_columns(pl.lit(None, pl.Int64).alias(VENUE_SEQ))
            session = pl.lit(self.session_id).alias("session_id")
            yield table, whole.with_columns(session, _seq(whole)).select(*table.columns)

    def price_decimals(self) -> dict[str, int]:
        """Return the decimals of each symbol's prices, of its mids where it has no trades."""
        found: dict[str, int | None] = {}
        for data_type, symbol, group in self._groups():
            if sum(part.frame.height for part in group) and symbol not in found:
                whole = pl.concat(part.frame for part in group)
                is_trades = data_type == "prices"
                found[symbol] = find_decimals(whole["price"]) if is_trades else mid_decimals(whole)
        return {symbol: decimals for symbol, decimals in found.items() if decimals is not None}

    def catalogue_row(self) -> dict[str, Any]:
        """Return what the catalogue says of the session's ticks."""
        counts = self.counts
        prices = sum(rows for (_, kind), rows in counts.items() if kind == "prices")
        return {
            "session_id": self.session_id,
            "source": self.parts[0].origin,
            "symbols": json.dumps(sorted({symbol for symbol, _ in counts})),
            "data_types": json.dumps(sorted({kind for _, kind in counts}, reverse=True)),
            "price_decimals": json.dumps(self.price_decimals()),
            "started": self.first,
            "ended": self.last,
            "duration_seconds": (self.last - self.first).total_seconds(),
            "records_collected": self.rows,
            "prices_count": prices,
            "orderbook_count": self.rows - prices,
            "gaps_count": 0,
            "errors_count": sum(part.bad for part in self.parts),
            "options": self._assumed(),
            "created_at": self.first,  # the same at each import of the same data
        }

    def _assumed(self) -> str | None:
        """Return what the import did that the rows do not show, kept with the session."""
        notes = {part.path: list(part.notes) for part in self.parts if part.notes}
        return json.dumps({"import": notes}) if notes else None

    def _groups(self) -> Iterator[tuple[str, str, list[Part]]]:
        """Yield data type, symbol and the parts in time order; trades before books."""
        groups: dict[tuple[str, str], list[Part]] = {}
        for part in self.parts:
            groups.setdefault((part.data_type, part.symbol), []).append(part)
        for data_type in _DATA_TYPES:
            for kind, symbol in sorted(groups):
                if kind == data_type:
                    yield data_type, symbol, sorted(groups[kind, symbol], key=_place_in_time)


def gathered(
    frames: Iterable[tuple[Table, pl.DataFrame]],
) -> Iterator[tuple[Table, pl.DataFrame]]:
    """Join the frames of symbols with few rows each: a write costs more than its rows."""
    held: list[pl.DataFrame] = []
    height, before = 0, PRICES
    for table, frame in frames:
        if held and (height + frame.height > GATHERED_ROWS or table is not before):
            yield before, pl.concat(held)
            held, height = [], 0
        held.append(frame)
        height, before = height + frame.height, table
    if held:
        yield before, pl.concat(held)


def digest(data: bytes) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(data).hexdigest()


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file on disk, however large it is."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _place_in_time(part: Part) -> tuple[bool, datetime | str, str]:
    return (part.first is not None, part.first or "", part.path)


def _refuse_overlap(group: Sequence[Part]) -> None:
    """Refuse parts that may hold the same rows: they would be stored twice."""
    filled = [part for part in group if part.frame.height]
    if all(part.key for part in filled):
        _refuse_common_ids(filled)
        return
    for before, after in itertools.pairwise(filled):
        again = before.sha256 == after.sha256  # both of one moment: they would follow each other
        if before.last > after.first or again:  # type: ignore[operator]  # both have rows
            raise ImportRefused(
                f"{before.path} (until {before.last}) and {after.path} (from {after.first}) "
                f"overlap for {before.symbol} {before.data_type}: rows in both would be doubled; "
                "give files that follow each other, or import them as two sessions"
            )


def _refuse_common_ids(parts: Sequence[Part]) -> None:
    """Refuse files that hold a row twice; with ids of their own they may lie in any order."""
    if len(parts) < 2:
        return
    key = max([list(part.key) for part in parts], key=len)
    which = pl.concat(
        part.frame.select(*key, part=pl.lit(number, pl.UInt32)) for number, part in enumerate(parts)
    )
    twice = which.filter(which.select(key).is_duplicated()).sort(*key, "part")
    if twice.height:
        one, other = (parts[int(number)] for number in twice["part"].head(2))
        raise ImportRefused(
            f"{one.path} and {other.path} overlap for {one.symbol} {one.data_type}: both have id "
            f"{twice[VENUE_SEQ][0]} ({twice.height // 2:,} rows are doubled); take them out of one "
            "of the files, or import them as two sessions"
        )


def _seq(rows: pl.DataFrame) -> pl.Series:
    if rows[VENUE_SEQ].null_count() == 0:
        return rows[VENUE_SEQ].alias("seq")
    return pl.int_range(rows.height, dtype=pl.Int64, eager=True).alias("seq")
