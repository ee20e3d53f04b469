"""States of lists: the sessions of a picker, the runs of a browser; plain values, no widgets.

The list in the browser is only a picture of this state. Widgets move their own selection when
their options change; if they held the truth, typing a filter would silently choose sessions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final, Self

import polars as pl

from fxlab._html import NOTHING, show_number, show_time
from fxlab._questdb.sql import HIDDEN
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.strategy.strategy import short
from fxlab.schema import STATUSES
from fxlab.sessions._catalog import SessionPage, SessionQuery

if TYPE_CHECKING:
    from fxlab.sessions.runs import RunQuery

PAGE: Final = 200
"""Sessions, runs or sweeps that are listed at once; a button brings as many more."""

NO_SESSIONS: Final = "no sessions yet: import some with lab.import_files(...), or run: fxlab demo"


ALL: Final = "all"
SHOWN: Final = (ALL, *(status for status in STATUSES if status not in HIDDEN))
"""Statuses that a list of sessions can be narrowed to."""

COLUMNS: Final = {
    "Session": "session_id",
    "Status": "status",
    "Started (UTC)": "started",
    "Rows": "records_collected",
    "Symbols": "symbols",
}
"""What is listed, by its head; the id stands first, so that it is never cut."""

DELETED_COLUMNS: Final = {
    "Session": "session_id",
    "Deleted (UTC)": "deleted_at",
    "Rows": "rows",
    "Symbols": "symbols",
}
"""What is listed of sessions that were deleted."""

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
    status
        One of `SHOWN`: sessions must have it, and all the words.
    """

    page: SessionPage
    text: str = ""
    chosen: str | None = None
    order: str = "newest first"
    status: str = ALL

    @property
    def query(self) -> SessionQuery:
        """Return what `fxlab.Lab.session_page` is asked for the first sessions of the list."""
        column, falling = ORDERS[self.order]
        return {
            "text": self.text,
            "status": None if self.status == ALL else self.status,
            "sort": column,
            "descending": falling,
            "limit": PAGE,
        }

    @property
    def _filters(self) -> list[str]:
        """Return what narrows the list, in words."""
        words = [f"the filter {short(self.text.strip())}"] if self.text.strip() else []
        return words + [f"the status {self.status!r}"] * (self.status != ALL)

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
        return aligned(self.rows, COLUMNS)

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
            filters = self._filters
            if not filters:
                return f"{self.chosen} runs; it was not there when the list was read, press Refresh"
            what = f"{' and '.join(filters)} hide{'s' * (len(filters) < 2)}"
            return f"{self.chosen} runs; {what} it in the list"
        return f"{self.chosen} runs; it is not among the {self.rows.height:,} listed"

    @property
    def count(self) -> str:
        """Return the line that says how many sessions match."""
        found = self.page.total_count
        if not found:
            words = ["all these words"] if self.text.strip() else []
            words += [f"the status {self.status!r}"] * (self.status != ALL)
            return f"no session has {' and '.join(words)}" if words else NO_SESSIONS
        line = f"{found:,} session{'' if found == 1 else 's'}"
        if self._filters:
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


def aligned(frame: pl.DataFrame, columns: Mapping[str, str]) -> list[str]:
    """Return a line of heads and one a row, in columns of one width; `columns` has names by head.

    A list in the browser has one text an entry, so that its columns are made of spaces.
    """
    cells = [_column(frame, head, name) for head, name in columns.items()]
    return ["  ".join(each) for each in zip(*cells, strict=True)]


def _column(frame: pl.DataFrame, head: str, name: str) -> Sequence[str]:
    """Return a column's head and cells, padded to one width; numbers to the right."""
    if name not in frame.columns:
        return [""] * (frame.height + 1)
    texts = [head, *(_cell(value) for value in frame[name])]
    width = max((len(text) for text in texts), default=0)
    number = frame[name].dtype.is_numeric()
    return [text.rjust(width) if number else text.ljust(width) for text in texts]


def _cell(value: object) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, datetime):
        return show_time(value)[:16]
    if isinstance(value, int):
        return f"{value:,}"
    symbols = list(value) if isinstance(value, list | tuple | pl.Series) else [str(value)]
    more = f" +{len(symbols) - 2}" if len(symbols) > 2 else ""
    return ", ".join(symbols[:2]) + more


RUNS, SWEEPS = "runs", "sweeps"

IDS: Final = {RUNS: "run_id", SWEEPS: "sweep_id"}

RUN_COLUMNS: Final = {
    RUNS: {
        "Run": "run_id", "Strategy": "strategy", "Session": "data_session_id",
        "Ran (UTC)": "timestamp",
        "Return": "total_return", "Sharpe": "sharpe", "Drawdown": "max_drawdown",
        "Fills": "fills_count",
    },
    SWEEPS: {
        "Sweep": "sweep_id", "Strategy": "strategy", "Session": "data_session_id",
        "Ran (UTC)": "finished", "Done": "done", "Failed": "failed", "Skipped": "skipped",
        "Search": "search",
    },
}  # fmt: skip
"""What is listed, by its head; the id stands first, so that it is never cut."""

