"""Session picker: filter sessions by words and status, pick one, pick its symbols.

The list in the browser is only a view of `PickerState`, plain values without widgets. Widgets move
their own selection when their options change; if they held the state, typing a filter would
silently choose sessions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w
import polars as pl
import traitlets as t

from fxlab._html import escape, facts, show, show_time
from fxlab.backtester.report._summary import show_seconds, sparkline
from fxlab.errors import Cancelled, FxlabError, InvalidInput, SessionNotFound, some
from fxlab.widgets._base import (
    IdList,
    IdLists,
    KeyGuard,
    Message,
    QuietBox,
    beside,
    in_line,
    label_width,
    run_aside,
    soft,
    style_sheet,
)
from fxlab.widgets._list_state import (
    DELETED_COLUMNS,
    ORDERS,
    PAGE,
    SHOWN,
    PickerState,
    aligned,
)

if TYPE_CHECKING:
    from fxlab.lab import Lab
    from fxlab.sessions._catalog import SessionQuery
    from fxlab.sessions.session import Session


_WIDE: Final = {"width": "64rem"}


class SessionPicker(QuietBox):
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
        self._build()
        self.state = PickerState(lab.session_page(limit=0))
        wanted = lab.session(session_id) if session_id else None
        self._read(self.state)
        if wanted:
            self._take(wanted)
        else:
            with self.message.guard():
                self._choose_known()

    def _build(self) -> None:
        style = label_width(["Symbols", "Session"])
        self.filter = w.Text(
            description="Filter", placeholder="words, e.g. btc completed", style=style
        )
        self.refresh = w.Button(
            description="Refresh", icon="refresh", tooltip="Read the list again"
        )
        self.more = w.Button(description="More", tooltip="List the next sessions too")
        self.count = w.HTML()
        self.order = w.Dropdown(
            description="Sort by", options=list(ORDERS), layout={"width": "14rem"},
            style=label_width(["Sort by"]),
        )  # fmt: skip
        self.status = w.Dropdown(
            description="Status", options=list(SHOWN), layout={"width": "12rem"},
            style=label_width(["Status"]),
        )  # fmt: skip
        # A blank label keeps the heads above the columns of the list.
        self.heads = w.HTML(description=" ", style=style, layout=_WIDE)
        self.heads.add_class("fxlab-heads")
        self.listing = IdList(
            description="Session", rows=7, style=style, layout=_WIDE, on_ids=self._on_ids
        )
        self.listing.add_class("fxlab-list")
        self.details, self.overview = w.HTML(), SessionOverview()
        self.symbol_list = IdLists(
            description="Symbols", rows=4, style=style, layout={"width": "17rem"}
        )
        self.message = Message()
        self.deletion = DeletionBox(self._lab, self.message, self._on_deleted)
        super().__init__(
            [
                style_sheet(),
                in_line(
                    [self.filter, self.status, self.order, self.refresh, self.count, self.more]
                ),
                w.VBox([self.heads, self.listing]),
                beside([self.symbol_list, w.VBox([self.details, self.overview])]),
                self.deletion,
                self.message,
                KeyGuard(self.listing, self.symbol_list, self.deletion.deleted),
            ]
        )
        self.add_class("fxlab-panel")
        for control in (self.filter, self.status, self.order):
            control.observe(lambda _: self._on_filter(), "value")
        self.listing.observe(lambda _: self._on_choice(), "value")
        self.symbol_list.observe(lambda _: self._on_symbols(), "value")
        self.refresh.on_click(self._on_refresh)
        self.more.on_click(self._on_more)

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
        self._take(self._lab.session(session_id))

    def _on_filter(self) -> None:
        with self.message.guard():
            asked = {name: getattr(self, name).value for name in ("status", "order")}
            self._read(replace(self.state, text=self.filter.value, **asked))

    def _on_choice(self) -> None:
        if not self._showing and self.listing.value is not None:
            self._on_ids((self.listing.value,))

    def _on_ids(self, ids: tuple[str, ...]) -> None:
        with self.message.guard():
            self._choose(next(iter(ids), self.state.chosen))

    def _on_symbols(self) -> None:
        if not self._showing:
            self.symbols = self.symbol_list.value

    def _on_refresh(self, _button: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
        with self.message.guard():
            self._read(self.state)
            self._choose_known()

    def _on_deleted(self, undeleted: str | None) -> None:
        """Show the list without the chosen session, which was deleted, or with one that is back."""
        if not undeleted:
            self._take(None)  # before the list is read, which may fail
        self._read(self.state)
        if undeleted:
            self._choose(undeleted)
        else:
            self._choose_known()

    def _on_more(self, _button: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
        with self.message.guard():
            query: SessionQuery = {**self.state.query, "after": self.state.page.next_after}
            self._show(self.state.with_more(self._lab.session_page(**query)))

    def _read(self, state: PickerState) -> None:
        """Ask for the first sessions of a state's filter and order, and show them."""
        self._show(replace(state, page=self._lab.session_page(**state.query)))

    def _choose_known(self) -> None:
        """Read the chosen session again; the first where none is chosen, or one that is no more."""
        try:
            known = self._lab.session(self.state.chosen) if self.state.chosen else None
        except SessionNotFound:
            known = None
        if known:
            self._take(known)
        else:
            self._choose(self.state.choose_first().chosen)

    def _choose(self, session_id: str | None) -> None:
        """Choose a session; none where it cannot be read, for what is listed as chosen runs."""
        try:
            session = self._lab.session(session_id) if session_id else None
        except Exception:
            self._take(None)
            raise
        self._take(session)

    def _show(self, state: PickerState) -> None:
        """Make the list a picture of the state."""
        self.state = state
        with self._quietly(), self.listing.hold_sync():
            self.listing.options = state.options
            self._mark()
        self.count.value = f'<span role="status" class="fxlab-soft">{escape(state.count)}</span>'
        self.heads.value = f"<pre>{escape(state.heads)}</pre>"
        self.more.layout.display = None if state.page.next_after else "none"

    def _mark(self) -> None:
        """Mark the chosen session in the list, and say why where it is not there."""
        self.listing.value = self.state.chosen if self.state.is_listed else None
        self.hidden = self.state.hidden

    def _take(self, session: Session | None) -> None:
        """Make a session the chosen one, with all that hangs on it; symbols before value."""
        # The list keeps its options: to send them again would cost its lines and its place.
        self.state = self.state.choose(session.id if session else None)
        names = session.symbols if session else ()
        with self._quietly(), self.symbol_list.hold_sync():
            self._mark()
            self.symbol_list.options = names
            self.symbol_list.value = names
        self.details.value = _details(session) if session else ""
        self.symbols = names
        self.value = session
        self.deletion.ask_about(session)
        self.overview.show(session)


