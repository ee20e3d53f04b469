"""Lists, choices and answers in any order of what people, pages and other processes do."""

# ruff: noqa: D102 - acts and rules are named by what they say

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import plotly.graph_objects as go
import polars as pl
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fxlab._ticks import instruments_frame
from fxlab.errors import RunNotFound, SessionNotFound, SweepNotFound
from fxlab.schema import UTC_MICROS
from fxlab.sessions._catalog import SessionPage
from fxlab.widgets import (
    RunsBrowser,
    SessionPicker,
    _figures,
    _list_state,
    _runs_browser,
    _session_picker,
)
from fxlab.widgets._base import Message
from fxlab.widgets._figures import ZoomSampler
from fxlab.widgets._list_state import ALL, ORDERS, RUN_ORDERS, RUNS, SWEEPS

QUICK = settings(max_examples=20, stateful_step_count=15)
PAGE = 3
START = datetime(2024, 1, 1, tzinfo=UTC)
WORDS = st.sampled_from(["", "w1", "w2", "1", "no-such-word"])


@pytest.fixture
def aside(monkeypatch):
    """List what panels work at beside the kernel's thread; it is answered when a test says so."""
    for module in (_runs_browser, _list_state, _session_picker):
        monkeypatch.setattr(module, "PAGE", PAGE)
    several = SimpleNamespace(_repr_html_=lambda: "side by side")
    monkeypatch.setattr(_runs_browser, "compare_runs", lambda _runs: several)
    under_way = []
    for module in (_runs_browser, _figures):
        monkeypatch.setattr(module, "run_aside", lambda work, done: under_way.append((work, done)))
    return under_way


def is_shown(control):
    return control.layout.display is None


def run_machine(machine, *given):
    run_state_machine_as_test(lambda: machine(*given), settings=QUICK)


# ---- what a database and a page have ---------------------------------------------------------


class Table:
    """Rows by id, sorted and cut into pages as the database does; those deleted can come back."""

    def __init__(self, one, error):
        self.one, self.error = one, error
        self.rows, self.deleted = {}, set()

    def add(self, number, **values):
        name = f"{self.one[0]}{number:02d}"
        self.rows[name] = {self.one: name, **values}

    def sorted(self, sort, descending):
        """Return all rows, those without a value last, equal ones by id."""
        rows = sorted(self.rows.values(), key=lambda row: row[self.one])
        known = [row for row in rows if row[sort] is not None]
        known.sort(key=lambda row: row[sort], reverse=descending)
        return known + [row for row in rows if row[sort] is None]

    def matching(self, *, text, sort, descending, after=None, limit=None):
        rows = self.sorted(sort, descending)
        if after is not None:
            rows = rows[[row[self.one] for row in rows].index(after) + 1 :]
        found = [
            row for row in rows
            if row[self.one] not in self.deleted
            and all(word in " ".join(map(str, row.values())) for word in text.split())
        ]  # fmt: skip
        return found[:limit]

    def ids(self, **query):
        return [row[self.one] for row in self.matching(**query)]

    def check(self, name, *, deleted=False):
        if name not in self.rows or (name in self.deleted) != deleted:
            raise self.error.named(name, [])

    def has(self, name):
        return name in self.rows and name not in self.deleted

    def delete(self, name):
        self.check(name)
        self.deleted.add(name)

    def undelete(self, name):
        self.check(name, deleted=True)
        self.deleted.remove(name)


class ListInPage:
    """A list as the page has it, which is told of changes late; as ipywidgets' models are.

    What a person chooses is told by ids, then sent as places in it. The kernel sends what it heard
    back, and an echo that is older than the last choice is passed over.
    """

    def __init__(self, listing, panel):
        self.listing, self.guard = listing, panel.children[-1]
        self.labels, self.index = listing._options_labels, listing.index
        self._coming, self._echoes = [], 0
        listing._send = lambda message, **_: self._coming.append(message)

    def choose(self, index):
        """Choose in the list that the page has, which may be one before the kernel's."""
        self.index = index
        self._echoes += 1
        places = index if isinstance(index, list) else [index]
        ids = [self.labels[place].split()[0] for place in places]
        told = {"event": "choice", "list": self.listing.description, "ids": ids}
        self.guard.handle(told)
        self.listing.set_state({"index": index})
        return tuple(ids)

    def hear(self):
        """Hear all that was sent; the page is then as the kernel is."""
        for message in self._coming:
            if message["method"] == "echo_update":
                self._echoes -= 1
                if self._echoes:
                    continue
            self.labels = message["state"].get("_options_labels", self.labels)
            self.index = message["state"].get("index", self.index)
        self._coming.clear()
        assert tuple(self.labels) == self.listing._options_labels
        index = tuple(self.index) if isinstance(self.index, list) else self.index
        assert index == self.listing.index