RUN_ORDERS: Final = {
    RUNS: {
        "newest first": ("timestamp", True),
        "oldest first": ("timestamp", False),
        "highest return first": ("total_return", True),
        "highest Sharpe first": ("sharpe", True),
        "smallest drawdown first": ("max_drawdown", True),
        "strategy": ("strategy", False),
        "session": ("data_session_id", False),
    },
    SWEEPS: {
        "newest first": ("finished", True),
        "oldest first": ("finished", False),
        "most points first": ("done", True),
        "strategy": ("strategy", False),
        "session": ("data_session_id", False),
    },
}
"""How each list can be sorted: by which column, and whether the largest comes first."""

_NONE: Final = {
    RUNS: "no saved runs yet: keep one with result.save(lab)",
    SWEEPS: "no sweeps are kept yet: keep one with fxlab.sweep(..., lab=lab)",
}


@dataclass(frozen=True)
class RunsState:
    """The listed runs or sweeps, their filter and order, and those that are chosen.

    Parameters
    ----------
    kind
        ``"runs"`` or ``"sweeps"``.
    rows
        Those that are listed: what `fxlab.Lab.runs` or `fxlab.Lab.sweeps` returns to `query`, and
        the pages after it.
    text
        What was typed: words that must all occur somewhere in a row, in any case.
    order
        One of `RUN_ORDERS` of that kind.
    chosen
        Ids, in the order of the list. They stay chosen while a filter hides them.
    is_more
        Whether there are others after those that are listed.
    """

    kind: str
    rows: pl.DataFrame
    text: str = ""
    order: str = "newest first"
    chosen: tuple[str, ...] = ()
    is_more: bool = False

    @property
    def query(self) -> RunQuery:
        """Return what the database is asked, for the first ones of the list."""
        column, falling = RUN_ORDERS[self.kind][self.order]
        return {"text": self.text, "sort": column, "descending": falling}

    @property
    def next_query(self) -> RunQuery:
        """Return what it is asked for those after the ones that are listed."""
        return {**self.query, "after": self.rows[IDS[self.kind]][-1]}

    def with_page(self, found: pl.DataFrame) -> Self:
        """Return the state with a first page, of which one row more than `PAGE` was asked for."""
        return replace(self, rows=found.head(PAGE), is_more=found.height > PAGE)

    def with_more(self, found: pl.DataFrame) -> Self:
        """Return the state with the next page below what is listed.

        A sweep that was run again since then has another place: it is listed there alone.
        """
        page, one = self.with_page(found), IDS[self.kind]
        rows = pl.concat([self.rows, page.rows]).unique(one, keep="last", maintain_order=True)
        return replace(page, rows=rows)

    @cached_property
    def _lines(self) -> list[str]:
        shown = self.rows.with_columns(
            pl.Series(name, [_metric(name, value) for value in self.rows[name]], pl.String)
            for name in self.rows.columns
            if name in METRICS and self.rows.schema[name].is_float()
        )
        return aligned(shown, RUN_COLUMNS[self.kind])

    @property
    def heads(self) -> str:
        """Return the line above the list: the names of its columns, each above its cells."""
        return self._lines[0]

    @property
    def options(self) -> list[tuple[str, str]]:
        """Return (label, id) of each row, labels in aligned columns."""
        return list(zip(self._lines[1:], self.rows[IDS[self.kind]], strict=True))

    @property
    def listed(self) -> tuple[str, ...]:
        """Return the chosen ids that the list shows."""
        shown = set(self.rows[IDS[self.kind]])
        return tuple(one for one in self.chosen if one in shown)

    @property
    def count(self) -> str:
        """Return the line that says how many match, and how many chosen ones are hidden."""
        found, words = self.rows.height, bool(self.text.strip())
        one = self.kind[:-1]
        if not found:
            line = f"no {one} has all these words" if words else _NONE[self.kind]
        elif self.is_more:
            line = f"more than {found:,} {self.kind}{' match' * words}"
            line += f"; the first {found:,} are listed, type to narrow"
        else:
            line = f"{found:,} {self.kind if found > 1 else one}"
            line += f" match{'es' * (found == 1)}" * words
        hidden = len(self.chosen) - len(self.listed)
        why = "hidden by the filter" if words else "not listed"
        return line + f"; {hidden:,} chosen, {why}" * bool(hidden)

    def choose(self, ids: tuple[str, ...]) -> Self:
        """Return the state after choosing."""
        return replace(self, chosen=ids)


def _metric(name: str, value: float | None) -> str:
    """Return a metric as its table shows it: fractions in percent."""
    if value is None:
        return NOTHING
    if METRICS[name][0] == "fraction":
        return f"{value:+.2%}"
    return show_number(value, 2)