READ_ROWS: Final = 1_000_000
"""Rows of a session, trades and books, up to which all are read when it is chosen."""

PRICES: Final = 400
"""Prices that a sparkline is drawn from, at most."""


class SessionOverview(w.HTML):
    """Quality score and price line of a session, read beside the kernel's own thread."""

    def __init__(self) -> None:
        super().__init__()
        self._asked = 0  # only the answer to what was asked last is shown
        self._turn = threading.Lock()

    def show(self, session: Session | None) -> None:
        """Show a session's, as soon as they are known; an older question is answered no more."""
        self._asked += 1
        asked = self._asked
        self.value = _unread(session) if session else ""
        if session is None or self.value:
            return
        self.value = soft("quality and price: reading all ticks")

        def check(*_: object) -> None:
            if asked != self._asked:
                raise Cancelled

        def work() -> str:
            with self._turn:  # who walks through the list with a key asks for one at a time
                check()
                return _overview(session, check)

        def done(outcome: Callable[[], str]) -> None:
            try:
                found = outcome()
            except Cancelled:  # by what is asked by now, which shows its own answer
                return
            except Exception as error:  # noqa: BLE001 - shown, and the choice stands without it
                name = "" if isinstance(error, FxlabError) else f"{type(error).__name__}: "
                found = soft(f"quality and price: not known: {name}{error}")
            if asked == self._asked:
                self.value = found

        run_aside(work, done)


