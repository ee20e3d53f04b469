"""A night beside those before it: better, decayed, new, gone, or why it cannot be said."""

from __future__ import annotations

import json
import math
import re
from datetime import date, timedelta

import hypothesis.strategies as st
import polars as pl
import pytest
from hypothesis import given
from markets import recorded_walk

import fxlab
from fxlab import errors
from fxlab.backtester.report._summary import history_picture
from fxlab.batcher._jobs import NightlySweep
from fxlab.batcher.nightly import render_all
from fxlab.sweeper._results import (
    CHANGES,
    FIGURES,
    NIGHTS,
    POINTS,
    RECORD,
    NightRecord,
    change_of,
    compare_nights,
    figure_history,
    frames_of,
    read_nights,
)

DAYS = [date(2026, 1, 28) + timedelta(days=number) for number in range(5)]
TERMS = {"parameters": "[1, 2]", "code": "a"}
NO_POINTS = pl.DataFrame(schema=POINTS)


def figure(day, sweep, value=1.0, *, session=None, state="done", metric="sharpe", **terms):
    """Return a row of `FIGURES`; `day` counts from the first."""
    return {
        "night": DAYS[day],
        "sweep": sweep,
        "session": session,
        "strategy": "sma_cross",
        "metric": metric,
        "state": state,
        "figure": value if state == "done" else None,
        "parameters": f"fast={value}" if state == "done" else None,
        "terms": json.dumps(TERMS | terms, sort_keys=True),
    }


def compared(rows, *states, points=NO_POINTS):
    """Compare the last of the nights, whose states these are, with those before it."""
    nights = list(zip(DAYS, states, strict=False))
    frames = (
        pl.DataFrame(rows, schema=FIGURES),
        pl.DataFrame(nights, schema=NIGHTS, orient="row"),
    )
    return compare_nights(*frames, points, nights[-1][0]).rows(named=True)


def told(rows, *states):
    return [(row["sweep"], row["change"], row["note"]) for row in compared(rows, *states)]


@pytest.mark.parametrize(
    ("before", "now", "metric", "change"),
    [
        (1.0, 1.1, "sharpe", "better"),
        (1.0, 0.9, "sharpe", "decayed"),
        (1.0, 1.009, "sharpe", "same"),
        (0.0, 0.0, "sharpe", "same"),
        (-1.0, -0.5, "sharpe", "better"),
        (0.01, -0.01, "sharpe", "decayed"),
        (5.0, 4.0, "fees", "better"),
        (5.0, 6.0, "fees", "decayed"),
        (-1e308, 1e308, "sharpe", "better"),
        (5e-324, 0.0, "sharpe", "decayed"),
    ],
)
def test_a_change_goes_by_the_metric(before, now, metric, change):
    assert change_of(before, now, metric) == change


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["sharpe", "fees"]),
)
def test_a_way_back_is_the_opposite(before, now, metric):
    there, back = change_of(before, now, metric), change_of(now, before, metric)
    opposite = {"better": "decayed", "decayed": "better", "same": "same"}
    assert opposite[there] == back


def test_the_first_night_is_all_new():
    assert told([figure(0, "a"), figure(0, "b", 2.0)], "running") == [
        ("a", "new", ""),
        ("b", "new", ""),
    ]


def test_nothing_is_no_row():
    assert compared([], "running") == []
    assert compared([], "done", "running") == []


def test_a_figure_is_compared_with_that_of_the_night_before():
    points = pl.DataFrame([("a", "fast=1.0", 0.25)], schema=POINTS, orient="row")
    rows = [figure(0, "a", 9.0), figure(1, "a", 1.0), figure(2, "a", 2.0)]
    (row,) = compared(rows, "done", "done", "running", points=points)
    assert row["change"] == "better"
    assert (row["figure"], row["figure_before"], row["since"]) == (2.0, 1.0, DAYS[1])
    assert (row["parameters"], row["parameters_before"]) == ("fast=2.0", "fast=1.0")
    assert row["before_tonight"] == 0.25
    assert row["note"] == ""


def test_what_was_not_there_the_night_before_is_new_and_what_was_is_gone():
    rows = [figure(0, "a"), figure(1, "b"), figure(2, "a")]
    assert told(rows, "done", "done", "running") == [("a", "new", ""), ("b", "gone", "")]


