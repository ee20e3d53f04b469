"""Rows between reading and writing: good ones wait in a spool, bad ones go to quarantine.

All files are checked before the first row is written, and a file may be larger than memory. Its
checked rows wait in memory while they are few, else in Arrow files of a private folder, which is
removed at the end, also after an error; that of a process that was killed is removed by the next
import. What is known of them (`Tally`) is gathered block by block, and does not grow with them.

A file of ten million lines with three damaged ones is worth importing, and the three must not
vanish: good rows and quarantined rows together are the lines of the file, always. A file with more
than a stated share of them is not what it was taken for, and is refused with the commonest reasons.
In strict mode the first such line refuses the file.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
from filelock import FileLock, Timeout

from fxlab._ticks import LARGEST_TICKS, find_decimals, mid_decimals
from fxlab._times import integer, required
from fxlab.collect._files.fields import ROW, VENUE_SEQ, SourceLocation
from fxlab.errors import InvalidInput
from fxlab.schema import EVENTS

BUDGET: Final = 128 * 2**20
"""Bytes of checked rows that all files together keep in memory."""
BUCKET_ROWS: Final = 250_000
"""So many rows are held at once where rows of equal ids are looked for."""
_SAMPLE: Final = 1_000
"""One row of so many tells how ids are spread."""


@dataclass(slots=True)
class Room:
    """Memory and disk that the spools of one import share.

    Parameters
    ----------
    folder
        For rows that do not fit into memory; without one, all stay there.
    budget
        Bytes in memory.
    """

    folder: Path | None = None
    budget: int = BUDGET
    _used: int = 0
    _files: int = 0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def takes(self, size: int) -> bool:
        """Return whether there is memory for so many bytes, and reserve them."""
        with self._turn:
            if self.folder is not None and self._used + size > self.budget:
                return False
            self._used += size
            return True

    def give_back(self, size: int) -> None:
        """Return reserved bytes."""
        with self._turn:
            self._used -= size

    def new_file(self) -> Path:
        """Return the path of a new file in the folder."""
        with self._turn:
            self._files += 1
            return Path(str(self.folder)) / f"{self._files:08}.arrow"


@contextlib.contextmanager
def lent(base: Path) -> Iterator[Room]:
    """Lend a room with a private folder below a given one, and remove it at the end."""
    base.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with FileLock(base / "lock"):
            _remove_left(base)
            made = tempfile.TemporaryDirectory(prefix="import-", dir=base)
            folder = Path(stack.enter_context(made))
            stack.enter_context(FileLock(folder / "lock"))
        yield Room(folder)


def _remove_left(base: Path) -> None:
    """Remove the folders of imports that were killed: nobody holds their lock."""
    for folder in base.glob("import-*"):
        with contextlib.suppress(Timeout), FileLock(folder / "lock", timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


class Spool:
    """Frames of one kind, in the order they came; read as often as is needed."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._kept: list[tuple[pl.DataFrame | Path, int]] = []

    def add(self, frame: pl.DataFrame) -> None:
        """Take a frame in."""
        if frame.is_empty():
            return
        size = int(frame.estimated_size())
        if self._room.takes(size):
            self._kept.append((frame, size))
            return
        path = self._room.new_file()
        frame.write_ipc(path, compression="lz4")
        self._kept.append((path, 0))

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Yield the frames."""
        for kept, _ in self._kept:
            yield kept if isinstance(kept, pl.DataFrame) else _from_disk(kept)

    def close(self) -> None:
        """Forget the frames."""
        for kept, size in self._kept:
            self._room.give_back(size)
            if isinstance(kept, Path):
                kept.unlink(missing_ok=True)
        self._kept = []


def _from_disk(path: Path) -> pl.DataFrame:
    return pl.read_ipc(path)


@dataclass(slots=True)
class Tally:
    """What is known of the rows of one symbol, whatever their number.

    Attributes
    ----------
    rows, blank
        How many there are; how many have no number of the venue.
    low, high, rising
        The numbers' range; whether each is above the one before it.
    first, last
        The earliest and the latest time.
    falls, rises, ties
        Steps of time from row to row.
    decimals
        Of the prices; None if no number of decimals fits.
    """

    rows: int = 0
    blank: int = 0
    low: int | None = None
    high: int | None = None
    rising: bool = True
    first: datetime | None = None
    last: datetime | None = None
    falls: int = 0
    rises: int = 0
    ties: int = 0
    decimals: int | None = 0
    _largest: float = 0.0
    _last_id: int | None = None
    _last_time: datetime | None = None

    def add(self, one: Mapping[str, Any], decimals: int | None, largest: float) -> None:
        """Take in what `_tallied` says of a block."""
        if self.rows:
            if self._last_id is not None and one["first_id"] is not None:
                self.rising &= one["first_id"] > self._last_id
            assert self._last_time is not None  # noqa: S101 - there was a row
            self.falls += one["opened"] < self._last_time
            self.rises += one["opened"] > self._last_time
            self.ties += one["opened"] == self._last_time
        self.rising &= one["rising"]
        for name in ("rows", "blank", "falls", "rises", "ties"):
            setattr(self, name, getattr(self, name) + one[name])
        for name, best in (("low", min), ("first", min), ("high", max), ("last", max)):
            both = [each for each in (getattr(self, name), one[name]) if each is not None]
            setattr(self, name, best(both) if both else None)
        self._last_id, self._last_time = one["last_id"], one["closed"]
        self._largest = max(self._largest, largest)
        known = self.decimals is not None and decimals is not None
        self.decimals = max(self.decimals or 0, decimals or 0) if known else None
        if self.decimals is not None and self._largest * 10.0**self.decimals > LARGEST_TICKS:
            self.decimals = None


def tally(tallies: dict[str, Tally], rows: pl.DataFrame) -> None:
    """Take a block of rows into the tallies of its symbols."""
    is_trades = "price" in rows.columns
    price = pl.col("price" if is_trades else "ask_price_1")
    times, ids = pl.col("timestamp"), pl.col(VENUE_SEQ)
    step = times.to_physical().diff()
    table = rows.group_by("symbol", maintain_order=True).agg(
        rows=pl.len(), blank=ids.null_count(), low=ids.min(), high=ids.max(),
        first_id=ids.first(), last_id=ids.last(), rising=(ids.diff() > 0).all(),
        falls=(step < 0).sum(), rises=(step > 0).sum(), ties=(step == 0).sum(),
        opened=times.first(), closed=times.last(), first=times.min(), last=times.max(),
        largest=price.max(),
    )  # fmt: skip
    alone = table.height == 1
    pieces = {} if alone else rows.partition_by("symbol", as_dict=True)
    for one in table.iter_rows(named=True):
        piece = rows if alone else pieces[one["symbol"],]
        known = tallies.setdefault(one["symbol"], Tally())
        least, decimals = known.decimals, None  # where a block has none, the whole has none
        if least is not None and is_trades:
            decimals = find_decimals(piece["price"], least)
        elif least is not None:
            decimals = mid_decimals(piece, least)
        known.add(one, decimals, float(one["largest"] or 0.0))


@dataclass(slots=True)
class FileRows:
    """The good rows of one file: in a spool, and tallied by symbol."""

    spool: Spool
    data_type: str = "prices"
    tallies: dict[str, Tally] = field(default_factory=dict)

    def add(self, rows: pl.DataFrame) -> None:
        """Take a block in."""
        self.spool.add(rows)
        tally(self.tallies, rows)

    def without(self, dropped: pl.Series, room: Room) -> FileRows:
        """Return these rows without some, by their places."""
        kept = FileRows(Spool(room), self.data_type)
        for rows in self.spool:
            kept.add(rows.filter(~pl.col(ROW).is_in(dropped.implode())))
        self.spool.close()
        return kept


def buckets(
    frames: Iterable[pl.DataFrame], rows: int, key: Sequence[str], room: Room
) -> Iterator[pl.DataFrame]:
    """Yield frames that have all rows of an equal key together, each small enough to hold.

    Parameters
    ----------
    frames
        Read twice if they are many.
    rows
        How many there are.
    key
        The columns; if the first holds numbers, the frames come in its order.
    room
        For what does not fit into memory.
    """
    count = -(-rows // BUCKET_ROWS)
    if count <= 1:
        held = list(frames)
        if held:
            yield pl.concat(held)
        return
    first = pl.col(key[0])
    sample = pl.concat(frame.select(first).gather_every(_SAMPLE) for frame in frames).to_series()
    if sample.is_empty():
        return
    if sample.dtype.is_integer():
        edges = [sample.quantile(n / count, "nearest") for n in range(1, count)]
        number = pl.sum_horizontal(*((first >= edge).cast(pl.UInt32) for edge in edges))
    else:
        number = (first.hash(0) % count).cast(pl.UInt32)
    spools = [Spool(room) for _ in range(count)]
    for frame in frames:
        for (which,), piece in (
            frame.with_columns(number.alias("bucket"))
            .partition_by("bucket", as_dict=True, include_key=False, maintain_order=True)
            .items()
        ):
            spools[which].add(piece)
    for spool in spools:
        held = list(spool)
        if held:
            yield pl.concat(held)
        spool.close()


MAX_BAD: Final = 0.01
"""The share of lines that may be quarantined unless another one is asked for."""
LONGEST_TEXT: Final = 10_000
"""Characters of a line that are kept; how many it had is said."""
MOST_BYTES: Final = 100 * 2**20
"""So much of bad lines is held; a file with more is refused whatever share may be bad."""
_OWN_BYTES: Final = 400
MOST_BAD: Final = MOST_BYTES // _OWN_BYTES + 1
"""So many bad lines of a file are more than are held, whatever they are."""
BATCH_ROWS: Final = 250_000
MOST_BATCH_ROWS: Final = 10_000_000
_MOST_WORKERS: Final = 64
_ROWS: Final = f"1 to {MOST_BATCH_ROWS:,}"
_SHOWN: Final = 3
_COLUMNS: Final = ("line", "reason", "text")


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that is no tick.

    Attributes
    ----------
    row
        Its place in the source, counted from zero.
    rule
        The rule that it breaks, the same for all that break it.
    reason
        The rule with the row's values.
    cure
        What a refusal of the file adds.
    is_counted
        Whether a refusal says how many others there are.
    text
        Its text.
    """

    row: int
    rule: str
    reason: str
    cure: str = ""
    is_counted: bool = False
    text: str = ""