# ---- the runs browser ------------------------------------------------------------------------


class RunsInMemory:
    """A lab that has runs and sweeps alone."""

    def __init__(self):
        self.tables = {RUNS: Table("run_id", RunNotFound), SWEEPS: Table("sweep_id", SweepNotFound)}
        self.delete_run, self.undelete_run = self.tables[RUNS].delete, self.tables[RUNS].undelete
        self.delete_sweep = self.tables[SWEEPS].delete
        self.undelete_sweep = self.tables[SWEEPS].undelete
        self.moment = 0
        for number in range(8):
            self.save(number, None if number % 3 == 0 else number % 4)
        for number in range(5):
            self.sweep_again(number)

    def now(self):
        self.moment += 1
        return START + timedelta(minutes=self.moment)

    def save(self, number, value):
        metrics = dict.fromkeys(("total_return", "sharpe", "max_drawdown"), value)
        words = {"strategy": f"w{number % 2}", "data_session_id": f"w{number % 3}"}
        self.tables[RUNS].add(number, **words, **metrics, timestamp=self.now())

    def sweep_again(self, number):
        words = {"strategy": f"w{number % 2}", "data_session_id": f"w{number % 3}"}
        self.tables[SWEEPS].add(number, **words, done=number % 2, finished=self.now())

    def runs(self, limit=50, **query):
        floats = dict.fromkeys(("total_return", "sharpe", "max_drawdown"), pl.Float64)
        times = {"timestamp": UTC_MICROS}
        return self._page(RUNS, limit, query, {**floats, **times})

    def sweeps(self, limit=50, **query):
        return self._page(SWEEPS, limit, query, {"done": pl.Int64, "finished": UTC_MICROS})

    def _page(self, kind, limit, query, types):
        asked = {"text": "", "sort": next(iter(types)), "descending": True} | query
        words = dict.fromkeys((self.tables[kind].one, "strategy", "data_session_id"), pl.String)
        return pl.DataFrame(self.tables[kind].matching(**asked, limit=limit), schema=words | types)

    def run(self, name):
        self.tables[RUNS].check(name)
        result = SimpleNamespace(ticks=1, title=name, plot=go.Figure)
        found = SimpleNamespace(run_id=name, difference="", result=result)
        return SimpleNamespace(_repr_html_=lambda: name, reproduce=lambda _progress: found)

    def sweep(self, name):
        self.tables[SWEEPS].check(name)
        return SimpleNamespace(
            sweep_id=name, plan={}, points=pl.DataFrame, _repr_html_=lambda: name
        )  # fmt: skip


