"""The panels without a browser: what a person does arrives, and what is shown is the truth."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import ipywidgets as w
import polars as pl
import pytest
from markets import recorded_walk

import fxlab
from fxlab.backtester.report._summary import show_seconds, sparkline
from fxlab.backtester.strategy import strategy
from fxlab.charts._style import PLOTLY
from fxlab.errors import Cancelled, InvalidInput, QuestDBUnavailable, SessionNotFound
from fxlab.schema import SESSIONS as SESSIONS_TABLE
from fxlab.sessions import _catalog
from fxlab.sessions._deletion import DELETED
from fxlab.sessions.session import Session
from fxlab.widgets import (
    KeyGuard,
    LiveMonitor,
    ProgressBar,
    ReplayPanel,
    SessionPicker,
    SweepPanel,
    Workbench,
    workbench,
)
from fxlab.widgets._base import Message, run_aside
from fxlab.widgets._forms import WRONG, TextField
from fxlab.widgets._list_state import PAGE
from fxlab.widgets._session_picker import PRICES, READ_ROWS, SessionOverview

SESSIONS = {"a": ["BTC"], "b": ["ETH"], "c": ["BTC", "ETH"]}
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def group(lab, unique):
    """Store three sessions whose ids share a word, and return it; "c" is the newest."""
    word = unique("panel")
    for hour, (letter, symbols) in enumerate(SESSIONS.items()):
        walks = [recorded_walk(3_000, seed, symbol=name) for seed, name in enumerate(symbols)]
        later = pl.col("timestamp") + pl.duration(hours=hour)
        lab.import_frames(
            {"prices": pl.concat(walks).with_columns(later)},
            session_id=f"{word}-{letter}",
            exchange="nowhere",
            notes=HOSTILE,
            tags=("panel",),
        )
    return word


@pytest.fixture
def picker(lab, group):
    made = SessionPicker(lab, f"{group}-c")
    made.filter.set_state({"value": group})
    return made


def select(control, value):
    """Send what the browser sends when a person selects: the index, not the value."""
    control.set_state({"index": [option for _, option in control._options_full].index(value)})


def test_a_picker_starts_with_the_newest_session(lab, group):
    newest = lab.sessions(sort="started", limit=1)["session_id"][0]
    assert SessionPicker(lab).value.id == newest


def test_a_picker_starts_with_the_session_asked_for(lab, group):
    assert SessionPicker(lab, f"{group}-a").value.id == f"{group}-a"
    with pytest.raises(SessionNotFound, match="did you mean"):
        SessionPicker(lab, f"{group}-x")


def test_typing_narrows_the_list_and_says_how_many(picker, group):
    assert 'role="status" class="fxlab-soft">3 sessions match<' in picker.count.value
    picker.filter.set_state({"value": f"{group} eth"})
    assert [value for _, value in picker.listing.options] == [f"{group}-c", f"{group}-b"]


def test_a_status_narrows_the_list_beside_the_words(picker, db, group):
    assert picker.status.options == ("all", "collecting", "completed", "aborted", "failed")
    row = _catalog.find(db, f"{group}-a")
    _catalog.store(db, {**row, "status": "failed"})
    db.wait_visible(SESSIONS_TABLE)
    try:
        for status, letters in (("failed", "a"), ("completed", "cb"), ("all", "cba")):
            select(picker.status, status)
            assert [value for _, value in picker.listing.options] == [
                f"{group}-{letter}" for letter in letters
            ]
            assert picker.value.id == f"{group}-c"
        picker.filter.set_state({"value": f"{group} eth"})
        select(picker.status, "failed")
        assert "no session has all these words and the status" in picker.count.value
    finally:
        _catalog.put(db, row)
        db.wait_visible(SESSIONS_TABLE)


def test_typing_never_changes_the_choice(picker, group):
    changes = []
    picker.observe(changes.append, ["value", "symbols"])
    for text in (f"{group}-a", "no such words", group):
        picker.filter.set_state({"value": text})
        assert picker.value.id == f"{group}-c"
    assert changes == []
    assert picker.listing.value == f"{group}-c"


def test_a_hidden_choice_selects_nothing_in_the_list(picker, group):
    picker.filter.set_state({"value": f"{group}-a"})
    assert picker.listing.value is None


def test_selecting_a_session_fills_symbols_and_details(picker, group):
    seen = []
    picker.observe(lambda change: seen.append((change["new"].id, picker.symbols)), "value")
    select(picker.listing, f"{group}-b")
    assert seen == [(f"{group}-b", ("ETH",))]  # the symbols are there before the session is told
    assert picker.symbol_list.options == ("ETH",)
    assert f"{group}-b" in picker.details.value
    assert "3,000" in picker.details.value


def test_details_tell_duration_source_quality_and_price(picker, lab, group):
    session = lab.session(f"{group}-c")
    text = picker.details.value
    assert f">{session.source}<" in text
    assert f">{show_seconds(session.duration_seconds)}<" in text
    assert f">{session.quality().score} of 100<" in picker.overview.value
    prices = session.chart_data("BTC", max_points=PRICES)["price"]
    assert sparkline(prices.to_list()) in picker.overview.value
    assert ">BTC, first to last<" in picker.overview.value


def test_quality_that_cannot_be_read_leaves_the_choice(picker, group, monkeypatch):
    monkeypatch.setattr(Session, "quality", lambda _: raises(QuestDBUnavailable("it is <away>")))
    select(picker.listing, f"{group}-b")
    assert picker.value.id == f"{group}-b"
    assert picker.message.value == ""
    assert "quality and price: not known: it is &lt;away&gt;" in picker.overview.value
    monkeypatch.setattr(Session, "quality", lambda _: {}["score"])
    select(picker.listing, f"{group}-a")
    assert "not known: KeyError: &#x27;score&#x27;" in picker.overview.value


def test_large_and_running_sessions_are_not_read_when_they_are_chosen(lab, group, monkeypatch):
    monkeypatch.setattr(Session, "quality", lambda _: pytest.fail("it was read"))
    session, overview = lab.session(f"{group}-c"), SessionOverview()
    overview.show(dataclasses.replace(session, prices_count=READ_ROWS, orderbook_count=1))
    assert "it has 1,000,001 rows, more than 1,000,000; Run in" in overview.value
    overview.show(dataclasses.replace(session, status="collecting"))
    assert "not read while it is recorded" in overview.value
    overview.show(None)
    assert overview.value == ""


def test_a_stale_quality_is_dropped_and_the_choice_does_not_wait(picker, group, monkeypatch):
    """The first answer comes last: after two other choices, of which the last one is shown."""
    reached, may_end, asked = threading.Event(), threading.Event(), []
    quality = Session.quality

    def slow(session):
        asked.append(session.id)
        if session.id == f"{group}-a":
            reached.set()
            may_end.wait(120)
        return quality(session)

    monkeypatch.setattr(Session, "quality", slow)

    async def story():
        select(picker.listing, f"{group}-a")
        await asyncio.to_thread(reached.wait, 120)
        assert picker.value.id == f"{group}-a"
        assert "reading all ticks" in picker.overview.value
        select(picker.listing, f"{group}-c")
        select(picker.listing, f"{group}-b")
        assert "reading all ticks" in picker.overview.value
        may_end.set()
        while "of 100" not in picker.overview.value:  # noqa: ASYNC110 - a thread makes it so
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(story(), 120))
    assert asked == [f"{group}-a", f"{group}-b"]
    assert ">ETH, first to last<" in picker.overview.value


def test_hostile_notes_are_text(picker):
    assert "<img" not in picker.details.value
    assert "&lt;img" in picker.details.value


def test_symbols_can_be_chosen(picker):
    assert picker.symbols == ("BTC", "ETH")
    picker.symbol_list.set_state({"index": [1]})
    assert picker.symbols == ("ETH",)


def test_a_refresh_finds_new_sessions_and_keeps_the_choice(picker, lab, group, unique):
    fresh = unique("fresh")
    lab.import_frames({"prices": recorded_walk(10, symbol="BTC")}, session_id=fresh)
    assert fresh not in picker.listing.options
    picker.filter.set_state({"value": fresh})
    picker.refresh.click()
    assert [value for _, value in picker.listing.options] == [fresh]
    assert picker.value.id == f"{group}-c"


def test_a_long_list_comes_in_pages(lab, db, unique):
    word, rows = unique("long"), []
    for number in range(PAGE + 3):
        born = datetime(2002, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
        rows.append(
            {
                "session_id": f"{word}-{number}",
                "status": "completed",
                "created_at": born,
                "updated_at": born,
            }
        )
    db.write(SESSIONS_TABLE, pl.DataFrame(rows, schema=SESSIONS_TABLE.frame))
    db.wait_visible(SESSIONS_TABLE)
    picker = SessionPicker(lab)
    picker.filter.set_state({"value": word})
    assert len(picker.listing.options) == PAGE
    assert picker.more.layout.display is None
    picker.more.click()
    assert len(set(picker.listing.options)) == PAGE + 3
    assert picker.more.layout.display == "none"
    select(picker.order, "id")
    assert picker.listing.options[0][1] == f"{word}-0"


def test_a_choice_that_is_no_more_is_given_up_at_a_refresh(picker, lab, db, group):
    row = _catalog.find_any(db, f"{group}-c")
    _catalog.store(db, {**row, "status": "deleting"})
    db.wait_visible(SESSIONS_TABLE)
    try:
        picker.refresh.click()
        assert picker.value.id == f"{group}-b"
        assert not picker.message.failed
    finally:
        _catalog.store(db, row)
        db.wait_visible(SESSIONS_TABLE)


@pytest.mark.parametrize("error", [SessionNotFound("it was deleted"), QuestDBUnavailable("away")])
def test_a_session_that_cannot_be_read_leaves_nothing_chosen(bench, group, monkeypatch, error):
    picker = bench.picker
    picker.filter.set_state({"value": group})
    with monkeypatch.context() as patch:
        patch.setattr(type(picker._lab), "session", lambda *_: raises(error))
        select(picker.listing, f"{group}-b")
    assert str(error) in picker.message.value
    assert (picker.value, picker.symbols, picker.symbol_list.options) == (None, (), ())
    assert (picker.details.value, picker.listing.value, picker.state.chosen) == ("", None, None)
    assert picker.deletion.delete.disabled
    bench.run.click()
    assert "no session is chosen; choose one" in bench.note.value
    assert bench.result is None
    select(picker.listing, f"{group}-b")  # the same again, now that it can be read
    assert (picker.value.id, picker.symbols) == (f"{group}-b", ("ETH",))
    assert picker.message.value == bench.note.value == ""


def raises(error):
    """Raise it."""
    raise error


def test_a_choice_by_id_that_cannot_be_read_changes_nothing(picker, group):
    with pytest.raises(SessionNotFound):
        picker.choose("nothing-like-it")
    assert (picker.value.id, picker.listing.value) == (f"{group}-c", f"{group}-c")


def test_a_refresh_that_fails_keeps_what_is_listed_and_runs(picker, group, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(type(picker._lab), "session", lambda *_: raises(QuestDBUnavailable("away")))
        picker.refresh.click()
    assert picker.message.failed
    assert (picker.value.id, picker.listing.value) == (f"{group}-c", f"{group}-c")


def test_a_deleted_session_runs_no_more_though_the_list_cannot_be_read(picker, monkeypatch, lab):
    name = picker.value.id
    picker.deletion.delete.click()
    picker.deletion.typed.set_state({"value": name})
    with monkeypatch.context() as patch:
        away = QuestDBUnavailable("away")
        patch.setattr(type(lab), "session_page", lambda *_, **__: raises(away))
        picker.deletion.confirm.click()
    assert picker.message.failed
    assert (picker.value, picker.listing.value) == (None, None)
    picker.deletion.undo.click()
    assert picker.value.id == name


def test_choosing_from_a_filtered_list_says_no_more_that_the_old_choice_is_hidden(picker, group):
    picker.filter.set_state({"value": f"{group}-a"})
    assert f"{group}-c runs" in picker.hidden
    select(picker.listing, f"{group}-a")
    assert picker.hidden == ""


def test_choosing_by_id_checks_the_id(picker, group):
    picker.choose(f"{group}-a")
    assert (picker.value.id, picker.listing.value) == (f"{group}-a", f"{group}-a")
    with pytest.raises(SessionNotFound):
        picker.choose("nothing-like-it")


def test_a_picker_reads_as_text(picker, group):
    assert repr(picker).startswith(f"<SessionPicker {group}-c: BTC, ETH; 3 sessions match")


def test_every_list_in_a_panel_is_beside_a_key_guard(lab, group):
    bench = Workbench(lab)
    for panel in (bench, bench.picker, bench.strategy):
        assert isinstance(panel.children[-1], KeyGuard)


def test_every_control_has_a_label(lab, group):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    silent = {"HTML", "Label", "Message", "SessionOverview", "HBox", "VBox", "Output"}
    for widget in walk(Workbench(lab)):
        if hasattr(widget, "description") and type(widget).__name__ not in silent:
            assert widget.description, widget


def of_kind(widget, kind):
    """Yield the parts of a panel that are of a kind."""
    if isinstance(widget, kind):
        yield widget
    for child in getattr(widget, "children", ()):
        yield from of_kind(child, kind)


def test_no_field_of_any_panel_changes_what_is_typed_in_silence(lab, group):
    """A browser's number fields and editable readouts clamp and round; none is left."""
    silent = (w.widget_int._BoundedInt, w.widget_float._BoundedFloat, w.IntText, w.FloatText)
    shown_only = (w.FloatProgress, w.FloatSlider)
    for panel in (Workbench(lab), SweepPanel(lab), ReplayPanel(lab), LiveMonitor(lab)):
        for control in of_kind(panel, silent):
            assert isinstance(control, shown_only), control
            assert not getattr(control, "readout", False)
        for field in of_kind(panel, TextField):
            field.set_state({"value": field.value})
            assert WRONG not in field._dom_classes, field.description


