"""Nights of sweeps: what is new is tried, nothing twice, and each night leaves a page."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from datetime import time as clock
from pathlib import Path

import polars as pl
import pytest
from markets import recorded_walk

import fxlab
from fxlab import errors
from fxlab._html import slug
from fxlab.batcher._jobs import (
    NightlySweep,
    checked_sweeps,
    load_jobs,
    read_plan,
)
from fxlab.batcher.batch import Batch, resolved
from fxlab.batcher.nightly import render_all
from fxlab.batcher.runner import night_options
from fxlab.sweeper._results import (
    FIGURES,
    RECORD,
    NightRecord,
    clear_nights,
    read_nights,
    written_files,
)

FIRST, SECOND = date(2026, 1, 31), date(2026, 2, 1)
GRID = {"fast": [2, 4], "slow": {"from": 10, "to": 20, "step": 5}}


@pytest.fixture(scope="module")
def group(lab, unique):
    """Store three sessions of a symbol of their own under one tag, an hour apart; "c" is newest."""
    word = unique("night")
    symbol = word.upper()
    for number, letter in enumerate("abc"):
        later = pl.col("timestamp") + timedelta(hours=number)
        ticks = recorded_walk(1_500, number, symbol=symbol).with_columns(later)
        tags = (word, "odd") if letter != "b" else (word,)
        lab.import_frames({"prices": ticks}, session_id=f"{word}-{letter}", tags=tags)
    return word


@pytest.fixture(scope="module")
def plan(group):
    return [
        {
            "name": "by <tag>",
            "tag": group,
            "strategy": "sma_cross",
            "parameters": GRID,
            "return_interval": "5s",
        },
        {
            "newest": 1,
            "symbol": group.upper(),
            "strategy": "sma_cross",
            "parameters": {"fast": 3, "slow": [9, 12, 15, 30]},
            "search": "random",
            "points": 3,
            "metric": "total_return",
            "execution": {"taker_bps": 1},
        },
        {
            "name": "no such tag",
            "tag": "nobody-has-it",
            "strategy": "sma_cross",
            "parameters": GRID,
        },
    ]


@pytest.fixture(scope="module")
def nights(lab, plan, tmp_path_factory):
    """Run the plan on two nights and once more on the second one."""
    out = tmp_path_factory.mktemp("nights") / "all"
    told = []
    first = fxlab.nightly(
        plan, out=out, lab=lab, night=FIRST, workers=1, progress=lambda *words: told.append(words)
    )
    second = fxlab.nightly(plan, out=out, lab=lab, night=SECOND)
    again = fxlab.nightly(plan, out=out, lab=lab, night=SECOND)
    return out, told, first, second, again


def rows(night):
    return night.table.rows(named=True)


def test_sessions_are_found_by_tag_by_newest_and_by_id(lab, group):
    def found(**rule):
        one = NightlySweep(strategy="sma_cross", parameters=GRID, **rule)
        one.check_rule()
        return [session.id.rpartition("-")[2] for session in one.find(lab)]

    assert found(tag=group) == ["c", "b", "a"]
    assert found(tag=group, newest=2) == ["c", "b"]
    assert found(newest=2, symbol=group.upper()) == ["c", "b"]
    assert found(sessions=[f"{group}-a", f"{group}-b"]) == ["a", "b"]
    assert found(sessions=f"{group}-a") == ["a"]


def test_sessions_are_found_by_age(lab, unique):
    """Five recordings of 12 minutes and one that goes on; the night is that of the last one."""
    word = unique("aged")
    starts = {"old": "2026-01-24T23:40", "over-midnight": "2026-01-24T23:55",
              "first": "2026-01-25T00:00", "tonight": "2026-02-01T01:00",
              "tomorrow": "2026-02-02T00:00"}  # fmt: skip
    for number, (name, start) in enumerate(starts.items()):
        ticks = recorded_walk(60, number, symbol=word.upper())
        times = pl.datetime_range(
            pl.lit(start).str.to_datetime(time_unit="us", time_zone="UTC"),
            pl.lit(start).str.to_datetime(time_unit="us", time_zone="UTC") + timedelta(seconds=708),
            "12s",
        )
        lab.import_frames(
            {"prices": ticks.drop("received_at", strict=False).with_columns(timestamp=times)},
            session_id=f"{word}-{name}",
            tags=(word, "odd") if name == "first" else (word,),
        )

    def found(night=SECOND, **rule):
        one = NightlySweep.of({"strategy": "sma_cross", "parameters": GRID} | rule)
        return {session.id.removeprefix(f"{word}-") for session in one.find(lab, night)}

    week = {"tonight", "first", "over-midnight"}
    assert found(days=7, tag=word) == week
    assert found(days=7, symbol=word.upper()) == week
    assert found(days=8, tag=word) == week | {"old"}
    assert found(days=1, tag=word) == {"tonight"}
    assert found(days=7, tag="odd", symbol=word.upper()) == {"first"}
    assert found(days=7, tag=word, newest=1) == {"tonight"}
    assert found(days=7, tag=word, night=SECOND + timedelta(days=1)) == {"tonight", "tomorrow"}
    with pytest.raises(errors.EmptySession) as caught:
        found(days=2, tag=word, symbol=word.upper(), night=FIRST)
    assert str(caught.value) == (
        f"no completed session has the tag '{word}' and the symbol '{word.upper()}' and ticks from "
        "2026-01-29 to 2026-01-31; list them with: fxlab sessions list"
    )


def test_the_age_of_sessions_is_no_term_of_a_sweep():
    one = {"strategy": "sma_cross", "parameters": GRID, "symbol": "A"}
    terms = [NightlySweep.of(one | rule).terms for rule in ({"days": 7}, {"newest": 3})]
    assert terms[0] == terms[1]
    assert "days" not in terms[0]


def test_a_night_counts_days_back_from_its_own_date(lab, unique, tmp_path):
    word = unique("dated")
    lab.import_frames({"prices": recorded_walk(300, symbol="A")}, session_id=word, tags=(word,))
    day = lab.session(word).started.date()
    plan = [{"days": 1, "tag": word, "strategy": "sma_cross", "parameters": {"fast": 2, "slow": 9}}]
    night = fxlab.nightly(plan, out=tmp_path, lab=lab, night=day)
    assert rows(night)[0]["sessions"] == [word]
    later = fxlab.nightly(plan, out=tmp_path, lab=lab, night=day + timedelta(days=3))
    assert (
        f"ticks from {day + timedelta(days=2)} to {day + timedelta(days=3)}"
        in (rows(later)[0]["error"])
    )


def test_every_sweep_has_its_row(nights):
    _, _, first, *_ = nights
    one, two, three = rows(first)
    assert (one["state"], one["points"], one["from_before"]) == ("done", 18, 0)
    assert (two["state"], two["points"], two["metric"]) == ("done", 3, "total_return")
    assert (three["state"], three["points"]) == ("failed", None)
    assert "no completed session has the tag 'nobody-has-it'" in three["error"]
    assert list(first.sweeps) == ["by <tag>", "sma_cross"]
    assert first.failed.height == 1
    assert "3 sweeps, 1 failed; 21 points, 0 of them from before" in str(first)


def test_the_row_is_what_the_sweep_says(nights):
    _, _, first, *_ = nights
    found, row = first.sweeps["by <tag>"], rows(first)[0]
    best = found.ranking().row(0, named=True)
    assert row["best"] == best["sharpe_per_period"]
    assert f"fast={best['fast']}, slow={best['slow']}" in row["parameters"]
    judged = found.overfitting()
    assert row["pbo"] == judged.pbo
    assert row["tried"] == judged.tried
    expected = judged.table.filter(pl.col("point") == best["point"])["deflated_sharpe"][0]
    assert row["deflated_sharpe"] == expected


def test_another_night_repeats_no_point(nights):
    _, _, first, second, again = nights
    for night in (second, again):
        assert [row["from_before"] for row in rows(night)][:2] == [18, 3]
        for name, found in night.sweeps.items():
            assert found.table.equals(first.sweeps[name].table)


def test_trials_are_carried_over_nights(lab, group, nights, tmp_path):
    more = {"tag": group, "strategy": "sma_cross", "return_interval": "5s"}
    more["parameters"] = GRID | {"fast": [2, 3, 4]}
    before = rows(nights[3])[0]["tried"]
    (row,) = rows(fxlab.nightly([more], out=tmp_path, lab=lab))
    assert row["points"] == 27
    assert row["from_before"] == 18
    assert row["tried"] > max(before, 9)


def test_pages_and_tables_are_left(nights):
    out, _, first, second, _ = nights
    assert first.index == out / "2026-01-31" / "index.html"
    page = first.index.read_text(encoding="utf-8")
    assert "by &lt;tag&gt;" in page
    assert "by <tag>" not in page
    assert "nobody-has-it" in page
    assert page.count("Plotly.newPlot(") == 2
    assert page.count("* plotly.js v") == 1
    assert "src=" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert list(out.rglob("*.js")) == []
    table = pl.read_parquet(out / "2026-01-31" / "by-tag.parquet")
    assert table.equals(first.sweeps["by <tag>"].table)
    every = (out / "index.html").read_text(encoding="utf-8")
    assert every.index("2026-02-01/index.html") < every.index("2026-01-31/index.html")
    assert second.index.is_file()


def test_progress_runs_from_nothing_to_all(nights):
    told = nights[1]
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert told[-1] == (1.0, "3 sweeps")
    assert any(words.startswith("by <tag>: ") for _, words in told)


def test_an_interrupted_night_keeps_what_is_done(lab, group, tmp_path):
    plan = [{"tag": group, "strategy": "sma_cross", "parameters": {"fast": [5, 6], "slow": [40]}}]

    def stop(share, _words):
        if share > 0.5:  # the first session is done then
            raise KeyboardInterrupt

    with pytest.raises(errors.Cancelled, match=r"stopped in its sweep 'sma_cross'.* goes on"):
        fxlab.nightly(plan, out=tmp_path, lab=lab, night=FIRST, progress=stop)
    assert "stopped" in (tmp_path / "2026-01-31" / "index.html").read_text(encoding="utf-8")
    (row,) = rows(fxlab.nightly(plan, out=tmp_path, lab=lab, night=FIRST))
    assert row["state"] == "done"
    assert 0 < row["from_before"] < 6


def test_a_second_night_at_the_same_time_is_refused(lab, group, tmp_path):
    plan = [{"tag": group, "strategy": "sma_cross", "parameters": {"fast": [3], "slow": [45]}}]
    refused = []

    def second(_share, _words):
        if not refused:
            with pytest.raises(errors.InvalidInput, match="another run writes into") as caught:
                fxlab.nightly(plan, out=tmp_path, lab=lab, night=SECOND)
            refused.append(caught.value)

    night = fxlab.nightly(plan, out=tmp_path, lab=lab, night=FIRST, progress=second)
    assert refused
    assert rows(night)[0]["state"] == "done"
    assert not (tmp_path / SECOND.isoformat()).exists()
    assert fxlab.nightly(plan, out=tmp_path, lab=lab, night=SECOND).failures == []


KILLED = """
import sys
from datetime import date
import fxlab
fxlab.nightly(sys.argv[1], out=sys.argv[2], night=date.fromisoformat(sys.argv[3]), workers=1)
"""
GATED = """
import time
from pathlib import Path
import polars as pl
import fxlab