class RunsMachine(RuleBasedStateMachine):
    """A person at the runs browser, while others save, delete and bring back."""

    def __init__(self, aside):
        super().__init__()
        aside.clear()
        self.aside, self.lab = aside, RunsInMemory()
        self.browser = RunsBrowser(self.lab)
        self.page = ListInPage(self.browser.listing, self.browser)
        self.gone = ()
        self.is_fresh = True  # whether nothing has changed since the first page was read

    @property
    def table(self):
        return self.lab.tables[self.browser.state.kind]

    @property
    def chosen(self):
        return self.browser.state.chosen

    def ids(self):
        return [name for _, name in self.browser.listing.options]

    @rule(text=WORDS)
    def type(self, text):
        before = self.chosen
        self.is_fresh |= text != self.browser.filter.value
        self.browser.filter.value = text
        assert self.chosen == before

    @rule(number=st.integers(0, 6))
    def sort(self, number):
        before = self.chosen
        orders = list(RUN_ORDERS[self.browser.state.kind])
        order = orders[number % len(orders)]
        self.is_fresh |= order != self.browser.order.value
        self.browser.order.value = order
        assert self.chosen == before

    @initialize(kind=st.sampled_from([RUNS, SWEEPS]))
    def begin(self, kind):
        self.browser.kind.value = kind

    @rule()
    def look_at_the_other_list(self):
        self.browser.kind.value = SWEEPS if self.browser.state.kind == RUNS else RUNS
        self.is_fresh, self.gone = True, ()
        assert self.chosen == ()
        assert self.browser.state.order == self.browser.order.value

    @precondition(lambda self: is_shown(self.browser.more))
    @rule()
    def more(self):
        before, ids = self.chosen, self.ids()
        self.browser.more.click()
        assert self.chosen == before
        assert set(ids) <= set(self.ids())

    @rule()
    def refresh(self):
        kept = tuple(name for name in self.chosen if self.table.has(name))
        self.browser.refresh.click()
        self.is_fresh = True
        assert self.chosen == kept

    @rule(places=st.lists(st.integers(0, 9), max_size=3, unique=True))
    def choose(self, places):
        """Choose what a person sees, whatever the kernel lists by now."""
        places = sorted(place for place in places if place < len(self.page.labels))
        ids = self.page.choose(places)
        assert self.chosen == tuple(one for one in ids if one in self.ids() or self.table.has(one))

    @rule()
    def hear(self):
        self.page.hear()

    @precondition(lambda self: not self.browser.delete.disabled)
    @rule()
    def delete(self):
        there = [self.table.has(name) for name in self.chosen]
        first_lost = (*there, False).index(False)
        self.gone, others = self.chosen[:first_lost], self.chosen[first_lost + 1 :]
        kept = tuple(name for name in others if self.table.has(name))
        self.browser.delete.click()
        self.is_fresh = True
        assert self.table.deleted.issuperset(self.gone)
        assert self.chosen == kept
        assert self.browser.message.failed == (not all(there))

    @precondition(lambda self: is_shown(self.browser.undo))
    @rule()
    def undo(self):
        hidden = [name in self.table.deleted for name in self.gone]
        first_back = (*hidden, False).index(False)
        asked, self.gone = self.gone, self.gone[first_back:]
        self.browser.undo.click()
        self.is_fresh = True
        assert self.table.deleted.isdisjoint(asked[:first_back])
        assert self.chosen == tuple(name for name in asked if self.table.has(name))

    @rule(number=st.integers(0, 12), is_deletion=st.booleans())
    def others_save_or_delete(self, number, is_deletion):
        known = sorted(self.table.rows)
        if is_deletion:
            self.table.deleted ^= {known[number % len(known)]}
        elif self.table is self.lab.tables[SWEEPS]:
            self.lab.sweep_again(number)
        elif f"r{number:02d}" not in known:
            self.lab.save(number, number % 4)
        self.is_fresh = False

    @precondition(lambda self: self.browser.state.kind == SWEEPS and self.browser.state.is_more)
    @rule()
    def others_run_the_last_one_listed_again(self):
        """Give the sweep another place, from which the next page begins."""
        self.lab.sweep_again(int(self.ids()[-1][1:]))
        self.is_fresh = False
        self.more()

    @precondition(lambda self: not self.browser.reproduce.disabled)
    @rule()
    def reproduce(self):
        self.browser.reproduce.click()
        assert len(self.aside) == self.table.has(self.chosen[0])

    @precondition(lambda self: self.aside)
    @rule()
    def answer(self):
        work, done = self.aside.pop()
        found = work()
        before = self.browser.plot.outputs
        done(lambda: found)
        if self.chosen == (found.run_id,):
            assert self.browser.plot.outputs
        else:
            assert self.browser.plot.outputs == before
        assert self.browser.reproduced is found

    @invariant()
    def what_is_listed_begins_what_the_database_has(self):
        state, ids = self.browser.state, self.ids()
        assert len(set(ids)) == len(ids)
        assert is_shown(self.browser.more) == state.is_more
        if self.is_fresh:
            column, falling = RUN_ORDERS[state.kind][self.browser.order.value]
            every = self.table.ids(text=self.browser.filter.value, sort=column, descending=falling)
            assert ids == every[: len(ids)]
            assert len(ids) >= min(PAGE, len(every))
            assert state.is_more == (len(ids) < len(every))

    @invariant()
    def what_is_marked_is_chosen(self):
        listed = self.ids()
        assert self.browser.listing.value == tuple(one for one in self.chosen if one in listed)

    @invariant()
    def buttons_are_enabled_where_they_can_act(self):
        browser = self.browser
        one_run = browser.state.kind == RUNS and len(self.chosen) == 1
        assert browser.reproduce.disabled == (bool(self.aside) or not one_run)
        assert browser.delete.disabled == (not self.chosen)
        assert is_shown(browser.undo) == bool(self.gone)


def test_runs_are_listed_chosen_and_deleted_in_any_order(aside):
    run_machine(RunsMachine, aside)


# ---- the session picker ----------------------------------------------------------------------