def test_run_says_beside_the_button_why_not_and_what_is_hidden(bench, group):
    bench.picker.filter.set_state({"value": group})  # the server may have many newer sessions
    assert bench.note.value == ""
    bench.execution.taker_bps.set_state({"value": "1e9"})
    bench.run.click()
    assert bench.note.failed
    assert "taker_bps=1000000000.0 is not a number from -100 to 1000" in bench.note.value
    assert bench.result is None
    bench.execution.taker_bps.set_state({"value": "5"})
    assert bench.note.value == ""
    bench.picker.filter.set_state({"value": f"{group}-b"})
    words = f"{group}-a runs; the filter &#x27;{group}-b&#x27; hides it in the list"
    assert words in bench.note.value
    bench.run.click()
    assert bench.result is not None
    assert words in bench.note.value
    bench.picker.filter.set_state({"value": group})
    assert bench.note.value == ""


@pytest.mark.parametrize("kind", [SweepPanel, ReplayPanel])
def test_other_panels_say_it_too(kind, lab, group):
    panel = kind(lab, session_id=f"{group}-a")
    note, run = (
        (panel.estimate, panel.run)
        if kind is SweepPanel
        else (panel.transport.note, panel.transport.play)
    )
    panel.picker.filter.set_state({"value": f"{group}-b"})
    assert f"{group}-a runs; the filter" in note.value
    panel.execution.capital_text.set_state({"value": "-5"})
    run.click()
    assert note.failed
    assert "capital=-5.0 must be above zero" in note.value
    assert not run.disabled
    assert panel.message.value == ""