def test_a_night_that_died_is_passed_over_and_named():
    rows = [
        figure(0, "a", 1.0),
        figure(0, "b", 1.0),
        figure(1, "a", 4.0),
        figure(1, "b", state="waiting"),
        figure(2, "a", 2.0),
        figure(2, "b", 2.0),
    ]
    assert told(rows, "done", "died", "running") == [
        ("a", "decayed", f"{DAYS[1]} died after it"),
        ("b", "better", f"{DAYS[1]} died before it"),
    ]


@pytest.mark.parametrize("state", ["failed", "stopped", "done"])
def test_a_sweep_without_a_figure_is_passed_over_and_named(state):
    none = figure(1, "a", state=state) | {"figure": None}
    rows = [figure(0, "a", 1.0), none, figure(2, "a", 2.0)]
    words = {"done": "no figure"}.get(state, state)
    assert told(rows, "done", "done", "running") == [("a", "better", f"{words} on {DAYS[1]}")]
    assert told([none, figure(2, "a", 2.0)], "done", "done", "running") == [
        ("a", "not compared", f"{words} on {DAYS[1]}")
    ]


@pytest.mark.parametrize("state", ["failed", "stopped", "waiting", "done"])
def test_no_figure_tonight_is_not_compared(state):
    rows = [figure(0, "a", 1.0), figure(1, "a", state=state) | {"figure": None}]
    (row,) = compared(rows, "done", "running")
    words = {"done": "no figure"}.get(state, state)
    assert (row["change"], row["note"]) == ("not compared", f"{words} tonight")
    assert row["since"] is None


def test_a_plan_that_changed_is_named_and_not_compared():
    rows = [
        figure(0, "a", 1.0),
        figure(1, "a", 5.0, parameters="[3]", execution="x"),
        figure(2, "a", 2.0),
    ]
    (row,) = compared(rows, "done", "done", "running")
    assert row["change"] == "not compared"
    assert row["note"] == f"other parameters, execution on {DAYS[1]}"
    assert row["figure_before"] is None


def test_what_is_gone_is_looked_for_back_to_the_last_whole_night():
    rows = [figure(0, "old"), figure(1, "whole"), figure(2, "half"), figure(3, "a")]
    gone = told(rows, "done", "done", "died", "running")
    assert gone == [
        ("a", "new", f"{DAYS[2]} died before it"),
        ("half", "gone", ""),
        ("whole", "gone", ""),
    ]


def test_sessions_come_and_go():
    rows = [
        figure(0, "a", 2.0),
        figure(0, "a", 3.0, session="x"),
        figure(0, "a", 1.0, session="y"),
        figure(1, "a", 2.5),
        figure(1, "a", 1.0, session="x"),
        figure(1, "a", 4.0, session="z"),
    ]
    found = compared(rows, "done", "running")
    assert [(row["session"], row["change"]) for row in found] == [
        (None, "better"),
        ("x", "decayed"),
        ("z", "new"),
        ("y", "gone"),
    ]
    assert found[0]["note"] == "sessions: 1 new, 1 gone"


def test_a_session_is_not_new_after_a_night_in_which_its_sweep_failed():
    rows = [
        figure(0, "a", 1.0),
        figure(0, "a", 1.0, session="x"),
        figure(1, "a", state="failed"),
        figure(2, "a", 2.0),
        figure(2, "a", 2.0, session="x"),
    ]
    found = compared(rows, "done", "done", "running")
    assert [row["change"] for row in found] == ["better", "better"]


names = st.sampled_from(["a", "b", "c"])
some_figures = st.lists(
    st.builds(
        figure,
        st.integers(0, 4),
        names,
        st.floats(-10, 10),
        session=st.sampled_from([None, "x", "y"]),
        state=st.sampled_from(["done", "failed", "stopped", "waiting"]),
        code=st.sampled_from(["a", "b"]),
    ),
    unique_by=lambda row: (row["night"], row["sweep"], row["session"]),
)
states = st.lists(
    st.sampled_from(["done", "died", "stopped", "unreadable"]), min_size=5, max_size=5
)


