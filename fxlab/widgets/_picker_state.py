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
from fxlab.sessions._catalog import SessionPage, SessionQuery

PAGE: Final = 200
"""Sessions that are listed at once; a button brings as many more."""

NO_SESSIONS: Final = "no sessions yet: import some with lab.import_files(...), or run: fxlab demo"


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
    """The listed sessions, their filter and order, and the session that is chosen.

    Parameters
    ----------
    page
        What the server answers to `query`.
    text
        What was typed: words that must all occur somewhere in a session's row, in any case.
    chosen
        Id of the chosen session. It stays chosen while a filter hides it.
    order
        One of `ORDERS`.
    """

    page: SessionPage
    text: str = ""
    chosen: str | None = None
    order: str = "newest first"

    @property
    def query(self) -> SessionQuery:
        """Return what `fxlab.Lab.session_page` is asked for the first sessions of the list."""
        column, falling = ORDERS[self.order]
        return {"text": self.text, "sort": column, "descending": falling, "limit": PAGE}

    @property
    def rows(self) -> pl.DataFrame:
        """Return the sessions that are listed."""
        return self.page.sessions

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
        if self.page.next_after is None:
            return f"{self.chosen} runs; the filter {self.text.strip()!r} hides it in the list"
        return f"{self.chosen} runs; it is not among the {self.rows.height:,} listed"

    @property
    def count(self) -> str:
        """Return the line that says how many sessions match."""
        found = self.page.total_count
        if not found:
            return "no session has all these words" if self.text.strip() else NO_SESSIONS
        line = f"{found:,} session{'' if found == 1 else 's'}"
        if self.text.strip():
            line += " match" if found > 1 else " matches"
        if self.page.next_after is not None:
            return f"{line}; the first {self.rows.height:,} are listed, type to narrow"
        return line

    def choose(self, session_id: str | None) -> Self:
        """Return the state after choosing."""
        return replace(self, chosen=session_id)

    def choose_first(self) -> Self:
        """Return the state with the first session chosen, if there is one."""
        return self.choose(self.rows["session_id"][0] if self.rows.height else None)

    def with_more(self, following: SessionPage) -> Self:
        """Return the state with the next page below what is listed."""
        sessions = pl.concat([self.rows, following.sessions])
        return replace(self, page=replace(following, sessions=sessions))


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
