"""The runs browser without a browser: list, filter, open, compare, reproduce, delete, undo."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import recorded_walk

import fxlab
from fxlab._questdb import sql
from fxlab.charts._style import PLOTLY
from fxlab.errors import InvalidParameter, QuestDBUnavailable, RunNotFound, SweepNotFound
from fxlab.schema import RUNS as RUN_TABLE
from fxlab.sweeper._store import SavedSweep
from fxlab.widgets import RunsBrowser
from fxlab.widgets._list_state import PAGE, RUN_ORDERS, RUNS, SWEEPS, RunsState

FASTS = (3, 5, 9)
START = datetime(2024, 1, 1, tzinfo=UTC)


def frame(rows: list[tuple[str, str, float | None]]) -> pl.DataFrame:
    """Return runs as the lab lists them: (id, symbol, return)."""
    return pl.DataFrame(
        [
            {
                "run_id": run_id,
                "data_session_id": "recorded",
                "strategy": "sma_cross",
                "symbols": [symbol],
                "total_return": value,
                "sharpe": value,
                "max_drawdown": value,
                "fills_count": number,
                "timestamp": START + timedelta(minutes=number),
                "parameters": '{"fast": 3}',
            }
            for number, (run_id, symbol, value) in enumerate(rows)
        ],
        schema={
            "run_id": pl.String, "data_session_id": pl.String, "strategy": pl.String,
            "symbols": pl.List(pl.String), "total_return": pl.Float64, "sharpe": pl.Float64,
            "max_drawdown": pl.Float64, "fills_count": pl.Int64,
            "timestamp": pl.Datetime("us", "UTC"), "parameters": pl.String,
        },
    )  # fmt: skip


ROWS = frame([("run-a", "BTC", 0.01), ("run-b", "ETH", None), ("run-c", "BTC", -0.02)])
MANY = frame([(f"run-{n:04d}", "BTC", n % 7 / 100) for n in range(PAGE + 1)]).reverse()
MANY_ORDERS = RUN_ORDERS[RUNS]


# ---- the state: plain values ---------------------------------------------------------------


def test_a_line_shows_fractions_in_percent():
    state = RunsState(RUNS, ROWS.reverse())
    assert state.heads.split() == [
        "Run", "Strategy", "Session", "Ran", "(UTC)", "Return", "Sharpe", "Drawdown", "Fills",
    ]  # fmt: skip
    assert "-2.00%" in state.options[0][0]
    assert "\u2013" in state.options[1][0]
    assert len({len(label) for label, _ in state.options} | {len(state.heads)}) == 1


@given(
    st.integers(0, PAGE + 1), st.sampled_from(["", " ", "btc"]), st.sampled_from(list(MANY_ORDERS))
)
def test_a_page_is_listed_and_the_count_tells_whether_there_are_more(height, text, order):
    state = RunsState(RUNS, ROWS.clear(), text, order).with_page(MANY.head(height))
    ids = MANY["run_id"].head(min(height, PAGE)).to_list()
    assert [run_id for _, run_id in state.options] == ids
    assert state.is_more == ("more than 200" in state.count) == (height > PAGE)
    assert ("match" in state.count) == (text == "btc" and height > 0)
    if 0 < height <= PAGE:
        assert state.count.startswith(f"{height:,} run{'s' * (height > 1)}")
    if height:
        following = state.with_more(MANY.tail(1))
        assert following.rows["run_id"].to_list() == [*ids, MANY["run_id"][-1]]
        assert not following.is_more
        assert state.next_query == {**state.query, "after": ids[-1]}


def test_a_sweep_that_was_run_again_is_listed_once_in_its_new_place():
    rows = ROWS.select(pl.col("run_id").alias("sweep_id"), "strategy")
    state = RunsState(SWEEPS, rows.clear()).with_page(rows.head(2))
    assert state.with_more(rows.reverse().head(2)).rows["sweep_id"].to_list() == [
        "run-a", "run-c", "run-b",
    ]  # fmt: skip


def test_the_count_says_what_is_hidden_and_what_is_cut():
    assert RunsState(RUNS, ROWS).count == "3 runs"
    state = RunsState(RUNS, ROWS[1:2], text="eth", chosen=("run-a", "run-b"))
    assert state.count == "1 run matches; 1 chosen, hidden by the filter"
    assert state.listed == ("run-b",)
    assert RunsState(RUNS, ROWS.clear(), text="x y").count == "no run has all these words"
    assert "no saved runs yet" in RunsState(RUNS, ROWS.clear()).count
    more = "the first 200 are listed, type to narrow"
    empty = RunsState(RUNS, ROWS.clear())
    assert empty.with_page(MANY).count == f"more than 200 runs; {more}"
    late = replace(empty, chosen=("run-0000", "run-0001")).with_page(MANY)  # one is not listed
    assert late.count.endswith("to narrow; 1 chosen, not listed")
    assert replace(empty, text="b").with_page(MANY).count == f"more than 200 runs match; {more}"


# ---- the widget ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session(lab, unique):
    name = unique("browsed")
    lab.import_frames({"prices": recorded_walk(3_000, 1, symbol="BTC")}, session_id=name)
    return lab.session(name)


@pytest.fixture(scope="module")
def saved(lab, session):
    return [
        fxlab.backtest(session, "sma_cross", {"fast": fast, "slow": 20}).save(lab) for fast in FASTS
    ]


@pytest.fixture(scope="module")
def swept(lab, session):
    grid = {"fast": [3, 5, 9], "slow": [20, 30]}
    return fxlab.sweep(session, "sma_cross", grid, lab=lab).sweep_ids[0]


@pytest.fixture
def browser(lab, session, saved, swept):
    made = RunsBrowser(lab)
    made.filter.value = session.id
    return made


def choose(browser, *ids):
    """Send what the browser sends when a person selects rows."""
    every = [option for _, option in browser.listing._options_full]
    browser.listing.set_state({"index": [every.index(one) for one in ids]})


def listed(browser):
    return [option for _, option in browser.listing.options]


def test_the_runs_of_a_session_are_found_by_its_words(browser, saved):
    assert sorted(listed(browser)) == sorted(saved)
    assert "3 runs match<" in browser.count.value
    browser.filter.value += " nothing-has-this"
    assert listed(browser) == []


def test_one_run_is_opened_and_several_are_compared(browser, saved):
    choose(browser, saved[0])
    assert saved[0] in browser.details.value
    assert "total return" in browser.details.value
    assert not browser.reproduce.disabled
    choose(browser, saved[0], saved[2])
    assert browser.reproduce.disabled
    assert ">fast<" in browser.details.value
    assert f">{saved[2]}</th>" in browser.details.value  # as it is typed


def test_a_filter_keeps_what_is_chosen(browser, saved):
    choose(browser, saved[0])
    browser.filter.value = "nothing-has-this"
    assert browser.state.chosen == (saved[0],)
    assert "1 chosen, hidden by the filter" in browser.count.value


def test_a_refresh_keeps_what_a_filter_hides_and_drops_what_is_no_more(lab, browser, saved):
    choose(browser, *saved[:2])
    browser.filter.value = "nothing-has-this"
    lab.delete_run(saved[1])
    browser.refresh.click()
    assert browser.state.chosen == (saved[0],)
    assert saved[0] in browser.details.value
    lab.undelete_run(saved[1])


def test_the_database_sorts_all_runs_and_more_brings_the_next(lab, browser, saved, monkeypatch):
    for module in ("_runs_browser", "_list_state"):
        monkeypatch.setattr(f"fxlab.widgets.{module}.PAGE", 1)
    returns = {run_id: lab.run(run_id).metrics["total_return"] for run_id in saved}
    browser.order.value = "highest return first"
    best = sorted(saved, key=returns.get, reverse=True)
    assert listed(browser) == best[:1]
    assert "more than 1 runs match; the first 1 are listed" in browser.count.value
    assert browser.more.layout.display is None
    browser.more.click()
    assert listed(browser) == best[:2]
    choose(browser, best[1])
    browser.more.click()
    assert listed(browser) == best
    assert browser.state.chosen == (best[1],)
    assert browser.more.layout.display == "none"
    browser.filter.value = saved[0]
    assert listed(browser) == [saved[0]]
    assert "1 run matches; 1 chosen, hidden" in browser.count.value or best[1] == saved[0]


@pytest.mark.parametrize("order", [*RUN_ORDERS[RUNS], "most fills first"])
def test_pages_are_the_whole_list_cut(lab, session, saved, order):
    column, falling = {**RUN_ORDERS[RUNS], "most fills first": ("fills_count", True)}[order]
    query = {"text": session.id, "sort": column, "descending": falling}
    whole = lab.runs(**query)
    assert sorted(whole["run_id"]) == sorted(saved)
    known = whole[column].drop_nulls()
    assert known.equals(known.sort(descending=falling))
    pages, after = [], None
    while (page := lab.runs(1, after=after, **query)).height:
        pages.append(page)
        after = page["run_id"][0]
    assert pl.concat(pages).equals(whole)


@pytest.fixture(scope="module")
def rated(lab, saved, unique):
    """Store copies of a run with Sharpe ratios of their own; two of them are as good as equal."""
    word = unique("rated")
    ratios = [0.5, None, 2.0, -1.0, 2.0 + 1e-12, None]
    (row,) = lab._db.catalogue(sql.runs(run_id=saved[0])).to_dicts()
    for number, sharpe in enumerate(ratios):
        metrics = json.loads(row["metrics"]) | {"sharpe": sharpe}
        copy = row | {
            "run_id": f"{word}_{number}", "strategy": word, "metrics": json.dumps(metrics),
            "fingerprint": f"{word}{number}", "data_session_id": word,
        }  # fmt: skip
        lab._db.write(RUN_TABLE, pl.DataFrame([copy], schema=RUN_TABLE.frame))
    lab._db.wait_visible(RUN_TABLE)
    return word


@pytest.mark.parametrize(("falling", "places"), [(True, "240315"), (False, "302415")])
def test_runs_without_a_value_stand_last_and_no_page_leaves_one_out(lab, rated, falling, places):
    expected = [f"{rated}_{place}" for place in places]
    query = {"text": rated, "sort": "sharpe", "descending": falling}
    assert lab.runs(**query)["run_id"].to_list() == expected
    for size in (1, 2, 4):
        found, after = [], None
        while (page := lab.runs(size, after=after, **query)).height:
            found += page["run_id"].to_list()
            after = found[-1]
        assert found == expected


def test_a_page_after_a_run_that_is_not_there_is_refused(lab, saved):
    with pytest.raises(RunNotFound, match="no-such-run"):
        lab.runs(after="no-such-run")
    with pytest.raises(SweepNotFound, match="no-such-sweep"):
        lab.sweeps(after="no-such-sweep")
    for listing in (lab.runs, lab.sweeps):
        with pytest.raises(InvalidParameter, match="shape"):
            listing(sort="shape")


def test_a_choice_in_a_list_that_is_shorter_by_now_chooses_nothing(browser, saved, monkeypatch):
    browser.filter.value = saved[0]
    told = []
    monkeypatch.setattr(browser.listing, "_send", lambda message, **_: told.append(message))
    browser.listing.set_state({"index": [2]})
    assert (browser.listing.index, browser.state.chosen) == ((), ())
    assert browser.reproduce.disabled
    assert list(told[-1]["state"]["index"]) == []


def test_what_is_chosen_while_the_list_is_replaced_is_heard(browser, saved):
    choose(browser, saved[0])
    interfered = []

    def interfere(change):
        """Choose another one as soon as the panel has marked the chosen one again."""
        if browser._showing and change["new"] and not interfered:
            interfered.append(change["new"])
            choose(browser, saved[1])

    browser.listing.observe(interfere, "value")
    browser.order.value = "oldest first"
    assert interfered == [(saved[0],)]
    assert browser.listing.value == browser.state.chosen == (saved[1],)
    assert saved[1] in browser.details.value
    assert not browser.reproduce.disabled


def test_a_list_that_cannot_be_read_leaves_what_is_shown(lab, browser, saved, monkeypatch):
    def away(*_, **__):
        raise QuestDBUnavailable("it is away")

    before = listed(browser)
    choose(browser, saved[0])
    for name in ("runs", "sweeps"):
        monkeypatch.setattr(type(lab), name, away)
    browser.kind.value = SWEEPS
    assert "it is away" in browser.message.value
    assert (browser.kind.value, listed(browser)) == (RUNS, before)
    assert browser.state.chosen == (saved[0],)
    browser.filter.value += " x"
    assert "it is away" in browser.message.value
    assert listed(browser) == before


def test_a_run_is_reproduced_bit_by_bit(browser, saved):
    choose(browser, saved[1])
    browser.reproduce.click()
    assert browser.reproduced.run_id == saved[1]
    assert not browser.reproduced.difference
    assert "bit by bit" in browser.message.value
    assert PLOTLY in browser.plot.outputs[0]["data"]
    assert not browser.reproduce.disabled


def test_a_run_is_deleted_and_brought_back(lab, browser, saved):
    choose(browser, saved[0])
    browser.delete.click()
    assert sorted(listed(browser)) == sorted(saved[1:])
    assert saved[0] in lab.runs(1_000, deleted=True)["run_id"]
    with pytest.raises(RunNotFound):
        lab.run(saved[0])
    with pytest.raises(RunNotFound):
        lab.delete_run(saved[0])
    browser.undo.click()
    assert sorted(listed(browser)) == sorted(saved)
    assert browser.state.chosen == (saved[0],)
    assert not lab.reproduce(saved[0]).difference
    with pytest.raises(RunNotFound):
        lab.undelete_run(saved[0])


def test_a_deleted_run_that_is_saved_again_is_back(lab, session, saved):
    lab.delete_run(saved[2])
    again = fxlab.backtest(session, "sma_cross", {"fast": FASTS[2], "slow": 20}).save(lab)
    assert again == saved[2]
    assert lab.run(saved[2]).fills_count == lab.run_fills(saved[2]).height


def test_runs_are_listed_by_words(lab, session, saved):
    assert set(lab.runs(text=session.id.upper())["run_id"]) == set(saved)
    assert lab.runs(text=f'{session.id} "fast": 5,')["run_id"].to_list() == [saved[1]]
    assert lab.runs(text=f"{session.id} '; drop table x").is_empty()
    day = lab.run(saved[0])["timestamp"].strftime("%Y-%m-%d")
    assert saved[0] in lab.runs(text=f"{session.id} {day}")["run_id"]


def test_sweeps_are_listed_by_words(lab, session, swept):
    found = lab.sweeps(text=f'{session.id.upper()} SMA "slow"')
    assert found["sweep_id"].to_list() == [swept]
    day = found["finished"][0].strftime("%Y-%m-%d")
    assert lab.sweeps(1, text=f"{swept} {day}")["sweep_id"].to_list() == [swept]
    assert lab.sweeps(text=f"{swept} nothing-has-this").is_empty()


def test_a_sweep_is_opened_deleted_and_brought_back(lab, browser, session, swept):
    browser.kind.value = SWEEPS
    assert tuple(browser.order.options) == tuple(RUN_ORDERS[SWEEPS])
    assert listed(browser) == [swept]
    choose(browser, swept)
    assert "The best of 6 points" in browser.details.value
    assert PLOTLY in browser.plot.outputs[0]["data"]
    before = lab.sweep(swept)
    browser.delete.click()
    assert listed(browser) == []
    assert browser.plot.outputs == ()
    assert swept in lab.sweeps(1_000, deleted=True)["sweep_id"]
    with pytest.raises(SweepNotFound):
        lab.sweep(swept)
    browser.undo.click()
    assert listed(browser) == [swept]
    assert lab.sweep(swept) == before
    assert lab.sweep(swept).points().height == 6


def test_what_is_opened_says_that_its_session_is_deleted(lab, browser, session, saved, swept):
    said = " was deleted; lab.undelete("
    choose(browser, saved[0])
    assert said not in browser.details.value
    lab.delete(session.id)
    browser.refresh.click()
    assert said in browser.details.value
    browser.kind.value = SWEEPS
    choose(browser, swept)
    assert said in browser.details.value
    lab.undelete(session.id)
    browser.refresh.click()
    assert said not in browser.details.value


def test_a_deleted_sweep_that_runs_again_is_back_and_repeats_nothing(lab, session, swept):
    lab.delete_sweep(swept)
    again = fxlab.sweep(session, "sma_cross", {"fast": [3, 5, 9], "slow": [20, 30]}, lab=lab)
    assert again.sweep_ids == (swept,)
    assert lab.sweep(swept).done == 6


def test_what_fails_is_said_in_the_panel(lab, browser, saved):
    choose(browser, saved[0])
    lab.delete_run(saved[0])
    browser.reproduce.click()
    assert browser.message.failed
    lab.undelete_run(saved[0])


def test_a_run_that_cannot_be_read_leaves_nothing_of_another(lab, browser, saved):
    choose(browser, saved[0])
    lab.delete_run(saved[1])
    choose(browser, saved[1])
    assert browser.message.failed
    assert browser.details.value == ""
    lab.undelete_run(saved[1])


def test_a_choice_leaves_the_list_alone_and_reads_a_sweep_once(browser, saved, swept, monkeypatch):
    sent = []
    browser.listing.observe(sent.append, "_options_labels")
    choose(browser, saved[0])
    assert sent == []
    assert not browser.delete.disabled
    browser.kind.value = SWEEPS
    read, points = [], SavedSweep.points
    monkeypatch.setattr(SavedSweep, "points", lambda one: read.append(one) or points(one))
    choose(browser, swept)
    assert len(read) == 1


def test_where_one_of_several_cannot_be_deleted_the_others_can_be_brought_back(lab, browser, saved):
    choose(browser, *saved[:2])
    first, second = browser.state.chosen
    lab.delete_run(second)
    browser.delete.click()
    assert browser.message.failed
    assert sorted(listed(browser)) == [saved[2]]
    browser.undo.click()
    assert browser.state.chosen == (first,)
    lab.undelete_run(second)


def test_a_run_that_is_reproduced_while_another_is_looked_at_leaves_its_picture_alone(
    browser, saved
):
    choose(browser, saved[1])
    again = browser._lab.run(saved[1]).reproduce()
    choose(browser, saved[0])
    browser._on_reproduced(lambda: again)
    assert browser.plot.outputs == ()
    assert f"run {saved[1]} again" in browser.message.value
    choose(browser, saved[2])
    assert browser.progress.layout.visibility == "hidden"


def test_an_empty_list_says_how_to_fill_it(lab):
    browser = RunsBrowser(lab)
    browser.filter.value = "no run has this word"
    assert "has all these words" in browser.count.value
    assert browser.delete.disabled
    assert "nothing" in repr(browser)