@pytest.fixture
def bench(lab, group):
    return workbench(lab, session_id=f"{group}-a")


def test_run_gives_the_result_the_library_gives(bench, group, lab):
    bench.strategy.set_parameters({"fast": 5, "slow": 20})
    bench.run.click()
    same = fxlab.backtest(
        lab.session(f"{group}-a"),
        "sma_cross",
        {"fast": 5, "slow": 20},
        execution=fxlab.Execution(latency="0ms"),
    )
    assert bench.result.equity.equals(same.equity)
    assert bench.result.fingerprint == same.fingerprint


def test_run_shows_picture_figures_and_time(bench):
    bench.run.click()
    shown, _words = bench.plot.outputs
    names = [trace["name"] for trace in shown["data"][PLOTLY]["data"]]
    assert {"equity", "drawdown"} <= set(names)
    assert "final equity" in bench.figures.value
    assert bench.progress.text.value.startswith("3,000 ticks in ")
    assert bench.progress.bar.bar_style == "success"
    assert not bench.run.disabled
    assert bench.message.value == ""


def test_only_the_chosen_symbols_run(lab, group):
    bench = workbench(lab, session_id=f"{group}-c")
    bench.picker.symbol_list.set_state({"index": [1]})
    bench.run.click()
    assert bench.result.symbols == ("ETH",)


