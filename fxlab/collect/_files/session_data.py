"""Session data before it is stored: checked rows with their `seq`, and the session's own facts.

A row's `seq` is the venue's number where every row of a symbol has one, whatever order they came
in, so the same rows are the same session; else the row's position in its source. Either way it is
the same at each import, which is what lets an import be repeated, or finished by another one. A
number that an earlier row has goes to quarantine with its row: one id cannot be two trades.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import polars as pl

from fxlab.collect._files import fields
from fxlab.collect._files.fields import ROW, VENUE_SEQ, SourceLocation
from fxlab.collect._files.parsing import RowFormat, parse_rows
from fxlab.collect._files.quarantine import (
    MOST_BAD,
    BadRow,
    FileRows,
    Quarantine,
    Room,
    Spool,
    Tally,
    buckets,
)
from fxlab.errors import ImportRefused
from fxlab.schema import ORDERBOOK, PRICES, Table

GATHERED_ROWS: Final = 100_000
"""So many rows of different symbols are written at once; more of one symbol by themselves."""

DATA_TYPES: Final = {"prices": PRICES, "orderbook": ORDERBOOK}


@dataclass
class Part:
    """The rows of one symbol in one file.

    Attributes
    ----------
    origin
        The file.
    symbol, known
        The symbol, and what is known of its rows.
    rows_of
        All rows of the file.
    key
        The columns that tell its rows apart; none if their place does.
    notes
        What the import did that the rows do not show.
    quarantine
        The bad rows of the whole file, at its first symbol.
    backward
        How many rows are earlier than the row before them.
    """

    origin: Origin
    symbol: str
    known: Tally
    rows_of: FileRows
    key: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    quarantine: Quarantine | None = None
    backward: int = 0

    @property
    def path(self) -> str:
        """Return what the file is called in the catalogue."""
        return self.origin.path

    @property
    def data_type(self) -> str:
        """Return "prices" or "orderbook"."""
        return self.rows_of.data_type

    @property
    def rows(self) -> int:
        """Return how many there are."""
        return self.known.rows

    @property
    def bad(self) -> int:
        """Return the number of rows in quarantine."""
        return self.quarantine.count if self.quarantine is not None else 0


@dataclass(frozen=True, slots=True)
class Origin:
    """A file as the catalogue knows it: its path there, its digest, and what it was."""

    path: str
    sha256: str
    kind: str
    """One of `fxlab.schema.ORIGINS`."""
    size: int = 0
    """Bytes of the file."""


class Intake:
    """Takes in the rows of one file, block by block.

    Parameters
    ----------
    origin, symbol
        The file; its symbol, if no column says it.
    bad
        Takes the rows that are no ticks.
    room
        Where the others wait.
    """

    def __init__(self, origin: Origin, symbol: str | None, bad: Quarantine, room: Room) -> None:
        self._origin = origin
        self._symbol = symbol
        self._bad = bad
        self._room = room
        self._rows = FileRows(Spool(room))
        self._shape: RowFormat | None = None
        self._has_seq = False
        self._looks: dict[str, bool] = {}
        self._finer: dict[str, int] = {}

    def take(self, raw: pl.DataFrame, numbers: pl.Series | None = None) -> None:
        """Understand a block of rows, and keep the good ones.

        Raises
        ------
        ImportRefused
            If the file is another thing than it seems.
        """
        for name in ("timestamp", "received_at", "recv_ns"):
            if name in raw.columns:
                finer = fields.finer_than_micros(raw[name])
                self._finer[name] = self._finer.get(name, 0) + finer
        self._shape, rows = parse_rows(raw, self._symbol, self._bad, numbers, self._looks)
        self._has_seq = "seq" in raw.columns
        self._rows.data_type = self._shape.data_type
        self._rows.add(rows)

    def parts(
        self,
        assumed: Sequence[str] = (),
        texts: Callable[[Sequence[int]], Mapping[int, str]] | None = None,
    ) -> list[Part]:
        """Return the file's good rows, one part a symbol; the others are in quarantine.

        Parameters
        ----------
        assumed
            What was assumed of the file: told among the notes of its first part.
        texts
            Finds the text of rows by their places.

        Raises
        ------
        ImportRefused
            If too many rows are bad, or nothing tells their order.
        """
        doubles, backward = self._doubles()
        if doubles:
            found = texts([one.row for one in doubles]) if texts is not None else {}
            self._bad.text = lambda row: found.get(row, "")
            self._bad.add(doubles)
            places = pl.Series([one.row for one in doubles], dtype=pl.Int64)
            self._rows = self._rows.without(places, self._room)
        self._bad.settle()
        told = (*assumed, *self._rounded())
        if not self._rows.tallies:
            if self._bad.count or self._symbol is None:
                if self._bad.count:
                    words = f"none of its {self._bad.rows:,} rows is a tick: {self._bad.reasons()}"
                    self._bad.place.refuse(words)
                return []
            self._rows.tallies[self._symbol] = Tally()  # a header alone: known, counted, empty
        made = [self._part(name, known) for name, known in self._rows.tallies.items()]
        for one in made:
            one.backward = backward.get(one.symbol, one.known.falls)
        made[0].notes = (*told, *made[0].notes)
        made[0].quarantine = self._bad if self._bad.count else None
        return made

    def _part(self, name: str, known: Tally) -> Part:
        notes: tuple[str, ...] = ()
        if known.blank:
            _refuse_newest_first(self._bad.place, name, known)
            if known.blank < known.rows:
                told = f"{known.blank:,} of {known.rows:,} rows have no number: their place "
                notes = (f"{told}identifies all",)
        key = () if known.blank else self._key
        return Part(self._origin, name, known, self._rows, key, notes)

    @property
    def _key(self) -> tuple[str, ...]:
        """Return what identifies a row if every row has a number of the venue.

        An id always names one trade; a book's update id, and a seq of fxlab, a row of one time.
        """
        of_trades = self._rows.data_type == "prices" and not self._has_seq
        return (VENUE_SEQ,) if of_trades else (VENUE_SEQ, "timestamp")

    def _rounded(self) -> list[str]:
        """Return what has to be told of times that are finer than the microsecond."""
        return [
            f"{name} is finer than a microsecond in {finer:,} of {self._bad.rows:,} rows; each was "
            f"{'cut to it' if name == 'recv_ns' else 'rounded to the nearest one'}"
            for name, finer in self._finer.items()
            if finer
        ]

    def _doubles(self) -> tuple[list[BadRow], dict[str, int]]:
        """Return the rows whose id an earlier row has, and what runs backward in the ids' order."""
        known = self._rows.tallies
        found: list[BadRow] = []
        backward: dict[str, tuple[int, datetime]] = {}
        unordered = {n: one for n, one in known.items() if not one.blank and not one.rising}
        for piece in self._together(unordered, self._key):
            doubles = _doubled(self._bad, piece, self._key)
            found += doubles
            if len(found) >= MOST_BAD:
                return found, {}  # too many to keep: the file is refused for them
            places = pl.Series([one.row for one in doubles], dtype=pl.Int64)
            once = piece.filter(~pl.col(ROW).is_in(places.implode()))
            _count_backward(once.sort(self._key[0], "timestamp"), backward)
        named = {n: one for n, one in known.items() if one.blank and len(self._key) == 1}
        for piece in self._together(named, ("trade_id",)):
            found += _doubled(self._bad, piece, ("trade_id",))
            if len(found) >= MOST_BAD:
                break
        return found, {name: count for name, (count, _) in backward.items()}

    def _together(self, known: Mapping[str, Tally], key: tuple[str, ...]) -> Iterator[pl.DataFrame]:
        """Yield what identifies the rows of some symbols that have a key, equal keys together."""
        if not known:
            return
        names = list(dict.fromkeys(("symbol", "timestamp", ROW, VENUE_SEQ, *key)))
        if self._rows.data_type == "prices":
            names = list(dict.fromkeys((*names, "trade_id")))
        spool = _Chosen(self._rows.spool, names, list(known), key)
        rows = sum(one.rows for one in known.values())
        yield from buckets(spool, rows, key, self._room)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Some columns of a spool, of the rows of some symbols that have a key.

    It is iterated as often as is needed. Rows without a key would be equal to each other, and so
    all in one bucket, however many they are.
    """

    spool: Spool
    names: Sequence[str]
    symbols: Sequence[str]
    key: Sequence[str]

    def __iter__(self) -> Iterator[pl.DataFrame]:
        has_key = pl.all_horizontal(pl.col(self.key).is_not_null())
        for frame in self.spool:
            chosen = frame.select(self.names)
            yield chosen.filter(pl.col("symbol").is_in(self.symbols), has_key)


def _count_backward(rows: pl.DataFrame, known: dict[str, tuple[int, datetime]]) -> None:
    """Count the rows that are earlier than the one before them, on from those before."""
    steps = rows.group_by("symbol", maintain_order=True).agg(
        falls=(pl.col("timestamp").to_physical().diff() < 0).sum(),
        opened=pl.col("timestamp").first(),
        closed=pl.col("timestamp").last(),
    )
    for name, falls, opened, closed in steps.iter_rows():
        before, last = known.get(name, (0, opened))
        known[name] = (before + falls + (opened < last), closed)


def _doubled(bad: Quarantine, piece: pl.DataFrame, key: tuple[str, ...]) -> list[BadRow]:
    """Return the rows whose id an earlier row of their symbol has; all of them have one."""
    key = ("symbol", *key)
    found = piece.filter(~pl.struct(*key).is_first_distinct())
    if found.is_empty():
        return []
    firsts = piece.join(found.select(key).unique(), on=list(key), how="semi")
    firsts = firsts.group_by(*key).agg(pl.col(ROW).min().alias("before"))
    told = f" ({found.height:,} rows are doubled so)" if bad.strict else ""
    rows = []
    for row in (
        found.head(MOST_BAD)
        .join(firsts, on=list(key), how="left", maintain_order="left")
        .iter_rows(named=True)
    ):
        is_id = "timestamp" not in key
        value = row.get("trade_id") if is_id and row.get("trade_id") else row[VENUE_SEQ]
        what = "id" if is_id else f"number at {row['timestamp']}"
        reason = (
            f"the {what} {value!r} of {row['symbol']} was there before, in {bad.place.word} "
            f"{bad.place.first + row['before']}{told}: one id cannot be two rows"
        )
        cure = "; take the doubled rows out, or, if these are no ids of single rows, the column"
        rows.append(BadRow(row[ROW], "an id that an earlier row has", reason, cure))
    return rows


def _refuse_newest_first(place: SourceLocation, symbol: str, known: Tally) -> None:
    """Refuse a file that runs backward where its order decides: among rows of one time."""
    if known.falls > known.rises and known.ties:
        place.refuse(
            f"the newest rows of {symbol} stand first, and {known.ties:,} have the time of "
            "the row before, so that their order would be the wrong way round; put the oldest "
            "first (in a shell: (head -1 FILE; tail -n +2 FILE | tac) > NEW), or add numeric ids"
        )


@dataclass
class ImportedSession:
    """All rows of one session, ready to be stored.

    Raises
    ------
    ImportRefused
        If there are no rows, or two files may hold the same rows of a symbol.
    """

    session_id: str
    parts: tuple[Part, ...]
    room: Room = field(default_factory=Room)
    columns: Mapping[str, str] | None = None
    """What the user called its files' columns; None where the files cannot have others."""
    shared: dict[tuple[str, str], int] = field(default_factory=dict, init=False)
    """Rows of a (symbol, data type) that an earlier file has too, under the same ids."""

    def __post_init__(self) -> None:
        if not any(part.rows for part in self.parts):
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
        for data_type, symbol, group in self._groups():
            filled = [part for part in group if part.rows]
            if all(part.key for part in filled):
                self.shared[symbol, data_type] = _shared_rows(filled, self.room)
            else:
                _refuse_overlap(filled)

    def close(self) -> None:
        """Forget the rows."""
        for part in self.parts:
            part.rows_of.spool.close()

    @cached_property
    def rows(self) -> int:
        """Return the number of rows."""
        return sum(self.counts.values())

    @cached_property
    def first(self) -> datetime:
        """Return the time of the first tick."""
        return min(part.known.first for part in self.parts if part.known.first is not None)

    @cached_property
    def last(self) -> datetime:
        """Return the time of the last tick."""
        return max(part.known.last for part in self.parts if part.known.last is not None)

    @property
    def identity(self) -> frozenset[tuple[str, str]]:
        """Return what makes two imports the same: (symbol, SHA-256) of each file."""
        return frozenset((part.symbol, part.origin.sha256) for part in self.parts)

    @cached_property
    def counts(self) -> dict[tuple[str, str], int]:
        """Return the rows of each (symbol, data type) that has any."""
        found = {
            (symbol, data_type): sum(part.rows for part in group)
            - self.shared.get((symbol, data_type), 0)
            for data_type, symbol, group in self._groups()
        }
        return {key: rows for key, rows in found.items() if rows}

    def frames(self) -> Iterator[tuple[Table, pl.DataFrame]]:
        """Yield all rows in blocks with all columns of their table, file by file."""
        starts: dict[int, dict[str, int]] = {}
        keyed: dict[int, set[str]] = {}
        for _, symbol, group in self._groups():
            has_key = all(part.key for part in group if part.rows)
            before = 0
            for part in group:
                starts.setdefault(id(part.rows_of), {})[symbol] = before
                keyed.setdefault(id(part.rows_of), set()).update((symbol,) if has_key else ())
                before += part.rows
        for data_type, table in DATA_TYPES.items():
            parts = [part for part in self.parts if part.data_type == data_type]
            files = {id(one.rows_of): one for one in sorted(parts, key=_place_in_time)}
            for which, part in files.items():
                for rows in part.rows_of.spool:
                    filled = rows.with_columns(
                        _seq(rows, starts[which], keyed[which]),
                        session_id=pl.lit(self.session_id),
                        origin=pl.lit(part.origin.kind),
                    )
                    yield table, filled.select(*table.columns)

    def price_decimals(self) -> dict[str, int]:
        """Return the decimals of each symbol's prices, of its mids where it has no trades."""
        found: dict[str, int | None] = {}
        for _, symbol, group in self._groups():
            filled = [part.known.decimals for part in group if part.rows]
            if filled and symbol not in found:
                known = [decimals for decimals in filled if decimals is not None]
                found[symbol] = max(known) if len(known) == len(filled) else None
        return {symbol: decimals for symbol, decimals in found.items() if decimals is not None}

    def catalogue_row(self) -> dict[str, Any]:
        """Return what the catalogue says of the session's ticks."""
        counts = self.counts
        prices = sum(rows for (_, kind), rows in counts.items() if kind == "prices")
        return {
            "session_id": self.session_id,
            "source": self.parts[0].origin.kind,
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
            "options": self._options(),
            "created_at": self.first,  # the same at each import of the same data
        }

    def _options(self) -> str | None:
        """Return what the rows do not show, kept with the session: what was assumed and asked."""
        notes = {part.path: list(part.notes) for part in self.parts if part.notes}
        kept: dict[str, Any] = {"import": notes} if notes else {}
        if self.columns is not None:
            kept["columns"] = dict(self.columns)
        return json.dumps(kept) if kept else None

    def _groups(self) -> Iterator[tuple[str, str, list[Part]]]:
        """Yield data type, symbol and the parts in time order; trades before books."""
        groups: dict[tuple[str, str], list[Part]] = {}
        for part in self.parts:
            groups.setdefault((part.data_type, part.symbol), []).append(part)
        for data_type in DATA_TYPES:
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