GATE, SIGN = Path({gate!r}), Path({sign!r})

def gated(*, window: int = 5) -> fxlab.Signals:
    "Hold above the mean; wait in the middle of a sweep while a file is there."
    while window == 7 and GATE.exists():
        SIGN.touch()
        time.sleep(0.05)
    above = pl.col("price") > pl.col("price").rolling_mean(window)
    return fxlab.Signals(target=pl.when(above).then(1.0).otherwise(0.0))
"""


@pytest.mark.faults
def test_a_night_that_was_killed_goes_on(lab, group, unique, tmp_path, monkeypatch):
    plan, out, module = tmp_path / "plan.toml", tmp_path / "out", unique("gated").replace("-", "_")
    gate, sign = tmp_path / "gate", tmp_path / "sign"
    (tmp_path / f"{module}.py").write_text(GATED.format(gate=str(gate), sign=str(sign)))
    gate.touch()
    plan.write_text(
        f'[defaults]\nsessions = ["{group}-a", "{group}-b"]\n'
        '[[sweep]]\nstrategy = "sma_cross"\nparameters = { fast = [6, 7], slow = 33 }\n'
        f'[[sweep]]\nname = "gated"\nstrategy = "{module}:gated"\n'
        "parameters = { window = [5, 7, 9] }\n"
    )
    command = [sys.executable, "-c", KILLED, str(plan), str(out), FIRST.isoformat()]
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    monkeypatch.syspath_prepend(tmp_path)
    running = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    try:
        until = time.monotonic() + 300
        while not sign.exists() and time.monotonic() < until:
            assert running.poll() is None
            time.sleep(0.1)
        assert sign.exists()
        with pytest.raises(errors.InvalidInput, match="another run writes into"):
            fxlab.nightly(plan, out=out, lab=lab, night=SECOND)
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait(120)
    folder = out / FIRST.isoformat()
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    assert record["state"] == "running"
    assert [(row["sweep"], row["state"]) for row in record["table"]] == [("sma_cross", "done")]
    assert pl.read_parquet(folder / "sma_cross.parquet").height == 4
    assert not (folder / "gated.parquet").exists()

    gate.unlink()
    night = fxlab.nightly(plan, out=out, lab=lab, night=FIRST)
    assert night.failures == []
    assert [(row["state"], row["points"]) for row in rows(night)] == [("done", 4), ("done", 6)]
    first, second = (row["from_before"] for row in rows(night))
    assert first == 4
    assert second < 6
    sessions = [lab.session(f"{group}-{letter}") for letter in "ab"]
    alone = fxlab.sweep(sessions, f"{module}:gated", {"window": [5, 7, 9]})
    assert night.sweeps["gated"].table.equals(alone.table)
    assert read_nights(out)[FIRST].state == "done"
    whole = {"index.html", RECORD, "sma_cross.parquet", "gated.parquet"}
    assert names_in(folder) == whole  # nothing half written is left


def test_a_surprise_costs_one_sweep_and_leaves_its_traceback(lab, plan, tmp_path, monkeypatch):
    def surprise(*_args, **_options):
        raise ZeroDivisionError("by what?")

    monkeypatch.setattr("fxlab.batcher._jobs.sweep", surprise)
    night = fxlab.nightly(plan[:2], out=tmp_path, lab=lab, night=FIRST)
    assert night.failed.height == 2
    assert rows(night)[0]["error"].startswith("ZeroDivisionError: by what?")
    trace = (tmp_path / "2026-01-31" / "by-tag.error.txt").read_text(encoding="utf-8")
    assert "surprise" in trace


def test_mistakes_are_told_all_at_once_before_anything_runs(tmp_path):
    good = {"tag": "x", "strategy": "sma_cross", "parameters": GRID}
    bad = [
        good | {"stategy": "sma_cross"},
        good | {"strategy": "sma_cros"},
        good | {"parameters": {"fst": [1, 2]}},
        good | {"parameters": {"fast": {"from": 1, "till": 2}}},
        good | {"metric": "sharp"},
    ]
    with pytest.raises(errors.InvalidInput) as caught:
        fxlab.nightly(bad, out=tmp_path / "out", lab=object())
    for words in (
        "5 sweeps are not possible",
        "a sweep has no 'stategy'; did you mean 'strategy'",
        "no strategy named 'sma_cros'",
        "did you mean 'fast'",
        "is not a range; write fast = { from = 10, to = 100, step = 10 }",
        "metric='sharp' is not a metric of a run",
    ):
        assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({}, "say once which sessions"),
        ({"tag": "x", "sessions": ["y"]}, "say once which sessions"),
        ({"newest": -1}, "is not a number of sessions"),
        ({"newest": True}, "is not a number of sessions"),
        ({"days": 7, "sessions": ["y"]}, "say once which sessions"),
        ({"symbol": "BTC_USDT"}, "say once which sessions: .* days = 7"),
        ({"days": -7}, "days=-7 is not a number of days; give 1 to 36,500, such as days = 7"),
        ({"days": 1.5}, "is not a number of days"),
        ({"days": True}, "is not a number of days"),
        ({"days": "7d"}, "is not a number of days"),
        ({"days": 10**9}, "is not a number of days"),
        ({"newest": 1, "name": 5}, r'name=5 is not a text; put it in quotes: name = "..."'),
        ({"newest": 1, "name": "\ud800"}, "has characters that cannot be printed; leave them out"),
        ({"tag": "two\nlines"}, "has characters that cannot be printed"),
        ({"tag": True}, "tag=True is not a text"),
        ({"newest": 1, "symbol": 5}, "symbol=5 is not a text"),
        ({"newest": 1, "metric": date(2026, 1, 1)}, "metric=datetime.date.* is not a text"),
        ({"sessions": 5}, "sessions=5 is not a list of texts"),
        ({"sessions": ["a", 5]}, "is not a list of texts"),
        ({"newest": 1, "symbols": True}, "symbols=True is not a list of texts"),
        ({"newest": 1, "seed": math.nan}, "seed=nan is not a whole number from 0 on"),
        ({"newest": 1, "seed": True}, "seed=True is not a whole number"),
        ({"newest": 1, "search": "rand"}, "did you mean 'random'"),
        ({"newest": 1, "search": "random", "points": math.inf}, "points=inf is not a number of"),
        ({"newest": 1, "search": "random", "points": True}, "points=True is not a number of"),
        ({"newest": 1, "points": 5}, "points=5 goes with search='random'"),
        ({"newest": 1, "execution": 5}, "execution=5 names no assumption; write execution = {"),
        ({"newest": 1, "parameters": {"fast": {"from": "1", "to": 5, "step": 1}}}, "'1' is not a"),
        (
            {"newest": 1, "parameters": {"fast": {"from": 1, "to": math.nan, "step": 1}}},
            "to nan by 1 has no",
        ),
        ({"newest": 1, "parameters": {"fast": {"from": 1, "to": 5, "step": True}}}, "True is not"),
        ({"newest": 1, "execution": {"fil": 1}}, "did you mean 'fill'"),
        ({"newest": 1, "execution": {"funding": [1]}}, r"funding=\(1,\) is not a frame"),
        ({"newest": 1, "parameters": {"fast": {"from": 5, "to": 1, "step": 1}}}, "has no values"),
        ({"newest": 1, "parameters": {"fsat": {"from": 5, "to": 9, "step": 1}}}, "'fast'"),
        ({"newest": 1, "parameters": {}}, "is not a grid"),
    ],
)
def test_a_sweep_that_is_not_possible_is_refused(rule, words):
    whole = {"strategy": "sma_cross", "parameters": GRID} | rule
    with pytest.raises(errors.InvalidParameter, match=words):
        NightlySweep.of(whole)


@pytest.mark.parametrize("start", [True, 5, clock(2), "yesterday"])
def test_a_time_that_is_none_is_refused_before_the_night(start):
    whole = {"newest": 1, "strategy": "sma_cross", "parameters": GRID, "start": start}
    with pytest.raises(errors.InvalidTimeRange, match="is not a time"):
        NightlySweep.of(whole)


def test_what_a_file_leaves_open_has_its_default():
    given = {"newest": 1, "strategy": "sma_cross", "parameters": GRID}
    nothing = dict.fromkeys(("name", "tag", "points", "start", "execution", "seed", "capital"))
    assert NightlySweep.of(given | nothing) == NightlySweep.of(given)


def test_two_sweeps_of_one_name_are_refused():
    one = {"newest": 1, "strategy": "sma_cross", "parameters": GRID}
    with pytest.raises(errors.InvalidInput, match="give each a name"):
        checked_sweeps([one, one])


@pytest.fixture(scope="module")
def reported(lab, group, plan, tmp_path_factory):
    """Run a night whose two best points are reported, and once more."""
    out = tmp_path_factory.mktemp("reported")
    one = {key: value for key, value in plan[0].items() if key != "name"}
    alike = [one | {"name": name, "symbols": [group.upper()]} for name in ("a <b>", "the same")]
    sweeps = [*alike, plan[1], plan[2]]
    told = []
    first = fxlab.nightly(
        sweeps, out=out, lab=lab, night=FIRST, top=2, progress=lambda *words: told.append(words)
    )
    return out, told, first, fxlab.nightly(sweeps, out=out, lab=lab, night=FIRST, top=2)


def test_the_best_points_get_a_notebook_and_a_report(reported, lab, group):
    out, told, first, again = reported
    table = first.reports.table
    assert table["state"].to_list() == ["done", "done"]
    assert set(table["job"]) == {"a <b>", "sma_cross"}  # the same backtest is reported once
    assert first.reports.index == out / "2026-01-31" / "reports" / "index.html"
    for row in table.rows(named=True):
        found = first.sweeps[row["job"]]
        best = found.table.filter(pl.col("point") == found.ranking()["point"][0])
        assert lab.run(row["run_id"])["fingerprint"] == best["fingerprint"][0]
    page = first.index.read_text(encoding="utf-8")
    assert '<a href="reports/index.html">reports of the best points</a>: 2 done' in page
    assert f"a &lt;b&gt;: on {group}-c alone, the first of its 3 sessions" in page
    assert "sma_cross: on" not in page  # it has one session
    assert again.reports.table["from_before"].to_list() == [True, True]
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert any(words.startswith("reports: ") for _, words in told)
    assert first.failed["sweep"].to_list() == ["no such tag"]


def test_a_night_without_a_best_point_has_no_report_and_says_so(lab, plan, tmp_path):
    night = fxlab.nightly(plan[2:], out=tmp_path, lab=lab, night=FIRST, top=1)
    assert night.reports is None
    assert "reports of the best points: none: no best point" in night.index.read_text()


def reports_raise(monkeypatch, error):
    def batch(*_args, **_options):
        raise error

    monkeypatch.setattr("fxlab.batcher.nightly.batch", batch)


def test_what_reports_cannot_do_fails_the_night_and_no_sweep(lab, plan, tmp_path, monkeypatch):
    old = write_night(tmp_path, FIRST, "a b")
    reports_raise(monkeypatch, errors.InvalidInput("no <room>"))
    night = fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=SECOND, top=1, keep=1)
    assert rows(night)[0]["state"] == "done"
    assert night.reports is None
    assert "none: no &lt;room&gt;" in night.index.read_text()
    assert night.failed.is_empty()
    assert night.failures == ["reports: no <room>"]
    assert "; 1 report errors; older nights are kept, for this one has failures" in str(night)
    assert (old / "index.html").is_file()
    assert read_nights(tmp_path)[SECOND].state == "done"


def test_a_surprise_among_reports_ends_no_night_and_leaves_its_traceback(lab, plan, tmp_path):
    folder = tmp_path / FIRST.isoformat()
    folder.mkdir()
    (folder / "reports").write_text("where the reports belong")
    night = fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=FIRST, top=1)
    (line,) = night.failures
    assert line.startswith("reports: FileExistsError: ")
    assert line.endswith("; the traceback is in best points.error.txt")
    assert "only_one" in (folder / "best points.error.txt").read_text(encoding="utf-8")
    assert "none: FileExistsError" in night.index.read_text(encoding="utf-8")
    assert read_nights(tmp_path)[FIRST].state == "done"
    assert folder / "best points.error.txt" in written_files(folder, read_nights(tmp_path)[FIRST])


def test_a_table_that_cannot_be_written_fails_its_sweep(lab, plan, tmp_path):
    folder = tmp_path / FIRST.isoformat()
    (folder / "by-tag.parquet").mkdir(parents=True)
    night = fxlab.nightly(plan[:2], out=tmp_path, lab=lab, night=FIRST)
    assert [row["state"] for row in rows(night)] == ["failed", "done"]
    assert rows(night)[0]["error"].endswith("; the traceback is in by-tag.error.txt")
    assert "IsADirectoryError" in (folder / "by-tag.error.txt").read_text(encoding="utf-8")
    assert list(night.sweeps) == ["sma_cross"]
    assert (folder / "sma_cross.parquet").is_file()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert read_nights(tmp_path)[FIRST].state == "done"


def test_a_table_is_there_as_a_whole_or_not_at_all(lab, plan, tmp_path, monkeypatch):
    fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=FIRST)
    target = tmp_path / FIRST.isoformat() / "sma_cross.parquet"
    before = target.read_bytes()

    def half(_frame, file):
        file = file if hasattr(file, "write") else open(file, "wb")  # noqa: PTH123, SIM115
        file.write(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", half)
    night = fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=FIRST)
    assert "No space left on device" in rows(night)[0]["error"]
    assert target.read_bytes() == before


def first_is_refused(monkeypatch, name):
    """Let no backtest of a sweep be possible; return the names of those that are run."""
    run = []

    def refuse(job, *rest):
        if job.name == name:
            raise errors.SessionNotFound(f"no session <{job.session}>")
        return resolved(job, *rest)

    def batch(jobs, **_options):
        run.extend(job.name for job in jobs)
        table = pl.DataFrame({"job": run, "state": ["done"] * len(run), "error": [None] * len(run)})
        table = table.with_columns(from_before=False, run_id=pl.lit(None, pl.String))
        return Batch(table, Path("index.html"))

    monkeypatch.setattr("fxlab.batcher.nightly.resolved", refuse)
    monkeypatch.setattr("fxlab.batcher.nightly.batch", batch)
    return run


def test_a_report_that_is_refused_costs_no_other(lab, plan, tmp_path, monkeypatch):
    run = first_is_refused(monkeypatch, "by <tag>")
    night = fxlab.nightly(plan[:2], out=tmp_path, lab=lab, night=FIRST, top=2)
    assert run == ["sma_cross"]
    (line,) = night.failures
    assert line.startswith("report of by <tag>: no session <")
    page = night.index.read_text(encoding="utf-8")
    assert '">reports of the best points</a>: 1 done; report of by &lt;tag&gt;: no session' in page


def test_a_night_whose_only_report_is_refused_has_none(lab, plan, tmp_path, monkeypatch):
    first_is_refused(monkeypatch, "by <tag>")
    night = fxlab.nightly(plan[:1], out=tmp_path, lab=lab, night=FIRST, top=2)
    assert night.reports is None
    assert len(night.failures) == 1
    page = night.index.read_text(encoding="utf-8")
    assert "reports of the best points: none; report of by &lt;tag&gt;: no session" in page


def test_reports_are_told_how_long_they_may_take(lab, plan, tmp_path, monkeypatch):
    given = []

    def batch(_jobs, **options):
        given.append(options["timeout"])
        raise errors.InvalidInput("enough")

    monkeypatch.setattr("fxlab.batcher.nightly.batch", batch)
    for more in ({}, {"timeout": "90s"}):
        fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=FIRST, top=1, **more)
    assert given == [None, "90s"]


def test_a_plan_holds_options_of_its_night_and_keywords_come_first(tmp_path):
    path = tmp_path / "nights.toml"
    path.write_text('[night]\ntop = 3\nkeep = 30\ntimeout = "30m"\non_failure = "echo"\n')
    held = read_plan(path, "sweep")
    whole = {"top": 3, "keep": 30, "timeout": "30m", "on_failure": "echo"}
    assert night_options(held) == whole
    assert night_options(held, top=0, keep=None, timeout="1h") == whole | {
        "top": 0,
        "timeout": "1h",
    }
    assert night_options([]) == dict.fromkeys(whole)
    off = {"top": 0, "keep": "all", "timeout": "none", "on_failure": ""}
    switched = {"top": 0, "keep": None, "timeout": None, "on_failure": ""}
    assert night_options(held, **off) == switched
    assert night_options({"night": off}) == switched
    as_json = tmp_path / "nights.json"
    as_json.write_text(json.dumps({"night": whole}))
    assert night_options(read_plan(as_json, "sweep")) == whole


def test_a_night_does_what_its_plan_says(lab, plan, tmp_path, monkeypatch):
    given = []

    def batch(jobs, **options):
        given.append((len(jobs), options["timeout"]))
        raise errors.InvalidInput("enough")

    monkeypatch.setattr("fxlab.batcher.nightly.batch", batch)
    whole = {"night": {"top": 1, "timeout": "90s", "keep": 1}, "sweep": plan[:2]}
    night = fxlab.nightly(whole, out=tmp_path, lab=lab, night=FIRST)
    assert night.retention == "older nights are kept, for this one has failures"
    fxlab.nightly(whole, out=tmp_path, lab=lab, night=FIRST, top=2, timeout="1h")
    fxlab.nightly(whole, out=tmp_path, lab=lab, night=FIRST, top=0)
    assert given == [(1, "90s"), (2, "1h")]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"tpo": 3}, "a night has no 'tpo'; did you mean 'top'"),
        ({"workers": 3}, "a night has no 'workers'; it has: top, keep, timeout, on_failure"),
        ({"top": "3"}, "top='3' is not a number of points"),
        ({"top": math.inf}, "top=inf is not a number of points"),
        ({"keep": 0}, "keep=0 is not a number of nights"),
        ({"timeout": 0}, "timeout=0 leaves no time to run"),
        ({"timeout": date(2026, 1, 1)}, "timeout="),
        ({"on_failure": 5}, 'on_failure=5 is not a text; write on_failure = "'),
        ([{"top": 3}], r"write \[night\] once"),
        (5, r"write \[night\] once"),
    ],
)
def test_options_of_a_plan_that_are_none_are_refused_before_the_night(table, words, tmp_path):
    with pytest.raises(errors.InvalidParameter, match=words):
        fxlab.nightly({"night": table, "sweep": [{}]}, out=tmp_path / "out", lab=object())
    assert not (tmp_path / "out").exists()


def test_only_a_night_has_options():
    with pytest.raises(errors.InvalidParameter, match="the plan has no 'night'"):
        load_jobs({"night": {"top": 3}, "job": [{}]}, "job")


@pytest.mark.parametrize("timeout", [0, "soon", True, math.nan])
def test_a_timeout_is_a_duration(timeout, tmp_path):
    with pytest.raises(errors.InvalidParameter, match=r"^timeout="):
        fxlab.nightly([], out=tmp_path / "out", lab=object(), timeout=timeout)
    assert not (tmp_path / "out").exists()


def test_reports_that_are_stopped_stop_the_night(lab, plan, tmp_path, monkeypatch):
    reports_raise(monkeypatch, errors.Cancelled("enough"))
    with pytest.raises(errors.Cancelled, match="enough"):
        fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=FIRST, top=1)
    assert read_nights(tmp_path)[FIRST].state == "stopped"


@pytest.mark.parametrize("top", [-1, 1.5, True, "all"])
def test_top_is_a_number_of_points(top, tmp_path):
    with pytest.raises(errors.InvalidParameter, match="is not a number of points; give 0 or more"):
        fxlab.nightly([], out=tmp_path / "out", lab=object(), top=top)
    assert not (tmp_path / "out").exists()


def write_night(root, day, *sweeps, state="done"):
    """Write a folder as a night does, with an error and reports, and return it."""
    folder = root / day.isoformat()
    rows = [
        dict.fromkeys(FIGURES)
        | {"night": day, "sweep": name, "metric": "sharpe", "state": "done", "terms": "{}"}
        for name in sweeps
    ]
    (folder / "reports" / "a-1").mkdir(parents=True)
    files = [f"{slug(name, 'sweep')}.parquet" for name in sweeps]
    for name in ("index.html", "reports/a-1/notebook.ipynb", "a-b.error.txt", *files):
        (folder / name).write_text(name)
    record = NightRecord(state, pl.DataFrame(rows, schema=FIGURES))
    (folder / RECORD).write_text(record.to_json([]))
    return folder


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_older_nights_are_cleared_but_for_their_records(tmp_path):
    days = [FIRST + timedelta(days=number) for number in range(5)]
    folders = [write_night(tmp_path, day, "a/b", "../c") for day in days[:4]]
    died = write_night(tmp_path, days[4], "a/b", state="running")
    whole = names_in(folders[3])
    assert whole == {"index.html", "reports", "a-b.parquet", "c.parquet", "a-b.error.txt", RECORD}
    records = [(folder / RECORD).read_bytes() for folder in folders]
    assert clear_nights(tmp_path, 5) == "0 older nights cleared but for their records"
    assert clear_nights(tmp_path, 2) == "3 older nights cleared but for their records"
    assert [names_in(folder) for folder in folders] == [{RECORD}] * 3 + [whole]
    assert "index.html" in names_in(died)
    assert [(folder / RECORD).read_bytes() for folder in folders] == records
    assert clear_nights(tmp_path, 2) == "0 older nights cleared but for their records"
    page = render_all(tmp_path, read_nights(tmp_path))
    assert [f'href="{day}/index.html"' in page for day in days] == [False] * 3 + [True] * 2
    assert all(str(day) in page for day in days)


def test_what_no_night_wrote_is_never_touched(tmp_path):
    root, elsewhere = tmp_path / "nights", tmp_path / "elsewhere"
    for folder in (root, elsewhere):
        folder.mkdir()
    write_night(root, date(2026, 3, 1), "a b")

    own = write_night(root, date(2026, 1, 1), "a b")  # a night with files of the user's
    (own / "notes.md").write_text("mine")
    (own / "my.parquet").write_text("mine")
    (own / "link").symlink_to(elsewhere)
    (own / "reports" / "link").symlink_to(elsewhere)

    linked = write_night(root, date(2026, 1, 2), "a b")  # one whose parts lie elsewhere
    kept = elsewhere / "kept"
    kept.mkdir()
    (linked / "reports").rename(kept / "reports")
    (linked / "reports").symlink_to(kept / "reports")
    (linked / "a-b.parquet").rename(kept / "a-b.parquet")
    (linked / "a-b.parquet").symlink_to(kept / "a-b.parquet")

    away = write_night(elsewhere, date(2026, 1, 3), "a b")  # one that is a link itself
    (root / "2026-01-03").symlink_to(away)

    strange = [root / name for name in ("2026-01-04", "2026-01-05", "20260106", "2026-1-7", "x")]
    for folder in strange:  # no record, a broken one, and names that are no night's
        folder.mkdir()
        (folder / "index.html").write_text("mine")
    (root / "2026-01-05" / RECORD).write_text("{}")
    (root / "2026-01-08").write_text("a file")

    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    assert clear_nights(root, 1) == "2 older nights cleared but for their records"
    assert names_in(own) == {RECORD, "notes.md", "my.parquet", "link"}
    assert names_in(linked) == {RECORD, "reports", "a-b.parquet"}
    assert before == {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    assert all((folder / "index.html").is_file() for folder in strange)
    assert (root / "2026-01-08").is_file()


def test_a_night_that_cannot_be_cleared_is_told_and_the_others_are(tmp_path, monkeypatch):
    for day in (FIRST, SECOND, SECOND + timedelta(days=1)):
        write_night(tmp_path, day, "a")
    remove = shutil.rmtree

    def refused(path, *rest, **options):
        if FIRST.isoformat() in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        remove(path, *rest, **options)

    monkeypatch.setattr("fxlab.sweeper._results.shutil.rmtree", refused)
    words = clear_nights(tmp_path, 1)
    assert words.startswith("1 older nights cleared but for their records; 2026-01-31 could not be")
    assert "the next night tries again: [Errno 13] Permission denied" in words
    monkeypatch.undo()
    assert clear_nights(tmp_path, 1) == "1 older nights cleared but for their records"


def test_only_a_night_without_failures_clears_others(lab, plan, tmp_path):
    old = write_night(tmp_path, FIRST, "a b")
    failed = fxlab.nightly(plan[1:], out=tmp_path, lab=lab, night=SECOND, keep=1)
    assert failed.retention == "older nights are kept, for this one has failures"
    assert "; older nights are kept, for this one has failures; see " in str(failed)
    assert (old / "index.html").is_file()

    done = fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=SECOND, keep=1)
    assert "; 1 older nights cleared but for their records; see " in str(done)
    assert names_in(old) == {RECORD}
    assert {"index.html", "sma_cross.parquet"} <= names_in(done.index.parent)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert f'href="{FIRST}/index.html"' not in page
    assert f'href="{SECOND}/index.html"' in page
    assert fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=SECOND).retention == ""


@pytest.mark.parametrize("keep", [0, -1, 1.5, True, "al", "3"])
def test_keep_is_a_number_of_nights(keep, tmp_path):
    with pytest.raises(errors.InvalidParameter, match="is not a number of nights; give 1 or more"):
        fxlab.nightly([], out=tmp_path / "out", lab=object(), keep=keep)
    assert not (tmp_path / "out").exists()


def stored(lab, night, **options):
    """Return the rows of a night in the database, found by the page that they name."""
    found = lab.nights(limit=1_000, **options)
    return found.filter(page=str(night.index))


def test_a_night_is_in_the_database_once_however_often_it_ran(lab, group, nights):
    _, _, first, second, _ = nights
    kept = stored(lab, second)
    assert kept["night"].unique().to_list() == [SECOND]
    counts = dict(kept.group_by("sweep").len().iter_rows())
    assert counts == {"by <tag>": 6, "sma_cross": 3, "no such tag": 1}
    assert stored(lab, first).height == 10
    found, row = second.sweeps["by <tag>"], rows(second)[0]
    ranking = found.ranking()
    own = kept.filter(sweep="by <tag>").sort("rank")
    assert own["rank"].to_list() == [1, 2, 3, 4, 5, 6]
    assert own["figure"].to_list() == ranking["sharpe_per_period"].to_list()
    values = [json.loads(text) for text in own["parameters"]]
    assert [one["fast"] for one in values] == ranking["fast"].to_list()
    judged = found.overfitting().table
    odds = dict(judged.select("point", "deflated_sharpe").iter_rows())
    assert own["deflated_sharpe"].to_list() == [odds[point] for point in ranking["point"]]
    best = own.row(0, named=True)
    assert best["sessions"] == [f"{group}-{letter}" for letter in "cba"]
    assert (best["pbo"], best["tried"], best["state"]) == (row["pbo"], row["tried"], "done")
    assert own["change"].to_list() == ["same", *[None] * 5]
    assert best["sweep_ids"] == list(found.sweep_ids)
    prints = found.table.filter(point=ranking["point"][0])["fingerprint"].to_list()
    assert best["fingerprints"] == prints
    assert len(prints) == 3
    assert best["started"] < best["updated_at"]
    assert best["plan"] is None  # it has no file


def test_a_sweep_that_failed_is_in_the_database_without_a_rank(lab, nights):
    lost = stored(lab, nights[3], top=1).filter(sweep="no such tag").row(0, named=True)
    assert (lost["rank"], lost["state"], lost["figure"]) == (None, "failed", None)
    assert "no completed session has the tag" in lost["error"]


def test_nights_of_the_database_are_bounded_filtered_and_newest_first(lab, nights):
    assert stored(lab, nights[3], top=1).height == 3
    assert stored(lab, nights[3], text="SAME by").height == 1
    assert stored(lab, nights[3], text="2026-02-01").height == 10
    assert stored(lab, nights[2], text="2026-02-01").is_empty()
    assert lab.nights(limit=2).height == 2
    assert lab.nights(limit=0).is_empty()
    times = lab.nights(limit=1_000).select("night", "updated_at")  # a date may have many plans
    assert times.rows() == times.sort("night", "updated_at", descending=True).rows()
    with pytest.raises(errors.InvalidParameter, match="top=-1 is not a number of rows"):
        lab.nights(top=-1)


def test_a_night_run_again_leaves_no_row_of_what_it_said_before(lab, group, tmp_path):
    plan = tmp_path / "own.toml"
    text = (
        '[[sweep]]\ntag = "{}"\nstrategy = "sma_cross"\nparameters = {{ fast = {}, slow = 50 }}\n'
    )
    for tag, fast, found in (("none", 2, [None]), (group, [2, 3], [1, 2]), (group, 2, [1])):
        plan.write_text(text.format(tag, fast))
        night = fxlab.nightly(plan, out=tmp_path / "out", lab=lab, night=FIRST)
        kept = stored(lab, night)
        assert kept["rank"].to_list() == found
        assert set(kept["plan"]) == {"own.toml"}
    fxlab.nightly(plan, out=tmp_path / "out", lab=lab, night=SECOND, keep=1)
    assert not night.index.exists()
    assert stored(lab, night)["rank"].to_list() == [1]  # the rows stay


def test_a_night_that_was_stopped_is_in_the_database(lab, plan, tmp_path, monkeypatch):
    reports_raise(monkeypatch, errors.Cancelled("enough"))
    with pytest.raises(errors.Cancelled):
        fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=FIRST, top=1)
    page = tmp_path / FIRST.isoformat() / "index.html"
    assert lab.nights(limit=1_000).filter(page=str(page))["rank"].to_list() == [1, 2, 3]


def test_a_sweep_that_is_gone_has_one_row_without_a_rank(lab, plan, tmp_path):
    fxlab.nightly(plan[:2], out=tmp_path, lab=lab, night=FIRST)
    second = fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=SECOND)
    (lost,) = stored(lab, second).filter(change="gone").rows(named=True)
    assert (lost["sweep"], lost["state"], lost["rank"]) == ("by <tag>", "gone", None)
    assert (lost["strategy"], lost["figure"], lost["sessions"]) == ("sma_cross", None, [])
    assert lost["metric"] == "sharpe_per_period"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("by <tag>", [("by <tag>", "waiting", None), ("sma_cross", "waiting", None)]),
        ("sma_cross", [("by <tag>", "done", 1), ("sma_cross", "waiting", None)]),
    ],
)
def test_a_night_that_was_killed_has_what_it_had_found(
    lab, plan, tmp_path, monkeypatch, name, found
):
    class Killed(BaseException):
        """What no handler of a night takes for a failure of a sweep."""

    run = NightlySweep.run

    def killed(one, *given):
        if one.name == name:
            raise Killed
        return run(one, *given)

    monkeypatch.setattr(NightlySweep, "run", killed)
    with pytest.raises(Killed):
        fxlab.nightly(plan[:2], out=tmp_path, lab=lab, night=FIRST)
    page = tmp_path / FIRST.isoformat() / "index.html"
    assert page.is_file()
    stored = lab.nights(limit=1_000, top=1).filter(page=str(page)).sort("sweep")
    assert stored.select("sweep", "state", "rank").rows() == found
    assert read_nights(tmp_path)[FIRST].state == "died"


def test_rows_that_the_database_does_not_take_fail_the_night_and_no_sweep(
    lab, plan, tmp_path, monkeypatch
):
    def refuse(*_args):
        raise errors.WriteFailed("no <room>")

    monkeypatch.setattr("fxlab.batcher.nightly.save_night", refuse)
    night = fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=FIRST)
    assert rows(night)[0]["state"] == "done"
    assert night.failures == ["rows in the database: no <room>"]
    assert "; 1 other errors; see " in str(night)
    assert "rows in the database: no &lt;room&gt;" in night.index.read_text(encoding="utf-8")
    assert read_nights(tmp_path)[FIRST].state == "done"


SPLITS = {"train": "2m", "folds": 2, "mode": "anchored", "embargo": "5s"}


@pytest.fixture(scope="module")
def walked(lab, group, plan, tmp_path_factory):
    """Run a night with a sweep that walks forward, and one that does not."""
    sessions = [f"{group}-a", f"{group}-b"]
    first = {"sessions": sessions, "strategy": "sma_cross", "parameters": GRID, "splits": SPLITS,
             "metric": "total_return"}  # fmt: skip
    out = tmp_path_factory.mktemp("walked")
    return fxlab.nightly([first | {"name": "walked"}, plan[1]], out=out, lab=lab, night=FIRST)


def test_a_sweep_with_splits_walks_forward_over_each_session(lab, group, walked):
    assert walked.failures == []
    alone = {
        name: fxlab.walk_forward(
            lab.session(name), "sma_cross", {"fast": [2, 4], "slow": [10, 15, 20]},
            metric="total_return", **SPLITS,
        )
        for name in (f"{group}-a", f"{group}-b")
    }  # fmt: skip
    assert walked.walks.keys() == {"walked"}
    for name, walk in alone.items():
        assert walked.walks["walked"][name].table.equals(walk.table)
    pairs = pl.concat([walk.pairs for walk in alone.values()])
    row, bare = rows(walked)
    assert row["in_sample"] == pairs["in_sample"].mean()
    assert row["out_of_sample"] == pairs["out_of_sample"].mean()
    assert row["in_sample"] != row["out_of_sample"]
    assert row["windows"] == pairs.height == 4
    assert row["splits"] == "train 2m, folds 2, mode anchored, embargo 5s"
    assert (bare["splits"], bare["windows"], bare["in_sample"]) == (None, None, None)
    kept = stored(lab, walked).filter(sweep="walked")
    assert kept["out_of_sample"].to_list() == [row["out_of_sample"]] * 6
    assert kept["in_sample"].to_list() == [row["in_sample"]] * 6


def test_the_page_of_a_night_shows_its_walks(walked):
    page = walked.index.read_text(encoding="utf-8")
    row = rows(walked)[0]
    words = f"{row['in_sample']:.2%} in sample, {row['out_of_sample']:.2%} out of sample, 4 windows"
    assert words in page
    assert page.count(" out of sample, ") == 1  # the other sweep has none
    assert "Walk-forward: total_return in training" in page
    assert page.count("Plotly.newPlot(") == 3
    record = json.loads((walked.index.parent / RECORD).read_text(encoding="utf-8"))
    assert record["table"][0]["out_of_sample"] == row["out_of_sample"]


def test_trainings_of_a_walk_are_no_trials_and_splits_no_term(lab, group, tmp_path):
    one = {"sessions": [f"{group}-a"], "strategy": "sma_cross", "metric": "total_return"}
    one["parameters"] = {"fast": [7, 8], "slow": 71}
    before = fxlab.nightly([one], out=tmp_path, lab=lab, night=FIRST)
    after = fxlab.nightly([one | {"splits": SPLITS}], out=tmp_path, lab=lab, night=SECOND)
    again = fxlab.nightly([one], out=tmp_path, lab=lab, night=SECOND)
    assert rows(after)[0]["windows"] == 2
    assert rows(before)[0]["tried"] == rows(after)[0]["tried"] == rows(again)[0]["tried"]
    assert after.changes["change"].to_list() == ["same"]


def test_a_session_too_short_for_the_splits_fails_the_night_and_no_sweep(lab, group, tmp_path):
    one = {"sessions": [f"{group}-a"], "strategy": "sma_cross", "parameters": GRID}
    night = fxlab.nightly(
        [one | {"splits": {"train": "99h", "test": "1h"}}], out=tmp_path, lab=lab, night=FIRST
    )
    (line,) = night.failures
    assert line.startswith(f"walk-forward of sma_cross on {group}-a: train='99h', test='1h' do not")
    assert rows(night)[0]["state"] == "done"
    assert rows(night)[0]["windows"] is None
    assert "do not fit into the" in night.index.read_text(encoding="utf-8")


def test_a_walk_that_is_stopped_keeps_its_sweep(lab, group, tmp_path):
    one = {"sessions": [f"{group}-a"], "strategy": "sma_cross", "parameters": GRID}

    def stop(share, _words):
        if share > 0.6:
            raise KeyboardInterrupt

    with pytest.raises(errors.Cancelled, match="the night was stopped in its sweep 'sma_cross'"):
        fxlab.nightly([one | {"splits": SPLITS}], out=tmp_path, lab=lab, night=FIRST, progress=stop)
    record = json.loads((tmp_path / FIRST.isoformat() / RECORD).read_text(encoding="utf-8"))
    assert record["state"] == "stopped"
    assert [(row["state"], row["points"]) for row in record["table"]] == [("done", 6)]


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"trian": "1h", "folds": 2}, "splits has no 'trian'; did you mean 'train'"),
        ({"folds": 2}, "splits has no train; write splits = "),
        ({"train": "1h"}, "neither folds nor test is given"),
        ({"train": "1h", "folds": 0}, "folds=0"),
        ({"train": "1h", "folds": "5"}, "folds='5'"),
        ({"train": "0s", "folds": 2}, "train="),
        ({"train": "1h", "test": "soon"}, "test='soon'"),
        ({"train": "1h", "folds": 2, "mode": "anchord"}, "did you mean 'anchored'"),
        ({"train": "1h", "folds": 2, "embargo": "-1h"}, "embargo="),
        ("6h", "splits='6h' is no mapping; give one, such as { train = '6h', test = '1h' }"),
    ],
)
def test_splits_that_are_none_are_refused_before_the_night(splits, words, tmp_path):
    one = {"tag": "x", "strategy": "sma_cross", "parameters": GRID, "splits": splits}
    with pytest.raises(errors.InvalidInput, match=re.escape(words)):
        fxlab.nightly([one], out=tmp_path / "out", lab=object())
    assert not (tmp_path / "out").exists()


def test_a_dry_run_shows_sessions_points_and_splits_and_writes_nothing(lab, group, plan, tmp_path):
    whole = [plan[0] | {"splits": SPLITS}, *plan[1:]]
    night = fxlab.nightly(whole, out=tmp_path / "out", lab=lab, night=FIRST, dry_run=True)
    first, second, third = rows(night)
    assert first["sessions"] == [f"{group}-{letter}" for letter in "cba"]
    assert (first["state"], first["points"]) == ("waiting", 18)
    assert first["splits"] == "train 2m, folds 2, mode anchored, embargo 5s"
    assert (second["points"], second["splits"]) == (3, None)
    assert third["state"] == "failed"
    (line,) = night.failures
    assert line.startswith("no such tag: no completed session has the tag")
    assert not (tmp_path / "out").exists()


def hearing(tmp_path, *lines):
    """Return a command that writes down what it reads, and the file."""
    script, heard = tmp_path / "hook.py", tmp_path / "heard.txt"
    source = ["import pathlib, sys", f"pathlib.Path({str(heard)!r}).write_text(sys.stdin.read())"]
    script.write_text("\n".join([*source, *lines]))
    return shlex.join([sys.executable, str(script)]), heard


def test_a_failure_is_told_to_the_command_of_plan_or_keyword(lab, plan, tmp_path):
    command, heard = hearing(tmp_path)
    whole = {"night": {"on_failure": command}, "sweep": plan[1:2]}
    night = fxlab.nightly(whole, out=tmp_path / "out", lab=lab, night=FIRST)
    assert night.failures == []
    assert not heard.exists()
    fxlab.nightly(
        whole | {"sweep": plan[2:]}, out=tmp_path / "out", lab=lab, night=FIRST, on_failure=""
    )
    assert not heard.exists()
    night = fxlab.nightly(whole | {"sweep": plan[2:]}, out=tmp_path / "out", lab=lab, night=FIRST)
    assert heard.read_text(encoding="utf-8") == "\n".join([str(night), *night.failures])
    fxlab.nightly(whole, out=tmp_path / "dry", lab=lab, dry_run=True)
    with pytest.raises(errors.InvalidInput):
        fxlab.nightly([{}], out=tmp_path / "out", lab=lab, on_failure=command)
    assert heard.read_text(encoding="utf-8").startswith("the night did not end: InvalidInput: ")


def test_a_command_that_fails_is_a_failure_of_its_own(lab, plan, tmp_path):
    command, _ = hearing(tmp_path, "sys.exit('no mail')")
    night = fxlab.nightly(plan[2:], out=tmp_path, lab=lab, night=FIRST, on_failure=command)
    assert night.failures[1:] == ["on_failure ended with code 1: no mail"]
    with pytest.raises(errors.InvalidInput) as caught:
        fxlab.nightly([{}], out=tmp_path, lab=lab, on_failure=command)
    assert caught.value.__notes__ == ["on_failure ended with code 1: no mail"]


def test_a_night_whose_page_cannot_be_written_ends_as_failed(lab, plan, tmp_path, monkeypatch):
    def surprise(*_args, **_options):
        raise ZeroDivisionError("by <what>?")

    monkeypatch.setattr("fxlab.batcher.nightly.render_night", surprise)
    night = fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=FIRST)
    folder = tmp_path / FIRST.isoformat()
    (line,) = night.failures
    assert line.startswith(f"page {folder}/index.html: ZeroDivisionError: by <what>?; the trace")
    assert "surprise" in (folder / "night page.error.txt").read_text(encoding="utf-8")
    assert rows(night)[0]["state"] == "done"
    record = read_nights(tmp_path)[FIRST]
    assert (record.state, record.error) == ("failed", line)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "failed: page " in page
    assert "by &lt;what&gt;?" in page
    assert stored(lab, night)["rank"].to_list() == [1, 2, 3]

    monkeypatch.undo()
    night = fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=FIRST)
    assert night.failures == []
    assert read_nights(tmp_path)[FIRST].state == "done"
    assert "failed: page" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_surprise_that_ends_a_night_is_in_its_record(lab, plan, tmp_path, monkeypatch):
    def surprise(*_args):
        raise ZeroDivisionError("by what?")

    monkeypatch.setattr("fxlab.batcher.nightly.compare_nights", surprise)
    with pytest.raises(ZeroDivisionError):
        fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=FIRST)
    record = read_nights(tmp_path)[FIRST]
    assert (record.state, record.error) == ("failed", "ZeroDivisionError: by what?")
    monkeypatch.undo()
    night = fxlab.nightly(plan[1:2], out=tmp_path, lab=lab, night=SECOND)
    assert night.changes.row(0, named=True)["note"] == "2026-01-31 failed before it"