def _unread(session: Session) -> str:
    """Return why a session's ticks are not read when it is chosen; nothing if they are."""
    rows = session.prices_count + session.orderbook_count
    if session.status == "collecting":
        why = "not read while it is recorded"
    elif rows > READ_ROWS:
        why = f"not read, for it has {rows:,} rows, more than {READ_ROWS:,}"
    else:
        return ""
    return soft(f"quality and price: {why}; Run in widgets.QualityPanel(lab) reads them")


def _overview(session: Session, check: Callable[..., None]) -> str:
    """Return score and price line as HTML; `check` is called now and then, and may raise."""
    pairs: list[tuple[str, object]] = [("quality", f"{session.quality().score} of 100")]
    check()
    line: object = ""
    for symbol in session.symbols[:1]:
        sampled = session.chart_data(symbol, max_points=PRICES, progress=check)
        line = sparkline(sampled["price"].to_list())
        pairs.append(("price", f"{symbol}, first to last" if line else f"{symbol}: no line"))
    return f"{facts(pairs)}{line}"


class DeletionBox(w.VBox):
    """Deletes the chosen session once its id was typed, and brings any deleted one back.

    Parameters
    ----------
    lab, message
        Where the sessions are, and where errors are said.
    changed
        Called after a deletion with None, and with the id of a session that is back.
    """

    def __init__(self, lab: Lab, message: Message, changed: Callable[[str | None], None]) -> None:
        self._lab, self._message, self._changed = lab, message, changed
        self._session: Session | None = None
        self._last = ""
        self.delete = w.Button(description="Delete…", tooltip="Show what a deletion would free")
        self.undo = w.Button(description="Undo", icon="undo")
        self.preview = w.HTML()
        self.typed = w.Text(
            description="Its id", placeholder="type the id", style=label_width(["Its id"])
        )
        self.confirm = w.Button(description="Delete it", button_style="danger", disabled=True)
        self.cancel = w.Button(description="Keep it")
        self._asking = w.VBox([self.preview, in_line([self.typed, self.confirm, self.cancel])])
        self.show_deleted = w.Button(
            description="Deleted sessions…",
            tooltip="List the sessions that can come back, or hide",
            layout={"width": "auto"},
        )
        self.deleted = IdList(
            description="Deleted", rows=4, style=label_width(["Deleted"]), layout=_WIDE
        )
        self.deleted.add_class("fxlab-list")
        self.restore = w.Button(
            description="Bring back", icon="undo", tooltip="Bring the one chosen above back"
        )
        self.note = w.HTML()
        self._bin = w.VBox(
            [self.deleted, in_line([self.restore, self.note])], layout={"display": "none"}
        )
        super().__init__(
            [in_line([self.delete, self.undo, self.show_deleted]), self._asking, self._bin]
        )
        self.delete.on_click(lambda _: self._ask())
        self.cancel.on_click(lambda _: self.ask_about(self._session))
        self.confirm.on_click(lambda _: self._delete())
        self.undo.on_click(lambda _: self._undelete(self._last))
        self.show_deleted.on_click(lambda _: self._toggle_deleted())
        self.restore.on_click(lambda _: self._undelete(self.deleted.value))
        self.typed.observe(lambda _: self._on_typed(), "value")
        self.ask_about(None)

    def ask_about(self, session: Session | None) -> None:
        """Take the session that is chosen; a question about another one is over."""
        self._session = session
        self.delete.disabled = session is None
        self.undo.layout.display = None if self._last else "none"
        self.undo.tooltip = f"Bring {self._last} back"
        self._asking.layout.display = "none"

    def _ask(self) -> None:
        session = self._session
        if session is None:
            return
        self._asking.layout.display = "none"
        with self._message.guard():
            planned = self._lab.deletion_preview(session.id)
            late = planned.filter(state="deferred")
            pairs: list[tuple[str, object]] = [
                ("rows", int(planned["rows"].sum())),
                ("MB", round(int(planned["bytes"].sum()) / 1e6, 1)),
                ("partitions", planned.height),
                ("shared with others", planned.filter(pl.col("shared_with") > 0).height),
                ("deferred", f"{late.height}: {late['reason'][0]}" if late.height else 0),
            ]
            self.preview.value = facts(pairs)
            self.typed.value = ""
            self._asking.layout.display = None

    def _on_typed(self) -> None:
        wanted = self._session is not None and self.typed.value == self._session.id
        self.confirm.disabled = not wanted

    def _delete(self) -> None:
        session = self._session
        if session is None or self.typed.value != session.id:
            return
        with self._message.guard():
            self._lab.delete(session.id)
            self._last = session.id
            self._list_deleted()
            self._changed(None)
            self._message.say(f"{session.id} is deleted; Undo brings it back until it is purged")

    def _undelete(self, session_id: str | None) -> None:
        with self._message.guard():
            if session_id is None:  # what was chosen is no more among those that can come back
                raise InvalidInput("no session is chosen; choose one in the list above")
            back = self._lab.undelete(session_id).id
            if back == self._last:
                self._last = ""
            self._list_deleted()
            self._changed(back)
            self._message.say(f"{back} is back")

    def _toggle_deleted(self) -> None:
        """Show the deleted sessions, or hide them again."""
        shown = self._bin.layout.display is None
        self._bin.layout.display = "none" if shown else None
        with self._message.guard():
            self._list_deleted()

    def _list_deleted(self) -> None:
        """Read the list of deleted sessions again, where it is shown."""
        if self._bin.layout.display is not None:
            return
        every = self._lab.deleted()
        able = every.filter("can_be_undeleted")
        shown = able.head(PAGE)
        self.deleted.options = list(
            zip(aligned(shown, DELETED_COLUMNS)[1:], shown["session_id"], strict=True)
        )
        self.restore.disabled = shown.is_empty()
        words = [f"{able.height:,} can come back" + ", the last come first" * (able.height > 1)]
        if able.height > PAGE:
            words.append(f"{PAGE:,} are listed, lab.deleted() has all")
        if gone := every.height - able.height:
            words.append(f"the ticks of {gone:,} more are purged")
        self.note.value = soft("; ".join(words))


def _sizes(session: Session) -> str | None:
    """Return the steps of price and quantity that the venue listed; None where it listed none."""
    listed = session.instruments().select("symbol", "tick_size", "lot_size").rows()
    known = [(name, *map(show, sizes)) for name, *sizes in listed if any(sizes)]
    return some((f"{name} {tick}, {lot}" for name, tick, lot in known), 3) or None


def _details(session: Session) -> str:
    lasted = session.duration_seconds
    pairs: list[tuple[str, object]] = [
        ("id", session.id),
        ("status", session.status),
        ("exchange", session.exchange or None),
        ("source", session.source or None),
        ("from", f"{show_time(session.started)} UTC" if session.started else None),
        ("to", f"{show_time(session.ended)} UTC" if session.ended else None),
        ("duration", None if lasted is None else show_seconds(lasted)),
        ("trades", session.prices_count),
        ("books", session.orderbook_count),
        ("gaps", session.gaps_count),
        ("tick and lot", _sizes(session)),
        ("tags", ", ".join(session.tags) or None),
        ("notes", session.notes or None),
    ]
    return facts((name, value) for name, value in pairs if value is not None)