class SessionsInMemory:
    """A lab that has sessions alone."""

    def __init__(self):
        self.table = Table("session_id", SessionNotFound)
        for number in range(8):
            self.record(number)

    def record(self, number):
        self.table.add(
            number, status=("completed", "failed")[number % 2], exchange=f"w{number % 3}",
            symbols=["A", "B"][: 1 + number % 2], records_collected=number % 4,
            started=START + timedelta(hours=number), notes="",
        )  # fmt: skip

    def plain(self, *, text, status, sort, descending, after=None, limit=None):
        words = f"{text} {status or ''}"
        return self.table.matching(
            text=words, sort=sort, descending=descending, after=after, limit=limit
        )

    def session_page(self, limit=200, **query):
        asked = {"text": "", "status": None, "sort": "started", "descending": True} | query
        rows = self.plain(**asked)
        total = len(self.plain(**asked | {"after": None}))
        following = rows[limit - 1]["session_id"] if 0 < limit < len(rows) else None
        schema = {
            "session_id": pl.String, "status": pl.String, "exchange": pl.String,
            "symbols": pl.List(pl.String), "records_collected": pl.Int64, "started": UTC_MICROS,
            "notes": pl.String,
        }  # fmt: skip
        return SessionPage(pl.DataFrame(rows[:limit], schema=schema), total, following)

    def session(self, name):
        self.table.check(name)
        row = self.table.rows[name]
        counts = dict.fromkeys(("prices_count", "orderbook_count", "gaps_count"), 0)
        unknown = dict.fromkeys(("source", "ended", "duration_seconds"))
        # Of one that is recorded no quality is read.
        known = {"id": name, "tags": (), "symbols": tuple(row["symbols"]), "status": "collecting"}
        known["instruments"] = lambda: instruments_frame({})
        return SimpleNamespace(**row | counts | unknown | known)

    def deletion_preview(self, name):
        self.table.check(name)
        row = {"state": "planned", "reason": "", "rows": 1, "bytes": 1, "shared_with": 0}
        return pl.DataFrame([row])

    def delete(self, name):
        self.table.delete(name)

    def undelete(self, name):
        self.table.undelete(name)
        return self.session(name)


class PickerMachine(RuleBasedStateMachine):
    """A person at the picker of sessions, while others record, delete and bring back."""

    def __init__(self, aside):
        super().__init__()
        aside.clear()
        self.lab = SessionsInMemory()
        self.picker = SessionPicker(self.lab)
        self.box = self.picker.deletion
        self.page = ListInPage(self.picker.listing, self.picker)
        self.is_fresh, self.last = True, ""

    @property
    def chosen(self):
        return self.picker.state.chosen

    def ids(self):
        return [name for _, name in self.picker.listing.options]

    def changed(self, control, value):
        """Set a control that narrows or sorts the list: what is chosen stays so."""
        before, symbols = self.picker.value, self.picker.symbols
        self.is_fresh |= value != control.value
        control.value = value
        assert self.picker.value is before
        assert self.picker.symbols == symbols

    @rule(text=WORDS)
    def type(self, text):
        self.changed(self.picker.filter, text)

    @rule(status=st.sampled_from([ALL, "completed", "failed"]))
    def narrow(self, status):
        self.changed(self.picker.status, status)

    @rule(order=st.sampled_from(sorted(ORDERS)))
    def sort(self, order):
        self.changed(self.picker.order, order)

    @precondition(lambda self: is_shown(self.picker.more))
    @rule()
    def more(self):
        before, ids = self.chosen, self.ids()
        self.picker.more.click()
        assert self.chosen == before
        assert self.ids()[: len(ids)] == ids

    @rule()
    def refresh(self):
        before = self.chosen
        self.picker.refresh.click()
        self.is_fresh = True
        assert self.chosen == (
            before if self.lab.table.has(before) else next(iter(self.ids()), None)
        )

    @precondition(lambda self: self.page.labels)
    @rule(place=st.integers(0, 7))
    def choose(self, place):
        """Choose what a person sees, whatever the kernel lists by now."""
        (one,) = self.page.choose(place % len(self.page.labels))
        assert self.chosen == (one if self.lab.table.has(one) else None)
        assert self.picker.message.failed == (self.chosen is None)

    @rule()
    def hear(self):
        self.page.hear()

    @precondition(lambda self: not self.box.delete.disabled)
    @rule(typed=st.sampled_from(["all of it", "half of it", "another"]))
    def delete(self, typed):
        one = self.chosen
        self.box.delete.click()
        is_asked = is_shown(self.box._asking)
        assert is_asked == self.lab.table.has(one)
        if not is_asked:
            return
        self.box.typed.value = {"all of it": one, "half of it": one[:1]}.get(typed, "s99")
        assert self.box.confirm.disabled == (typed != "all of it")
        self.box.confirm.click()
        assert self.lab.table.has(one) == (typed != "all of it")
        if typed == "all of it":
            self.is_fresh, self.last = True, one
            assert self.chosen == next(iter(self.ids()), None)
            assert not is_shown(self.box._asking)

    @precondition(lambda self: is_shown(self.box.undo))
    @rule()
    def undo(self):
        before = self.chosen
        can_come_back = self.last in self.lab.table.deleted
        self.box.undo.click()
        assert self.picker.message.failed == (not can_come_back)
        if can_come_back:
            assert self.chosen == self.last
            self.is_fresh, self.last = True, ""
        else:
            assert self.chosen == before

    @rule(number=st.integers(0, 12))
    def others_record_or_delete(self, number):
        name = f"s{number:02d}"
        if name in self.lab.table.rows:
            self.lab.table.deleted ^= {name}
        else:
            self.lab.record(number)
        self.is_fresh = False

    @invariant()
    def what_is_listed_begins_what_the_database_has(self):
        ids, state = self.ids(), self.picker.state
        assert is_shown(self.picker.more) == (state.page.next_after is not None)
        if self.is_fresh:
            query = {name: value for name, value in state.query.items() if name != "limit"}
            every = [row["session_id"] for row in self.lab.plain(**query)]
            assert ids == every[: len(ids)]
            assert len(ids) >= min(PAGE, len(every))
            assert is_shown(self.picker.more) == (len(ids) < len(every))

    @invariant()
    def what_runs_is_chosen_and_marked_or_said_to_be_hidden(self):
        picker = self.picker
        assert (picker.value and picker.value.id) == self.chosen
        is_listed = self.chosen in self.ids()
        assert picker.listing.value == (self.chosen if is_listed else None)
        assert (picker.hidden == "") == (self.chosen is None or is_listed)
        assert picker.symbols == (picker.value.symbols if picker.value else ())

    @invariant()
    def buttons_are_enabled_where_they_can_act(self):
        assert self.box.delete.disabled == (self.chosen is None)
        assert is_shown(self.box.undo) == bool(self.last)