@given(some_figures, states, st.randoms(use_true_random=False))
def test_every_sweep_of_tonight_and_no_other_is_judged_once(rows, ended, random):
    # A session's row stands beside that of its sweep.
    whole = {(row["night"], row["sweep"]) for row in rows if row["session"] is None}
    rows = [row for row in rows if (row["night"], row["sweep"]) in whole]
    found = compared(rows, *ended)
    tonight = {(row["sweep"], row["session"]) for row in rows if row["night"] == DAYS[-1]}
    there = [(row["sweep"], row["session"]) for row in found if row["change"] != "gone"]
    assert sorted(there, key=str) == sorted(tonight, key=str)
    gone = {(row["sweep"], row["session"]) for row in found if row["change"] == "gone"}
    assert not gone & tonight
    for row in found:
        assert row["change"] in CHANGES
        both = row["figure"] is not None and row["figure_before"] is not None
        assert both == (row["change"] in {"better", "decayed", "same"})
        if row["change"] == "not compared":
            assert row["note"]
    shuffled = random.sample(rows, len(rows))
    assert sorted(map(str, compared(shuffled, *ended))) == sorted(map(str, found))


# ---- history ---------------------------------------------------------------------------------


def history_of(rows, count=5):
    nights = pl.DataFrame([(day, "done") for day in DAYS[:count]], schema=NIGHTS, orient="row")
    return figure_history(pl.DataFrame(rows, schema=FIGURES), nights, "a")


def test_a_history_has_holes_and_begins_where_the_plan_changed():
    rows = [
        figure(0, "a", 9.0, code="old"),
        figure(1, "a", 1.0),
        figure(2, "a", state="failed"),
        figure(3, "a", 3.0),
        figure(4, "a", 2.0),
        figure(4, "a", 7.0, session="x"),
        figure(4, "b", 8.0),
    ]
    found = history_of(rows)
    assert found["figure"].to_list() == [None, 1.0, None, 3.0, 2.0]
    picture = str(history_picture(found, "sharpe"))
    assert picture.count("<circle") == 3
    assert picture.count("<polyline") == 1
    assert "sharpe of 3 nights, lowest 1.000, highest 3.000; newest 2026-02-01: 2.000" in picture


def test_a_history_of_nothing_is_no_picture():
    assert history_picture(history_of([]), "sharpe") == ""
    assert history_picture(history_of([figure(0, "a", state="failed")]), "sharpe") == ""


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=80))
def test_any_history_stays_inside_its_picture(values):
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(len(values))]
    schema = {"night": pl.Date, "figure": pl.Float64}
    picture = str(
        history_picture(pl.DataFrame({"night": days, "figure": values}, schema), "sharpe")
    )
    assert picture.count("<circle") == sum(value is not None for value in values)
    for x, y in re.findall(r'cx="([^"]+)" cy="([^"]+)"', picture):
        assert 0 <= float(x) <= 150
        assert 0 <= float(y) <= 36


# ---- records ---------------------------------------------------------------------------------

HOSTILE = "</script><script>alert('1')</script>\"'"


def record(**changed):
    whole = {"state": "done", "table": [], "figures": [figure(0, "a")], "comparison": []}
    return json.dumps(whole | changed, default=str)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        record(state="well"),
        record(figures=None),
        record(figures=[{"sweep": 1}]),
        record(figures=[figure(0, "a") | {"figure": "high"}]),
        record(figures=[figure(0, "a") | {"terms": "no JSON"}]),
        record(figures=[figure(0, "a") | {"terms": "[]"}]),
        record(figures=[figure(0, "a") | {"metric": HOSTILE}]),
        record(comparison=[{"since": "yesterday"}]),
    ],
)
def test_a_record_that_is_none_is_named_and_not_compared(tmp_path, text):
    folder = tmp_path / DAYS[0].isoformat()
    folder.mkdir()
    (folder / RECORD).write_text(text)
    found = read_nights(tmp_path)
    assert [(day, one.state) for day, one in found.items()] == [(DAYS[0], "unreadable")]
    assert found[DAYS[0]].figures.is_empty()
    assert "unreadable" in render_all(tmp_path, found)