def test_nothing_chosen_is_said_in_the_panel(bench):
    bench.picker.symbol_list.set_state({"index": []})
    bench.run.click()
    assert "no symbol is chosen" in bench.note.value
    assert bench.result is None
    assert not bench.run.disabled


def test_a_failed_run_says_why_and_keeps_the_old_picture(bench):
    bench.run.click()
    before = bench.plot.outputs, bench.result
    bench.strategy.controls["fast"].value = 900
    bench.run.click()
    assert 'role="alert"' in bench.message.value
    assert "fast=900 must be below slow=200" in bench.message.value
    assert (bench.plot.outputs, bench.result) == before
    assert bench.progress.bar.bar_style == "danger"
    assert not bench.run.disabled


def test_a_workbench_reads_as_text(bench):
    assert repr(bench).splitlines()[0] == "<Workbench>"
    assert "sma_cross(fast=50" in repr(bench)


def test_cancel_does_not_wait_for_a_strategy_that_hears_nothing(bench, monkeypatch):
    """The strategy's call goes on until this test lets it end; the panel is free before."""
    reached, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def deaf(ticks: pl.DataFrame) -> pl.DataFrame:
        reached.set()
        may_end.wait(120)
        ended.set()
        return ticks.select(target=pl.lit(1.0))

    monkeypatch.setitem(strategy._REGISTRY, "deaf", strategy.get(deaf))
    bench.strategy.choice.options = strategy.names()
    bench.strategy.choice.value = "deaf"

    async def story():
        bench.run.click()
        await asyncio.to_thread(reached.wait, 120)
        bench.progress.cancel.click()
        await until_over(bench)
        assert not ended.is_set()
        assert "cancelled: stopped before the end" in bench.message.value
        assert bench.progress.text.value == "cancelled"
        bench.strategy.choice.value = "sma_cross"
        bench.run.click()
        await until_over(bench)
        may_end.set()
        await asyncio.to_thread(ended.wait, 120)

    asyncio.run(asyncio.wait_for(story(), 120))
    assert bench.result.strategy == "sma_cross"
    assert bench.progress.text.value.startswith("3,000 ticks in ")