def test_asking_again_about_a_session_that_is_gone_ends_the_question(aside):
    machine = PickerMachine(aside)
    machine.choose(place=1)
    machine.delete(typed="half of it")
    machine.lab.table.deleted.add(machine.chosen)
    machine.delete(typed="all of it")
    assert machine.picker.message.failed


def test_sessions_are_listed_chosen_and_deleted_in_any_order(aside):
    run_machine(PickerMachine, aside)


# ---- zooms -----------------------------------------------------------------------------------


class Shown:
    """An output that keeps what it is given."""

    def show(self, figure, _text=""):
        self.figure = figure


class ZoomMachine(RuleBasedStateMachine):
    """Figures, zooms into them, and answers that come when they like."""

    def __init__(self, aside):
        super().__init__()
        aside.clear()
        self.aside = aside
        self.output = Shown()
        self.sampler = ZoomSampler(self.output, Message())
        self.number = 0
        self.figure()

    def figure(self, *, can_zoom=True):
        self.number += 1
        self.can_zoom = can_zoom
        number = self.number

        def sample(start, _end):
            if start.timestamp() == 3:
                raise RunNotFound("it went meanwhile; press Refresh")
            return number, start.timestamp()

        self.sampler.show((number, None), "", sample if can_zoom else None)
        self.expected = (number, None)

    @rule(can_zoom=st.booleans())
    def show_another(self, can_zoom):
        self.figure(can_zoom=can_zoom)

    @rule(second=st.integers(0, 3))
    def zoom(self, second):
        low = second * 1_000.0
        event = {"event": "zoom", "low": low, "high": low + 1, "redraws": False}
        self.sampler.handle(event)
        if self.can_zoom:
            self.expected = (self.number, second) if second != 3 else None

    @rule()
    def zoom_out(self):
        self.sampler.handle({"event": "zoom", "low": None, "high": None, "redraws": False})
        self.expected = (self.number, None)

    @precondition(lambda self: self.aside)
    @rule()
    def answer(self):
        work, done = self.aside.pop()
        done(work)

    @invariant()
    def what_was_asked_last_is_shown_at_the_end(self):
        assert len(self.aside) <= 1
        number, _ = self.output.figure
        assert number == self.number
        if not self.aside and self.expected:
            assert self.output.figure == self.expected


def test_of_zooms_and_figures_the_last_one_counts_in_any_order(aside):
    run_machine(ZoomMachine, aside)