def test_a_record_comes_back_as_it_was(tmp_path):
    rows = [figure(0, HOSTILE, 1.5), figure(1, HOSTILE, 0.1 + 0.2)]
    figures = pl.DataFrame(rows, schema=FIGURES)
    first = NightRecord("done", figures.head(1))
    second = NightRecord("running", figures.tail(1))
    both = frames_of({DAYS[0]: first, DAYS[1]: second})
    second.comparison = compare_nights(*both, NO_POINTS, DAYS[1])
    for day, one in ((DAYS[0], first), (DAYS[1], second)):
        (tmp_path / day.isoformat()).mkdir()
        table = [{"best": math.inf, "sweep": HOSTILE}]
        (tmp_path / day.isoformat() / RECORD).write_text(one.to_json(table))
    (tmp_path / "2026-1-1").mkdir()
    (tmp_path / "notes.txt").touch()
    found = read_nights(tmp_path)
    assert sorted(found) == DAYS[:2]
    assert found[DAYS[1]].state == "died"
    assert found[DAYS[1]].figures.equals(second.figures)
    assert found[DAYS[1]].comparison.equals(second.comparison)
    page = render_all(tmp_path, found)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<svg") == 1
    assert list(read_nights(tmp_path, but=DAYS[1])) == [DAYS[0]]


def test_terms_are_all_that_decides_but_the_sessions():
    one = {"newest": 1, "strategy": "sma_cross", "parameters": {"fast": [2, 3]}}
    first = NightlySweep.of(one).terms
    for same in ({"newest": 2}, {"name": "b"}, {"chunk_rows": 5}):
        assert NightlySweep.of(one | same).terms == first
    by_range = {"fast": {"from": 2, "to": 3, "step": 1}}
    assert NightlySweep.of(one | {"parameters": by_range}).terms == first
    for name, other in (
        ("strategy", "mean_reversion"),
        ("parameters", {"fast": [2, 4]}),
        ("execution", {"taker_bps": 1}),
        ("capital", 5),
        ("symbol", "X"),
        ("metric", "sharpe"),
        ("return_interval", "5s"),
    ):
        values = one | {name: other}
        if name == "strategy":
            values["parameters"] = {"window": [2, 3]}
        terms = NightlySweep.of(values).terms
        assert terms[name] != first[name]
    assert len(first["code"]) == 16


# ---- nights on the real server ---------------------------------------------------------------


@pytest.fixture(scope="module")
def word(unique):
    return unique("compared")


def add_session(lab, word, letter, seed):
    hours = pl.duration(hours=ord(letter) - ord("a"))
    ticks = recorded_walk(1_500, seed, symbol=word.upper())
    ticks = ticks.with_columns(pl.col("timestamp") + hours)
    lab.import_frames({"prices": ticks}, session_id=f"{word}-{letter}", tags=(word,))


@pytest.fixture(scope="module")
def nights(lab, word, tmp_path_factory):
    """Run four nights; the data grow, and the second one dies in its second sweep."""
    out = tmp_path_factory.mktemp("compared")
    grid = {"fast": [2, 4], "slow": [10, 20]}
    one = {"tag": word, "strategy": "sma_cross", "parameters": grid, "metric": "total_return"}
    trend, other, third = one | {"name": "trend"}, one | {"name": "other"}, one | {"name": "third"}
    add_session(lab, word, "a", 1)
    found = [fxlab.nightly([trend, other], out=out, lab=lab, night=DAYS[0])]
    add_session(lab, word, "b", 2)

    def dies(share, words):
        if words.startswith("other"):
            raise SystemExit("killed")

    with pytest.raises(SystemExit):
        fxlab.nightly([trend, other, third], out=out, lab=lab, night=DAYS[1], progress=dies)
    found.append(json.loads((out / DAYS[1].isoformat() / RECORD).read_text()))
    add_session(lab, word, "c", 3)
    plan = [trend, other | {"execution": {"taker_bps": 1}}, third]
    found.append(fxlab.nightly(plan, out=out, lab=lab, night=DAYS[2]))
    found.append(fxlab.nightly(plan[1:], out=out, lab=lab, night=DAYS[3]))
    return out, found


def changes(night):
    return {row["sweep"]: row for row in night.changes.rows(named=True)}


def test_the_first_night_is_new(nights):
    _, (first, *_) = nights
    assert {name: row["change"] for name, row in changes(first).items()} == {
        "trend": "new",
        "other": "new",
    }
    assert str(first).endswith(f"; against the night before 2 new; see {first.index}")


def test_a_night_that_was_killed_leaves_what_it_had(nights):
    _, (_, killed, *_) = nights
    assert killed["state"] == "running"
    states = {row["sweep"]: row["state"] for row in killed["figures"] if row["session"] is None}
    assert states == {"trend": "done", "other": "waiting", "third": "waiting"}