def _place_in_time(part: Part) -> tuple[bool, datetime | str, str]:
    first = part.known.first
    return (first is not None, first or "", part.path)


def _refuse_overlap(parts: Sequence[Part]) -> None:
    """Refuse files that may hold the same rows: without ids they would be stored twice."""
    for before, after in itertools.pairwise(parts):
        again = before.origin.sha256 == after.origin.sha256  # both of one moment: they would follow
        if before.known.last > after.known.first or again:  # type: ignore[operator]  # have rows
            raise ImportRefused(
                f"{before.path} (until {before.known.last}) and {after.path} (from "
                f"{after.known.first}) overlap for {before.symbol} {before.data_type}: rows in "
                "both would be doubled; "
                "give files that follow each other, or import them as two sessions"
            )
        if before.known.last == after.known.first:
            both = _ids_at(before, before.known.last) & _ids_at(after, after.known.first)
            if both:
                raise ImportRefused(
                    f"{before.path} ends and {after.path} begins with the id {min(both)!r} of "
                    f"{before.symbol} at {before.known.last}: the row would be doubled; take it "
                    "out of one of the files"
                )


def _ids_at(part: Part, moment: datetime | None) -> set[str]:
    """Return the ids, as text, that a part's trades of one moment have."""
    if part.data_type != "prices":
        return set()
    at = (pl.col("symbol") == part.symbol) & (pl.col("timestamp") == moment)
    return {one for rows in part.rows_of.spool for one in rows.filter(at)["trade_id"].drop_nulls()}