async def until_over(bench):
    """Wait until the run has ended and Run can be pressed again."""
    over = asyncio.Event()
    bench.run.observe(lambda _: over.set(), "disabled")
    if bench.run.disabled:
        await over.wait()


def test_cancel_is_heard_while_the_run_goes_on(bench, monkeypatch):
    """The strategy waits in its thread until the click on Cancel was handled."""
    reached, may_go_on = threading.Event(), threading.Event()

    def patient() -> fxlab.Signals:
        if not asyncio_is_here():
            reached.set()
            may_go_on.wait(120)
        return fxlab.Signals(target=pl.lit(1.0), lookback=0)

    def asyncio_is_here():
        return threading.current_thread() is threading.main_thread()

    monkeypatch.setitem(strategy._REGISTRY, "patient", strategy.get(patient))
    bench.strategy.choice.options = strategy.names()
    bench.strategy.choice.value = "patient"

    async def story():
        bench.run.click()
        await asyncio.to_thread(reached.wait, 120)
        assert bench.run.disabled
        bench.progress.cancel.click()
        may_go_on.set()
        await until_over(bench)

    asyncio.run(asyncio.wait_for(story(), 120))
    assert "stopped before the end" in bench.message.value
    assert bench.result is None


def test_a_run_inside_an_event_loop_ends_with_its_result(bench):
    async def story():
        bench.run.click()
        assert bench.run.disabled
        await until_over(bench)

    asyncio.run(asyncio.wait_for(story(), 120))
    assert bench.result.ticks == 3_000