def test_the_night_after_compares_with_what_is_whole(nights, word):
    _, (_, killed, third, _) = nights
    trend = changes(third)["trend"]
    died = next(row for row in killed["figures"] if row["sweep"] == "trend")
    assert (trend["since"], trend["figure_before"]) == (DAYS[1], died["figure"])
    assert trend["figure"] == third.table["best"][0]
    assert trend["change"] == change_of(died["figure"], trend["figure"], "total_return")
    assert trend["note"] == f"{DAYS[1]} died after it; sessions: 1 new"
    assert changes(third)["other"]["change"] == "not compared"
    assert changes(third)["other"]["note"] == (
        f"{DAYS[1]} died before it; other execution on {DAYS[0]}"
    )
    assert changes(third)["third"]["change"] == "new"

    # What the parameters chosen in the night before give tonight is a row of tonight's ranking.
    ranking = third.sweeps["trend"].ranking()
    chosen = dict(part.split("=") for part in trend["parameters_before"].split(", "))
    same = ranking.filter(*(pl.col(name) == int(value) for name, value in chosen.items()))
    assert trend["before_tonight"] == same["total_return"][0]

    sessions = third.comparison.filter(pl.col("sweep") == "trend", pl.col("session").is_not_null())
    by_name = {name.rpartition("-")[2]: change for name, change in
               sessions.select("session", "change").iter_rows()}  # fmt: skip
    assert by_name["c"] == "new"
    assert {by_name["a"], by_name["b"]} <= {"better", "decayed", "same"}
    assert sessions["figure"].mean() == pytest.approx(trend["figure"])


def test_the_last_night_says_what_is_the_same_and_what_is_gone(nights):
    _, (*_, last) = nights
    found = changes(last)
    assert {name: row["change"] for name, row in found.items()} == {
        "other": "same",
        "third": "same",
        "trend": "gone",
    }
    assert found["trend"]["since"] == DAYS[2]
    assert "; against the night before 2 same, 1 gone; see " in str(last)


def test_pages_show_changes_with_their_history(nights):
    out, (*_, last) = nights
    page = last.index.read_text(encoding="utf-8")
    assert "Against the night before" in page
    pictures = re.findall(r'<svg role="img".*?</svg>', page, re.DOTALL)
    assert [picture.count("<circle") for picture in pictures] == [2, 2, 3]
    assert "By session" in page
    every = (out / "index.html").read_text(encoding="utf-8")
    assert f"{DAYS[3]} against the night before" in every
    states = re.findall(r"(2026-\d\d-\d\d)</a></td><td>(\w+)</td>", every)
    assert states == [
        ("2026-01-31", "done"),
        ("2026-01-30", "done"),
        ("2026-01-29", "died"),
        ("2026-01-28", "done"),
    ]


def test_the_record_holds_what_the_night_returned(nights):
    out, (*_, last) = nights
    found = read_nights(out)[DAYS[3]]
    assert found.state == "done"
    assert found.comparison.equals(last.comparison)
    whole = json.loads((out / DAYS[3].isoformat() / RECORD).read_text())
    assert [row["best"] for row in whole["table"]] == last.table["best"].to_list()


def test_the_same_night_again_compares_with_the_night_before_not_with_itself(lab, nights, word):
    out = nights[0]
    one = {"tag": word, "strategy": "sma_cross", "parameters": {"fast": [2, 4], "slow": [10, 20]}}
    plan = [one | {"name": "third", "metric": "total_return"}]
    again = fxlab.nightly(plan, out=out, lab=lab, night=DAYS[3])
    assert changes(again)["third"]["since"] == DAYS[2]


def test_an_interrupted_night_is_stopped_in_its_record(lab, word, nights, tmp_path):
    one = {"tag": word, "strategy": "sma_cross", "parameters": {"fast": [5, 6], "slow": [40]}}

    def stop(share, _words):
        if share > 0.2:
            raise KeyboardInterrupt

    with pytest.raises(errors.Cancelled):
        fxlab.nightly([one], out=tmp_path, lab=lab, night=DAYS[0], progress=stop)
    assert read_nights(tmp_path)[DAYS[0]].state == "stopped"
    night = fxlab.nightly([one], out=tmp_path, lab=lab, night=DAYS[1])
    row = changes(night)["sma_cross"]
    assert (row["change"], row["note"]) == ("not compared", f"stopped on {DAYS[0]}")