@dataclass(slots=True)
class Quarantine:
    """The bad rows of one file.

    Parameters
    ----------
    place
        The file, in the user's words.
    strict
        Refuse the file for its first bad row.
    max_bad
        The share of its rows that may be bad.
    """

    place: SourceLocation
    strict: bool = False
    max_bad: float = MAX_BAD
    rows: int = 0
    """All rows of the file."""
    text: Callable[[int], str] = field(default=lambda _: "")
    """The text of a row of the block that is being read."""
    bad: list[BadRow] = field(default_factory=list)
    _held: int = 0

    @property
    def count(self) -> int:
        """Return the number of bad rows."""
        return len(self.bad)

    def add(self, found: Sequence[BadRow]) -> None:
        """Take bad rows in; refuse the file if it is strict."""
        if found and self.strict:
            first = min(found, key=lambda one: one.row)
            others = len(found) - 1
            more = f" (and {others:,} more rows break a rule)" if others else ""
            reason = first.reason + (more if first.is_counted else "") + first.cure
            self.place.refuse(reason, first.row)
        for one in found:
            text = self.text(one.row)
            if len(text) > LONGEST_TEXT:
                text = f"{text[:LONGEST_TEXT]}… ({len(text):,} characters)"
            self.bad.append(replace(one, text=text.replace("\0", "\\0")))
            self._held += len(text) + len(one.reason) + _OWN_BYTES
        if self._held > MOST_BYTES:
            self.place.refuse(
                f"{self.count:,} of the first {self.rows:,} {self.place.word}s are no ticks, which "
                f"are too many to keep; the commonest reasons: {self.reasons(with_example=True)}; "
                "mend the file"
            )

    def settle(self) -> None:
        """Put the bad rows in order; refuse the file if they are too many."""
        self.bad.sort(key=lambda one: one.row)
        if self.count <= self.max_bad * self.rows:
            return
        self.place.refuse(
            f"{self.count:,} of {self.rows:,} {self.place.word}s are no ticks, and max_bad="
            f"{self.max_bad:g} allows a share of {self.max_bad:.3%} to be quarantined; the "
            f"commonest reasons: {self.reasons(with_example=True)}; mend the file, or raise max_bad"
        )

    def reasons(self, *, with_example: bool = False) -> str:
        """Return the commonest reasons with their numbers, in words."""
        counts = Counter(one.rule for one in self.bad)
        shown = []
        for rule, count in counts.most_common(_SHOWN):
            first = next(one for one in self.bad if one.rule == rule)
            example = f", such as {self.place.word} {self.place.first + first.row}: {first.reason}"
            shown.append(f"{rule} ({count:,}{example})" if with_example else f"{rule} ({count:,})")
        more = len(counts) - len(shown)
        return "; ".join(shown) + (f"; and {more} more" if more else "")

    def file(self, folder: Path, sha256: str) -> Path:
        """Return where the bad rows are kept."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", self.place.file)[-80:].strip("_.")
        return folder / f"{name}.{sha256[:8]}.csv"

    def keep(self, target: Path) -> None:
        """Write number, reason and text of each bad row, whole or not at all."""
        target.parent.mkdir(parents=True, exist_ok=True)
        half = target.with_suffix(".part")
        with half.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for one in self.bad:
                writer.writerow((self.place.first + one.row, one.reason, one.text))
        half.replace(target)

    def event(self, number: int, kept: Path) -> dict[str, Any]:
        """Return the row of the event table, but for the session and its times.

        `kept` is the file of the lines, seen from the home: a backup may be another one's.
        """
        row = dict.fromkeys(EVENTS.columns)
        words = (
            f"{self.count:,} of {self.rows:,} {self.place.word}s of {self.place.file} are no "
            f"ticks: {self.reasons()}; kept in {kept} of FXLAB_HOME"
        )
        return {**row, "event": "quarantine", "seq": number, "count": self.count, "detail": words}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How files are read.

    Attributes
    ----------
    strict, max_bad
        As `Quarantine` takes them.
    columns
        fxlab's name of a column to the file's.
    batch_size
        Rows that are read and checked at once.
    room
        Where checked rows wait; in memory unless it has a folder.
    """

    strict: bool = False
    max_bad: float = MAX_BAD
    columns: tuple[tuple[str, str], ...] = ()
    batch_size: int = BATCH_ROWS
    room: Room = field(default_factory=Room, compare=False)

    def __post_init__(self) -> None:
        is_share = isinstance(self.max_bad, int | float) and 0 <= self.max_bad <= 1
        if isinstance(self.max_bad, bool) or not is_share:
            raise InvalidInput(f"max_bad={self.max_bad!r:.80} is no share; give 0 to 1, as in 0.01")
        rule = f"batch_size={self.batch_size!r:.80} is no number of rows; give {_ROWS}"
        required(integer(self.batch_size, 1, MOST_BATCH_ROWS), rule)

    def of(self, place: SourceLocation) -> Quarantine:
        """Return an empty quarantine for a file."""
        return Quarantine(place, self.strict, self.max_bad)


STRICT: Final = ReadOptions(strict=True)


def workers_of(count: int | None) -> int:
    """Return how many sessions are read at once."""
    if count is None:
        return min(os.cpu_count() or 1, 4)
    rule = f"workers={count!r:.80} is no number of threads; give 1 to {_MOST_WORKERS}, or None"
    return required(integer(count, 1, _MOST_WORKERS), rule)