def test_progress_shows_share_and_text_and_stops_when_told():
    progress = ProgressBar()
    progress.start()
    progress(0.25, "a quarter")
    assert (progress.bar.value, progress.text.value) == (0.25, "a quarter")
    progress(7.0, "done")
    assert (progress.bar.value, progress.text.value) == (1.0, "done")
    progress.cancel.click()
    with pytest.raises(Cancelled):
        progress(0.5, "more")
    progress.start()
    progress(0.5, "again")
    assert progress.bar.value == 0.5


def test_progress_does_not_flood_the_browser():
    progress = ProgressBar()
    progress.start()
    seen = []
    progress.bar.observe(seen.append, "value")
    for step in range(100_000):
        progress((step + 1) / 200_000, "working")
    assert 0 < len(seen) < 10_000


def test_work_aside_hands_on_its_error():
    def fail():
        raise InvalidInput("no")

    async def story():
        over = asyncio.get_running_loop().create_future()
        run_aside(fail, over.set_result)
        return await over

    plain = []
    run_aside(fail, plain.append)
    in_loop = asyncio.run(asyncio.wait_for(story(), 120))
    for outcome in (*plain, in_loop):
        with pytest.raises(InvalidInput, match="no"):
            outcome()


def test_a_message_shows_errors_where_one_looks():
    message = Message()
    with message.guard():
        raise InvalidInput("<b>; do this instead")
    assert message.value.count("&lt;b&gt;; do this instead") == 1
    with message.guard():
        pass
    assert message.value == ""


def test_a_surprise_is_shown_and_goes_on_to_the_log():
    message = Message()

    def surprise():
        with message.guard():
            raise KeyError("x")

    with pytest.raises(KeyError):
        surprise()
    assert "KeyError" in message.value
    assert "<details><summary>Traceback</summary><pre>" in message.value
    assert "raise KeyError" in message.value


def test_a_strategy_that_raises_shows_where_folded_and_escaped(bench, monkeypatch):
    def broken(ticks: pl.DataFrame) -> pl.DataFrame:
        raise ArithmeticError("no <b>luck</b>")

    monkeypatch.setitem(strategy._REGISTRY, "broken", strategy.get(broken))
    bench.strategy.choice.options = strategy.names()
    bench.strategy.choice.value = "broken"
    bench.run.click()
    said, _, folded = bench.message.value.partition("<details>")
    assert "&#x27;broken&#x27; raised ArithmeticError: no &lt;b&gt;luck&lt;/b&gt;" in said
    assert "the traceback below shows where" in said
    assert "in broken" in folded
    assert "raise ArithmeticError(&quot;no &lt;b&gt;luck&lt;/b&gt;&quot;)" in folded
    assert "<b>" not in bench.message.value


def test_an_error_of_fxlab_alone_has_no_traceback():
    message = Message()
    message.fail(InvalidInput("no"))
    assert "<details>" not in message.value


