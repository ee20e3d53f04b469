"""Session picker: filter sessions by words, pick one, pick its symbols.

The list in the browser is only a view of `PickerState`, plain values without widgets. Widgets move
their own selection when their options change; if they held the state, typing a filter would
silently choose sessions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

import ipywidgets as w
import polars as pl
import traitlets as t

from fxlab._html import NOTHING, escape, facts, show_time
from fxlab.errors import InvalidInput
from fxlab.widgets._base import KeyGuard, Message, beside, in_line, label_width, style_sheet

if TYPE_CHECKING:
    from fxlab.lab import Lab
    from fxlab.sessions.session import Session


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


READ_AT_MOST: Final = 100_000
_WIDE: Final = {"width": "64rem"}


class SessionPicker(w.VBox):
    """A list of sessions with a filter, the chosen session's facts, and its symbols.

    Parameters
    ----------
    lab
        Where the sessions are.
    session_id
        The session chosen at first; the newest unless given.

    Attributes
    ----------
    value : Session or None
        The chosen session; observable. Typing a filter never changes it.
    symbols : tuple[str, ...]
        The chosen symbols of that session; observable.
    hidden : str
        Why the list does not show the chosen session, empty if it does; observable.
    """

    value = t.Any(None, allow_none=True)
    symbols = t.Tuple()
    hidden = t.Unicode()

    def __init__(self, lab: Lab, session_id: str | None = None) -> None:
        self._lab = lab
        self._showing = False
        self._build()
        self.state = PickerState(lab.sessions(limit=READ_AT_MOST))
        wanted = lab.session(session_id).id if session_id else None
        self._show(self.state.choose(wanted) if wanted else self.state.choose_newest())
        with self.message.guard():
            self._load()

    def _build(self) -> None:
        style = label_width(["Symbols", "Session"])
        self.filter = w.Text(
            description="Filter", placeholder="words, e.g. btc completed", style=style
        )
        self.refresh = w.Button(
            description="Refresh", icon="refresh", tooltip="Read the list again"
        )
        self.count = w.HTML()
        self.order = w.Dropdown(
            description="Sort by", options=list(ORDERS), layout={"width": "14rem"},
            style=label_width(["Sort by"]),
        )  # fmt: skip
        # A blank label keeps the heads above the columns of the list.
        self.heads = w.HTML(description=" ", style=style, layout=_WIDE)
        self.heads.add_class("fxlab-heads")
        self.listing = w.Select(
            description="Session", options=[], rows=7, style=style, layout=_WIDE
        )
        self.listing.add_class("fxlab-list")
        self.details = w.HTML()
        self.symbol_list = w.SelectMultiple(
            description="Symbols", options=[], rows=4, style=style, layout={"width": "17rem"}
        )
        self.message = Message()
        super().__init__(
            [
                style_sheet(),
                in_line([self.filter, self.order, self.refresh, self.count]),
                w.VBox([self.heads, self.listing]),
                beside([self.symbol_list, self.details]),
                self.message,
                KeyGuard(),
            ]
        )
        self.add_class("fxlab-panel")
        self.filter.observe(lambda _: self._on_filter(), "value")
        self.order.observe(lambda _: self._show(self.state.sorted(self.order.value)), "value")
        self.listing.observe(lambda _: self._on_choice(), "value")
        self.symbol_list.observe(lambda _: self._on_symbols(), "value")
        self.refresh.on_click(self._on_refresh)

    def __repr__(self) -> str:
        """Show the choice."""
        chosen = f"{self.state.chosen}: {', '.join(self.symbols)}" if self.value else "nothing"
        return f"<SessionPicker {chosen}; {self.state.count}>"

    @property
    def chosen(self) -> tuple[Session, list[str]]:
        """Return the session and its chosen symbols; raises `InvalidInput` if one is missing."""
        if self.value is None or not self.symbols:
            missing = "session" if self.value is None else "symbol"
            raise InvalidInput(f"no {missing} is chosen; choose one in the list above")
        return self.value, list(self.symbols)

    def choose(self, session_id: str) -> None:
        """Choose a session by its id.

        Raises
        ------
        SessionNotFound
            If there is none, with the nearest ids.
        """
        self._show(self.state.choose(self._lab.session(session_id).id))
        self._load()

    def _on_filter(self) -> None:
        self._show(self.state.filtered(self.filter.value))

    def _on_choice(self) -> None:
        # A list moves its selection by itself when its options change: that is no choice.
        if self._showing or self.listing.value is None:
            return
        self.state = self.state.choose(self.listing.value)
        with self.message.guard():
            self._load()

    def _on_symbols(self) -> None:
        if not self._showing:
            self.symbols = self.symbol_list.value

    def _on_refresh(self, _button: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
        with self.message.guard():
            state = self.state.refreshed(self._lab.sessions(limit=READ_AT_MOST))
            self._show(state if state.chosen else state.choose_newest())
            self._load()

    def _show(self, state: PickerState) -> None:
        """Make the list a picture of the state."""
        self.state = state
        with self._quietly(), self.listing.hold_sync():
            self.listing.options = state.options
            self.listing.value = state.chosen if state.is_listed else None
        self.count.value = f'<span role="status" class="fxlab-soft">{escape(state.count)}</span>'
        self.heads.value = f"<pre>{escape(state.heads)}</pre>"
        self.hidden = state.hidden

    def _load(self) -> None:
        """Read the chosen session and fill in what hangs on it; symbols before value."""
        chosen = self.state.chosen
        session = self._lab.session(chosen) if chosen else None
        names = session.symbols if session else ()
        with self._quietly(), self.symbol_list.hold_sync():
            self.symbol_list.options = names
            self.symbol_list.value = names
        self.details.value = _details(session) if session else ""
        self.symbols = names
        self.value = session

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Set widgets without hearing them."""
        self._showing = True
        try:
            yield
        finally:
            self._showing = False


def _details(session: Session) -> str:
    pairs: list[tuple[str, object]] = [
        ("id", session.id),
        ("status", session.status),
        ("exchange", session.exchange or None),
        ("from", f"{show_time(session.started)} UTC" if session.started else None),
        ("to", f"{show_time(session.ended)} UTC" if session.ended else None),
        ("trades", session.prices_count),
        ("books", session.orderbook_count),
        ("gaps", session.gaps_count),
        ("tags", ", ".join(session.tags) or None),
        ("notes", session.notes or None),
    ]
    return facts((name, value) for name, value in pairs if value is not None)
