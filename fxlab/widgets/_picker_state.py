"""State of the session picker: what is listed, filtered and chosen; plain values, no widgets.

The list in the browser is only a picture of this state. Widgets move their own selection when
their options change; if they held the truth, typing a filter would silently choose sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, Self

import polars as pl

from fxlab._html import NOTHING, show_time

SHOWN: Final = 2_000
"""Sessions in the list at most, the newest: browsers get slow beyond."""

SEARCHED: Final = (
    "session_id", "status", "exchange", "source", "symbols", "data_types", "started", "notes",
    "tags",
)  # fmt: skip
"""Columns that a filter looks into."""

NO_SESSIONS: Final = "no sessions yet: import some with lab.import_csv(...), or run: fxlab demo"


COLUMNS: Final = {
    "Session": "session_id",
    "Status": "status",
    "Started (UTC)": "started",
    "Rows": "records_collected",
    "Symbols": "symbols",
}
"""What is listed, by its head; the id stands first, so that it is never cut."""

ORDERS: Final = {
    "newest first": ("started", True),
    "oldest first": ("started", False),
    "id": ("session_id", False),
    "status": ("status", False),
    "most rows first": ("records_collected", True),
    "symbols": ("symbols", False),
}
"""How the list can be sorted: by which column, and whether the largest comes first."""


@dataclass(frozen=True)
class PickerState:
    """A list of sessions, a filter, and the session that is chosen.

    Parameters
    ----------
    sessions
        As `Lab.sessions` returns them, newest first: session_id, symbols and others.
    text
        What was typed: words that must all occur somewhere in a session's row, in any case.
    chosen
        Id of the chosen session. It stays chosen while a filter hides it.
    order
        One of `ORDERS`.
    """

    sessions: pl.DataFrame
    text: str = ""
    chosen: str | None = None
    order: str = "newest first"

    @property
    def words(self) -> list[str]:
        """Return the words of the filter."""
        return self.text.split()

    @cached_property
    def matches(self) -> pl.DataFrame:
        """Return all sessions that have every word."""
        found = self.sessions
        for word in self.words:
            has_word = _searchable(found).str.contains(word.lower(), literal=True)
            found = found.filter(has_word)
        return found

    @cached_property
    def rows(self) -> pl.DataFrame:
        """Return the sessions to list: the first matches."""
        name, falling = ORDERS[self.order]
        if name not in self.matches.columns:
            return self.matches.head(SHOWN)
        key = pl.col(name).list.join(" ") if name == "symbols" else pl.col(name)
        ordered = self.matches.sort(key, descending=falling, nulls_last=True, maintain_order=True)
        return ordered.head(SHOWN)

    @cached_property
    def options(self) -> list[tuple[str, str]]:
        """Return (label, session id) of each listed session, labels in aligned columns."""
        return list(zip(self._lines[1:], self.rows["session_id"], strict=True))

    @property
    def heads(self) -> str:
        """Return the line above the list: the names of its columns, each above its cells."""
        return self._lines[0]

    @cached_property
    def _lines(self) -> list[str]:
        columns = [_column(self.rows, head, name) for head, name in COLUMNS.items()]
        return ["  ".join(cells) for cells in zip(*columns, strict=True)]

    @property
    def is_listed(self) -> bool:
        """Return whether the chosen session is in the list."""
        return self.chosen is not None and self.chosen in self.rows["session_id"]

    @property
    def hidden(self) -> str:
        """Return why the chosen session is not in the list; empty if it is, or none is chosen."""
        if self.chosen is None or self.is_listed:
            return ""
        if self.chosen in self.matches["session_id"]:
            return f"{self.chosen} runs; it is not among the {SHOWN:,} listed"
        return f"{self.chosen} runs; the filter {self.text.strip()!r} hides it in the list"

    @property
    def count(self) -> str:
        """Return the line that says how many sessions there are and how many match."""
        total, found = self.sessions.height, self.matches.height
        if not total:
            return NO_SESSIONS
        noun = "session" if total == 1 else "sessions"
        line = f"{found:,} of {total:,} {noun}"
        if not found:
            return f"{line}: none has all these words"
        if found > SHOWN:
            return f"{line}; the first {SHOWN:,} are listed, type to narrow"
        return line

    def filtered(self, text: str) -> Self:
        """Return the state after typing."""
        return replace(self, text=text)

    def sorted(self, order: str) -> Self:
        """Return the state in another order."""
        return replace(self, order=order)

    def choose(self, session_id: str | None) -> Self:
        """Return the state after choosing; an id that does not exist chooses nothing."""
        known = session_id is not None and session_id in self.sessions["session_id"]
        return replace(self, chosen=session_id if known else None)

    def refreshed(self, sessions: pl.DataFrame) -> Self:
        """Return the state with a new list; the choice stays if its session still exists."""
        return replace(self, sessions=sessions).choose(self.chosen)

    def choose_newest(self) -> Self:
        """Return the state with the first session chosen, if there is one."""
        return self.choose(self.sessions["session_id"][0] if self.sessions.height else None)


def _searchable(frame: pl.DataFrame) -> pl.Series:
    """Return one lower-case text a row, of the columns that people search."""
    parts = [_as_text(name, kind) for name, kind in frame.schema.items() if name in SEARCHED]
    text = pl.concat_str(parts, separator="\n", ignore_nulls=True).str.to_lowercase()
    return frame.select(text.alias("text"))["text"]


def _as_text(name: str, kind: pl.DataType) -> pl.Expr:
    if isinstance(kind, pl.List):
        return pl.col(name).cast(pl.List(pl.String)).list.join(" ")
    if isinstance(kind, pl.Datetime):
        return pl.col(name).dt.strftime("%Y-%m-%d %H:%M:%S")
    return pl.col(name).cast(pl.String)


def _column(frame: pl.DataFrame, head: str, name: str) -> Sequence[str]:
    """Return a column's head and cells, padded to one width; numbers to the right."""
    if name not in frame.columns:
        return [""] * (frame.height + 1)
    texts = [head, *(_cell(name, value) for value in frame[name])]
    width = max((len(text) for text in texts), default=0)
    number = frame[name].dtype.is_numeric()
    return [text.rjust(width) if number else text.ljust(width) for text in texts]


def _cell(name: str, value: object) -> str:
    if value is None:
        return NOTHING
    if name == "started":
        return show_time(value)[:16]  # type: ignore[arg-type]  # the schema's timestamps
    if isinstance(value, int):
        return f"{value:,}"
    symbols = list(value) if isinstance(value, list | tuple | pl.Series) else [str(value)]
    more = f" +{len(symbols) - 2}" if len(symbols) > 2 else ""
    return ", ".join(symbols[:2]) + more