def test_panels_load_when_asked_for():
    code = (
        "import sys, fxlab.widgets\n"
        "assert not {'ipywidgets', 'anywidget', 'plotly'} & set(sys.modules)\n"
        "fxlab.widgets.PickerState\n"
        "assert not {'ipywidgets', 'anywidget', 'plotly'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_the_package_loads():
    for name in fxlab.widgets.__all__:
        assert getattr(fxlab.widgets, name)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = fxlab.widgets.nothing


def test_a_session_is_deleted_by_typing_its_id_and_comes_back(picker, lab, group):
    box, name = picker.deletion, f"{group}-c"
    assert box._asking.layout.display == box.undo.layout.display == "none"
    box.delete.click()
    assert box._asking.layout.display is None
    assert "6,000" not in picker.message.value
    assert "partitions" in box.preview.value
    for typed in ("", f"{group}-b", name.upper()):
        box.typed.set_state({"value": typed})
        assert box.confirm.disabled
        box.confirm.click()
    assert name in lab.sessions(text=group)["session_id"]
    box.typed.set_state({"value": name})
    assert not box.confirm.disabled
    box.confirm.click()
    assert name not in [value for _, value in picker.listing.options]
    assert picker.value.id == f"{group}-b"
    assert "Undo brings it back" in picker.message.value
    assert box._asking.layout.display == "none"
    assert box.undo.layout.display is None
    box.undo.click()
    assert picker.value.id == name
    assert name in [value for _, value in picker.listing.options]
    assert box.undo.layout.display == "none"


def test_any_deleted_session_comes_back_from_a_list(picker, lab, group):
    """Also one that was deleted before the panel was there, and not the last one."""
    lab.delete(f"{group}-a")
    lab.delete(f"{group}-b")
    box = picker.deletion
    assert box._bin.layout.display == "none"
    box.show_deleted.click()
    assert box._bin.layout.display is None
    ids = [value for _, value in box.deleted.options]
    assert ids[:2] == [f"{group}-b", f"{group}-a"]
    assert f"{lab.deleted()['rows'][0]:,}  ETH" in box.deleted.options[0][0]
    assert "can come back, the last come first" in box.note.value
    select(box.deleted, f"{group}-a")
    box.restore.click()
    assert picker.value.id == picker.listing.value == f"{group}-a"
    assert f"{group}-a is back" in picker.message.value
    assert [value for _, value in box.deleted.options] == [one for one in ids if one != ids[1]]
    select(box.deleted, f"{group}-b")
    box.restore.click()
    assert lab.session(f"{group}-b").prices_count == 3_000
    box.show_deleted.click()
    assert box._bin.layout.display == "none"


def test_a_session_that_cannot_come_back_is_said_and_its_list_stays(picker, lab, group):
    lab.delete(f"{group}-a")
    box = picker.deletion
    box.show_deleted.click()
    select(box.deleted, f"{group}-a")
    lab.undelete(f"{group}-a")  # elsewhere
    box.restore.click()
    assert f"no deleted session is named &#x27;{group}-a&#x27;" in picker.message.value
    assert picker.value.id == f"{group}-c"
    assert box._bin.layout.display is None


def test_a_list_of_deleted_sessions_says_what_it_does_not_list(picker, lab, monkeypatch):
    rows = [
        {
            "session_id": f"gone-{n}",
            "status": "deleting",
            "symbols": [],
            "can_be_undeleted": n < 202,
        }
        for n in range(205)
    ]
    frames = [pl.DataFrame(rows, schema=DELETED), pl.DataFrame(schema=DELETED)]
    monkeypatch.setattr(type(lab), "deleted", lambda _: frames.pop(0))
    box = picker.deletion
    box.show_deleted.click()
    assert len(box.deleted.options) == PAGE
    assert "202 can come back" in box.note.value
    assert "200 are listed, lab.deleted() has all" in box.note.value
    assert "the ticks of 3 more are purged" in box.note.value
    box.show_deleted.click()
    box.show_deleted.click()
    assert ">0 can come back<" in box.note.value
    assert box.restore.disabled


def test_a_question_about_another_session_is_over(picker, group):
    picker.deletion.delete.click()
    select(picker.listing, f"{group}-a")
    assert picker.deletion._asking.layout.display == "none"
    picker.deletion.delete.click()
    picker.deletion.typed.set_state({"value": f"{group}-c"})
    assert picker.deletion.confirm.disabled
    picker.deletion.cancel.click()
    assert picker.deletion._asking.layout.display == "none"


def test_what_cannot_be_deleted_is_said_in_the_panel(picker, lab, db, group):
    row = _catalog.find(db, f"{group}-c")
    _catalog.store(db, {**row, "status": "collecting", "source": "live"})
    db.wait_visible(SESSIONS_TABLE)
    try:
        picker.deletion.delete.click()
        picker.deletion.typed.set_state({"value": f"{group}-c"})
        picker.deletion.confirm.click()
        assert picker.message.failed
        assert "is being recorded; end the recording" in picker.message.value
    finally:
        _catalog.put(db, row)
        db.wait_visible(SESSIONS_TABLE)