def _shared_rows(parts: Sequence[Part], room: Room) -> int:
    """Return how many rows two files share under equal ids: they are stored once, and told.

    Raises
    ------
    ImportRefused
        If rows with one id differ.
    """
    ordered = sorted(parts, key=lambda part: (part.known.low, part.known.high))
    spans = [(part.known.low or 0, part.known.high or 0) for part in ordered]
    if all(before[1] < after[0] for before, after in itertools.pairwise(spans)):
        return 0
    key = max((part.key for part in parts), key=len)
    frames = _Numbered(parts)
    shared: dict[int, int] = {}
    for piece in buckets(frames, sum(part.rows for part in parts), key, room):
        twice = piece.filter(piece.select(key).is_duplicated()).sort(*key, "part")
        if twice.is_empty():
            continue
        same = twice.drop("part").is_duplicated()
        if not same.all():
            odd = twice.filter(~same)[VENUE_SEQ][0]
            pair = twice.filter(pl.col(VENUE_SEQ) == odd)["part"].head(2)
            one, other = (parts[int(number)] for number in pair)
            raise ImportRefused(
                f"{one.path} and {other.path} overlap for {one.symbol} {one.data_type}: both have "
                f"id {odd}, with different rows ({twice.height // 2:,} ids are in both); take them "
                "out of one of the files, or import them as two sessions"
            )
        again = twice.filter(~pl.struct(*key).is_first_distinct())
        for number, count in again.group_by("part").len().iter_rows():
            shared[number] = shared.get(number, 0) + count
    for number, count in sorted(shared.items()):
        told = f"{count:,} rows are in another file too, under the same ids: stored once"
        parts[number].notes = (*parts[number].notes, told)
    return sum(shared.values())


@dataclass(frozen=True, slots=True)
class _Numbered:
    """The rows of parts, each with its part's number; iterated as often as is needed."""

    parts: Sequence[Part]

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for number, part in enumerate(self.parts):
            for frame in part.rows_of.spool:
                chosen = frame.filter(pl.col("symbol") == part.symbol).drop(ROW)
                yield chosen.with_columns(part=pl.lit(number, pl.UInt32))


def _seq(rows: pl.DataFrame, starts: dict[str, int], by_id: set[str]) -> pl.Expr:
    """Return the identity of each row, and count on in `starts` where it is the row's place."""
    if by_id >= starts.keys():
        return pl.col(VENUE_SEQ).alias("seq")
    symbol = pl.col("symbol")
    before = symbol.replace_strict(dict(starts), return_dtype=pl.Int64)
    place = before + pl.int_range(pl.len(), dtype=pl.Int64).over("symbol")
    for name, count in rows.group_by("symbol").len().iter_rows():
        starts[name] += count
    is_id = symbol.is_in(list(by_id))
    return pl.when(is_id).then(pl.col(VENUE_SEQ)).otherwise(place).alias("seq")
