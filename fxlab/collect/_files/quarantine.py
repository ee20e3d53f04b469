"""Quarantine: lines of a file that are no ticks, kept with number, reason and text beside it.

A file of ten million lines with three damaged ones is worth importing, and the three must not
vanish: good rows and quarantined rows together are the lines of the file, always. A file with more
than a stated share of them is not what it was taken for, and is refused with the commonest reasons.
In strict mode the first such line refuses the file.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from fxlab.collect._files.fields import SourceLocation
from fxlab.errors import InvalidInput
from fxlab.schema import EVENTS

MAX_BAD: Final = 0.01
"""The share of lines that may be quarantined unless another one is asked for."""
LONGEST_TEXT: Final = 10_000
"""Characters of a line that are kept; how many it had is said."""
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
    """

    row: int
    rule: str
    reason: str
    cure: str = ""
    is_counted: bool = False


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
    """The text of a row."""
    bad: list[BadRow] = field(default_factory=list)

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
        self.bad += found

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
                text = self.text(one.row)
                if len(text) > LONGEST_TEXT:
                    text = f"{text[:LONGEST_TEXT]}… ({len(text):,} characters)"
                number = self.place.first + one.row
                writer.writerow((number, one.reason, text.replace("\0", "\\0")))
        half.replace(target)

    def event(self, number: int, kept: Path) -> dict[str, Any]:
        """Return the row of the event table, but for the session and its times."""
        row = dict.fromkeys(EVENTS.columns)
        words = (
            f"{self.count:,} of {self.rows:,} {self.place.word}s of {self.place.file} are no "
            f"ticks: {self.reasons()}; kept in {kept}"
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
    """

    strict: bool = False
    max_bad: float = MAX_BAD
    columns: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        is_share = isinstance(self.max_bad, int | float) and 0 <= self.max_bad <= 1
        if isinstance(self.max_bad, bool) or not is_share:
            raise InvalidInput(f"max_bad={self.max_bad!r:.80} is no share; give 0 to 1, as in 0.01")

    def of(self, place: SourceLocation) -> Quarantine:
        """Return an empty quarantine for a file."""
        return Quarantine(place, self.strict, self.max_bad)


STRICT: Final = ReadOptions(strict=True)
