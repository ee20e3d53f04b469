"""A batch is many backtests in notebooks: the same bits, an index, and nothing run twice."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import batch_strategies
import nbformat
import polars as pl
import psutil
import pytest
from markets import recorded_walk

import fxlab
from fxlab import errors
from fxlab.backtester.strategy import strategy
from fxlab.batcher import _jobs, runner
from fxlab.batcher.batch import SHOWN, checked

EXECUTION = {"taker_bps": 0.3, "latency": "uniform:1ms,9ms,seed=4", "rebalance": 0.25}

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def session(lab, unique):
    walks = [recorded_walk(3_000, seed, symbol=name) for seed, name in enumerate(("BTC", "ETH"))]
    made = unique("batch")
    lab.import_frames({"prices": pl.concat(walks)}, session_id=made)
    return lab.session(made)


@pytest.fixture(scope="module")
def asked(session):
    """Return four jobs: two that work, one that raises, one that sees the future."""
    start = session.started + timedelta(seconds=7, microseconds=1)
    whole = {"session": session.id, "execution": EXECUTION, "capital": 1_234.5}
    return [
        whole
        | {
            "strategy": "sma_cross",
            "parameters": {"fast": 4, "slow": 15},
            "symbols": "ETH",
            "start": start,
            "return_interval": "30s",
            "days_per_year": 260,
            "name": "my <first> job",
        },
        whole | {"strategy": "batch_strategies:steady", "parameters": {"window": 9}},
        whole | {"strategy": batch_strategies.breaks},
        whole | {"strategy": "batch_strategies:peeks"},
    ]


@pytest.fixture(scope="module")
def ran(lab, asked, tmp_path_factory):
    """Run the batch once, and return it with all that was told on the way."""
    told = []
    out = tmp_path_factory.mktemp("batch") / "new"
    made = fxlab.batch(
        asked,
        out=out,
        lab=lab,
        workers=2,
        progress=lambda *words: told.append(words),
    )
    shutil.copy(made.index, out.parent / "first.html")  # other tests run this batch again
    return made, told, out


def rows_of(batch):
    return batch.table.rows(named=True)


def test_every_job_ends_in_its_state(ran):
    batch, _, _ = ran
    assert batch.table["state"].to_list() == ["done", "done", "failed", "failed"]
    assert batch.failed.height == 2
    assert batch.counts == "2 done, 2 failed"
    assert "2 done, 2 failed" in str(batch)
    assert "my &lt;first&gt; job" in batch._repr_html_()


def test_a_job_is_the_backtest_bit_by_bit(ran, lab, session, asked):
    row = rows_of(ran[0])[0]
    given = {name: asked[0][name] for name in ("symbols", "start", "capital", "return_interval")}
    alone = fxlab.backtest(
        session,
        "sma_cross",
        asked[0]["parameters"],
        **given,
        days_per_year=260,
        execution=fxlab.Execution(**EXECUTION),
    )
    saved = lab.run(row["run_id"])
    assert saved["fingerprint"] == alone.fingerprint
    plain = {name: None if math.isnan(value) else value for name, value in alone.metrics.items()}
    assert saved["metrics"] == plain
    assert lab.run_fills(row["run_id"])["price"].to_list() == (
        alone.fills.sort("timestamp", maintain_order=True)["price"].to_list()
    )
    assert {name: row[name] for name in SHOWN} == {name: alone.metrics[name] for name in SHOWN}
    for done in rows_of(ran[0])[:2]:
        again = lab.reproduce(done["run_id"])
        assert (again.difference, again.same_fingerprint) == ("", True)


def test_a_notebook_a_report_and_a_saved_run_for_each(ran):
    for row in rows_of(ran[0])[:2]:
        notebook = nbformat.read(row["notebook"], as_version=4)
        assert not [out for cell in notebook.cells for out in cell.get("outputs", [])
                    if out.output_type == "error"]  # fmt: skip
        assert row["run_id"] in Path(row["report"]).read_text(encoding="utf-8")
        assert Path(row["notebook"]).stat().st_size < 400_000
    assert list(ran[2].rglob("*.js")) == []  # each report holds the script


def test_the_look_ahead_check_stands_in_the_notebook(ran):
    text = Path(rows_of(ran[0])[0]["notebook"]).read_text(encoding="utf-8")
    assert "saw no future in" in text
    failed = rows_of(ran[0])[3]
    assert failed["error"].startswith("LookaheadFound: ")
    assert failed["run_id"] is None


def test_a_failed_job_keeps_its_notebook_with_the_error(ran):
    row = rows_of(ran[0])[2]
    assert "ArithmeticError: no <luck> today" in row["error"]
    notebook = nbformat.read(row["notebook"], as_version=4)
    assert notebook.metadata.papermill.exception
    assert "batch_strategies:breaks" in json.dumps(notebook.cells)


def test_the_index_names_links_and_explains(ran):
    batch, _, out = ran
    page = (out.parent / "first.html").read_text(encoding="utf-8")
    assert batch.index == out / "index.html"
    for row in rows_of(batch):
        for kind in ("notebook", "report"):
            if row[kind]:
                link = os.path.relpath(row[kind], out)
                assert f'href="{link}"' in page
                assert (out / link).is_file()
        assert (row["run_id"] or row["state"]) in page
    assert "my &lt;first&gt; job" in page
    assert "no &lt;luck&gt; today" in page
    assert page.count("<svg") == 2
    assert "<script" not in page


def test_progress_tells_jobs_and_time(ran):
    told = ran[1]
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert told[-1] == (1.0, "4 of 4 jobs: 2 done, 2 failed")
    assert any(" left" in words for _, words in told)
    assert any("2 running" in words for _, words in told)


def test_a_job_leaves_a_record_of_how_it_ended(ran, session):
    for row in rows_of(ran[0]):
        record = json.loads((Path(row["folder"]) / "job.json").read_text(encoding="utf-8"))
        assert record["state"] == row["state"]
        assert record["versions"]["fxlab"] == fxlab.__version__
        assert {"python", "numba", "numpy", "polars"} <= record["versions"].keys()
        began, ended = (datetime.fromisoformat(record[name]) for name in ("started", "ended"))
        assert (ended - began).total_seconds() == pytest.approx(row["seconds"], abs=1e-3)
        assert ended.tzinfo is not None
        assert record["session"] == row["session"]
        assert ("fingerprint" in record) == (row["state"] == "done")
        data = record["data"]
        assert (data["id"], data["is_final"], data["prices_count"]) == (session.id, True, "6000")
        assert data["updated_at"] == str(session.updated_at)
        assert len(data["fingerprint"]) == 64
    record = json.loads((Path(rows_of(ran[0])[0]["folder"]) / "job.json").read_text())
    assert record["strategy"] == "sma_cross"
    assert (record["parameters"]["fast"], record["parameters"]["slow"]) == (4, 15)


def test_the_record_of_a_job_tells_one_state_of_its_data_from_another(
    lab, unique, tmp_path, monkeypatch
):
    def failed(tasks, *_rest):
        tasks[0].folder.mkdir(parents=True, exist_ok=True)
        yield 0, runner.NotebookOutcome("failed", "no", 1.0)

    def noted():
        one = {"session": name, "strategy": "sma_cross"}
        (row,) = rows_of(fxlab.batch([one], out=tmp_path, lab=lab))
        return json.loads((Path(row["folder"]) / "job.json").read_text(encoding="utf-8"))["data"]

    monkeypatch.setattr("fxlab.batcher.batch.run_all", failed)
    name = unique("revised")
    ticks = recorded_walk(200, 1, symbol="BTC")
    lab.import_frames({"prices": ticks}, session_id=name)
    first = noted()
    assert noted() == first
    lab.delete(name)
    lab.purge()
    lab.import_frames({"prices": ticks.tail(100)}, session_id=name)
    assert (first["prices_count"], noted()["prices_count"]) == ("200", "100")
    assert noted()["fingerprint"] != first["fingerprint"]


def test_a_dry_run_shows_what_would_be_run_and_writes_nothing(ran, lab, asked, tmp_path):
    batch, _, out = ran
    new = fxlab.batch(asked, out=tmp_path / "new", lab=lab, dry_run=True)
    assert new.table["state"].to_list() == ["waiting"] * 4
    folders = new.table["folder"].to_list()
    assert [Path(one).parent for one in folders] == [tmp_path / "new"] * 4
    assert not (tmp_path / "new").exists()

    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    found = fxlab.batch(asked, out=out, lab=lab, dry_run=True)
    assert found.table["state"].to_list() == ["done", "done", "waiting", "waiting"]
    assert found.counts == "2 done, 2 waiting, 2 of them from before"
    assert found.table["folder"].to_list() == batch.table["folder"].to_list()
    assert fxlab.batch(asked, out=out, lab=lab, dry_run=True, again=True).counts == "4 waiting"
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(errors.InvalidInput, match="job 1: no session named"):
        fxlab.batch([{"session": "nobody", "strategy": "sma_cross"}], out=out, lab=lab,
                    dry_run=True)  # fmt: skip


def test_what_is_done_is_not_run_again(ran, lab, asked, monkeypatch):
    batch, _, out = ran
    started = []

    def note(orders, *_rest):
        started.extend(order.parameters["strategy"] for order in orders)
        return iter(())

    monkeypatch.setattr("fxlab.batcher.batch.run_all", note)
    found = fxlab.batch(asked, out=out, lab=lab)
    assert started == ["batch_strategies:breaks", "batch_strategies:peeks"]
    assert found.table["from_before"].to_list() == [True, True, False, False]
    assert found.table["run_id"].to_list() == batch.table["run_id"].to_list()
    assert "2 of them from before" in found.counts
    assert found.table["state"].to_list()[2:] == ["waiting", "waiting"]

    started.clear()
    fxlab.batch(asked[:2], out=out, lab=lab, again=True)
    assert len(started) == 2
    started.clear()
    changed = [asked[0] | {"execution": EXECUTION | {"taker_bps": 0.31}}, asked[1]]
    fxlab.batch(changed, out=out, lab=lab)
    assert started == ["sma_cross"]
    started.clear()
    Path(rows_of(batch)[1]["report"]).rename(out / "elsewhere.html")
    fxlab.batch(asked[:2], out=out, lab=lab)
    (out / "elsewhere.html").rename(rows_of(batch)[1]["report"])
    assert started == ["batch_strategies:steady"]


def test_a_recording_that_still_grows_is_always_run(session, lab, monkeypatch, ran, asked):
    import dataclasses

    growing = dataclasses.replace(session, status="collecting")
    monkeypatch.setattr(lab, "session", lambda _: growing)
    assert [one.is_final for one in checked(asked[:1], lab)] == [False]


def test_mistakes_are_told_all_at_once_before_anything_runs(lab, session, tmp_path):
    whole = {"session": session.id, "strategy": "sma_cross"}
    bad = [
        whole | {"parameters": {"fst": 3}},
        whole,
        whole | {"strategy": "sma_cros"},
        whole | {"session": f"{session.id}x"},
        whole | {"execution": {"takr_bps": 1}},
        whole | {"capitl": 5},
        {"strategy": "sma_cross"},
        whole,
        whole | {"execution": {"fill": "book"}},
    ]
    with pytest.raises(errors.InvalidInput) as caught:
        fxlab.batch(bad, out=tmp_path / "out", lab=lab)
    text = str(caught.value)
    for words in (
        "8 jobs are not possible",
        "job 1: sma_cross has no parameter 'fst'; did you mean 'fast'?",
        "job 3: no strategy named 'sma_cros'; did you mean 'sma_cross'",
        "job 4: no session named",
        "job 5: an execution has no 'takr_bps'; did you mean 'taker_bps'",
        "job 6: a job has no 'capitl'; did you mean 'capital'",
        "and 3 more",
    ):
        assert words in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ({"strategy": "sma_cross"}, "has no session"),
        ({"session": "x"}, "has no strategy"),
        ("sma_cross", "is not a job"),
        ({"session": 5, "strategy": "sma_cross"}, "session=5 is not a text"),
        ({"session": "x", "strategy": "sma_cross", "name": True}, "name=True is not a text"),
        ({"session": "x", "strategy": "sma_cross", "symbols": [1]}, "is not a list of texts"),
        ({"session": "x", "strategy": "sma_cross", "execution": "x"}, "names no assumption"),
        ({"session": "x", "strategy": "sma_cross", "capital": math.nan}, "capital=nan is not"),
    ],
)
def test_half_a_job_is_refused(job, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        _jobs.BatchJob.of(job)


def test_parameters_of_all_jobs_come_before_those_of_each(lab, session):
    whole = {"session": session.id, "strategy": "sma_cross"}
    given = [whole | {"parameters": {"fast": 3, "slow": 30}}, _jobs.BatchJob(**whole)]
    ready = checked(given, lab, {"fast": 7})
    slow = strategy.get("sma_cross").parameters["slow"].default
    found = [(one.run.parameters["fast"], one.run.parameters["slow"]) for one in ready]
    assert found == [(7, 30), (7, slow)]
    assert ready[0].key == checked([whole | {"parameters": {"fast": 7, "slow": 30}}], lab)[0].key
    with pytest.raises(errors.InvalidParameter, match=r"parameters=\[1\] are not named"):
        checked(given, lab, [1])
    with pytest.raises(errors.InvalidInput, match="job 1: parameters=5 are not named"):
        checked([whole | {"parameters": 5}], lab, {"fast": 7})


def test_the_same_job_twice_is_refused(lab, session):
    one = {"session": session.id, "strategy": "sma_cross"}
    with pytest.raises(errors.InvalidInput, match=r"job 2: it is the same as job 1, sma_cross\("):
        checked([one, one | {"parameters": {"fast": 50}}], lab)


def test_a_strategy_of_this_process_only_is_refused(monkeypatch):
    def mine(*, size: float = 1.0) -> fxlab.Signals:
        """Hold."""
        return fxlab.Signals(target=pl.lit(size))

    mine.__module__ = "__main__"
    monkeypatch.setitem(strategy._REGISTRY, "mine", strategy.get(mine))
    for given in (mine, "mine"):
        with pytest.raises(errors.InvalidParameter, match="put it into a file"):
            _jobs.importable(given)
    assert _jobs.importable(batch_strategies.steady) == "batch_strategies:steady"
    assert _jobs.importable("sma_cross") == "sma_cross"


def test_a_strategy_registered_from_a_file_goes_by_its_path(monkeypatch):
    registered = strategy.Strategy("other name", batch_strategies.steady)
    monkeypatch.setitem(strategy._REGISTRY, "other name", registered)
    assert _jobs.importable("other name") == "batch_strategies:steady"


# ---- files -----------------------------------------------------------------------------------


def test_a_file_has_shared_values_and_jobs(tmp_path):
    path = tmp_path / "jobs.toml"
    path.write_text(
        """
        [defaults]
        session = "one"
        execution = { taker_bps = 1, latency = "5ms" }
        [[job]]
        strategy = "sma_cross"
        parameters = { fast = 3 }
        [[job]]
        session = "two"
        execution = { taker_bps = 2 }
        """
    )
    assert _jobs.load_jobs(path, "job") == [
        {
            "session": "one",
            "execution": {"taker_bps": 1, "latency": "5ms"},
            "strategy": "sma_cross",
            "parameters": {"fast": 3},
        },
        {"session": "two", "execution": {"taker_bps": 2, "latency": "5ms"}},
    ]


def test_values_keep_their_types_in_json_as_in_toml(tmp_path):
    as_toml, as_json = tmp_path / "jobs.toml", tmp_path / "jobs.JSON"
    as_toml.write_text(
        """
        [defaults]
        session = "1"
        [[job]]
        strategy = "x"
        parameters = { whole = 5, real = 5.0, tiny = 1e-3, flag = true, word = "true" }
        """
    )
    own = {"strategy": "x", "parameters": {"whole": 5, "real": 5.0, "tiny": 1e-3, "flag": True,
                                           "word": "true"}}  # fmt: skip
    as_json.write_text(json.dumps({"defaults": {"session": "1"}, "job": [own]}))
    found = [_jobs.load_jobs(path, "job") for path in (as_toml, as_json)]
    assert repr(found[0]) == repr(found[1])
    as_json.write_text(json.dumps([own]))
    assert _jobs.load_jobs(as_json, "job") == [own]


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("toml", "[[jobs]]\n", r"the plan has no 'jobs'; did you mean 'job'"),
        ("toml", "[job]\nstrategy = 'x'\n", r"\[\[job\]\] above each job"),
        ("toml", "[defaults]\n", "nothing to run"),
        ("toml", "x = \n", "is not a TOML file"),
        ("json", '{"job": [{"capital": NaN}]}', "is not a JSON file: NaN is no JSON value"),
        ("json", '{"job": [{"capital": -Infinity}]}', "-Infinity is no JSON value; leave it out"),
        ("json", '{"job": [{"capital": 1e999}]}', "1e999 is no JSON value; leave it out"),
        ("json", '{"job": [{"a": 1, "a": 2}]}', "'a' is there twice"),
        ("json", '{"job": [', "is not a JSON file: "),
        ("json", "[" * 100_000, "is not a JSON file: "),
        ("json", "5", r'holds no job; write {"job": \[{...}\]}'),
        ("json", "[]", "nothing to run"),
        ("json", '{"jobs": []}', "did you mean 'job'"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(tmp_path, kind, text, words):
    path = tmp_path / f"jobs.{kind}"
    path.write_text(text)
    with pytest.raises(errors.InvalidInput, match=words):
        _jobs.load_jobs(path, "job")


def test_a_parameter_is_a_finite_value_of_its_type(lab, session):
    """A saved run could not hold others: it would be reproduced with something else."""
    whole = {"session": session.id, "strategy": "batch_strategies:above"}
    for value in (math.nan, math.inf, -math.inf, True, date(2026, 1, 1), "1", None):
        with pytest.raises(errors.InvalidInput, match=re.escape(f"level={value!r} is not a")):
            checked([whole | {"parameters": {"level": value}}], lab)
    for value in (1, 1.5, -1e300):
        (ready,) = checked([whole | {"parameters": {"level": value}}], lab)
        given = ready.notebook_parameters(check_lookahead=False, out="")["parameters"]["level"]
        assert (given, type(given)) == (value, float)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(errors.InvalidInput, match=r"none\.toml cannot be read"):
        fxlab.batch(tmp_path / "none.toml", out=tmp_path)


# ---- notebooks -------------------------------------------------------------------------------


def write_notebook(path, *sources):
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    cells[0].metadata.tags = ["parameters"]
    made = nbformat.v4.new_notebook(cells=cells)
    made.metadata.kernelspec = {"name": "python3", "display_name": "x", "language": "python"}
    made.metadata.language_info = {"name": "python"}
    nbformat.write(made, path)
    return path


def test_a_notebook_that_takes_other_parameters_is_refused(lab, session, tmp_path):
    path = write_notebook(tmp_path / "own.ipynb", "session: str = ''  # a session")
    one = {"session": session.id, "strategy": "sma_cross"}
    with pytest.raises(errors.InvalidParameter, match=r"of own.ipynb has no 'session_id'; did you"):
        fxlab.batch([one], out=tmp_path / "out", lab=lab, notebook=path)


@pytest.mark.parametrize(
    ("line", "value", "words"),
    [
        ("x: int = 5", "5", "x='5' is a text, and the parameters cell of own.ipynb declares a num"),
        ("x = 1_000.0", "5", r"declares a number; declare it there as x: str, as the shipped"),
        ("x: str = ''", 5, "x=5 is a number, and .* declares a text; declare it there as x: int"),
        ("x: bool = True", "true", "x='true' is a text, and .* declares true or false"),
        ("x = False", 1, "x=1 is a number, and .* declares true or false"),
        ("x: list[str] = []", "ALL", "x='ALL' is a text, and .* declares a list"),
        ("x: dict = {}", ["a"], "is a list, and .* declares a dict"),
        ("x: Mapping = None", 5, "declares a dict"),
        ("x = 'y'  # type: int", "y", "x='y' is a text, and .* declares a number"),
        ("x: str = 'y'", True, "x=True is true or false, and .* declares a text"),
    ],
)
def test_a_value_of_another_kind_than_declared_is_refused(tmp_path, line, value, words):
    path = write_notebook(tmp_path / "own.ipynb", line)
    with pytest.raises(errors.InvalidParameter, match=words):
        runner.check_parameters(path, {"x": value})


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("x: float = 1.0", 5),
        ("x: int = 1", 1.5),
        ("x = 5", 1.5),
        ("x: int = 1", True),
        ("x = None", "text"),
        ("x: str = None", None),
        ("x: Optional[float] = None", 5.0),
        ("x: Path = 5", "a"),
        ("x = made_of(5)", "a"),
        ("x: list = ()", ("a",)),
        ("x: tuple[str, int] = ()", ["a"]),
        ("x = {'a': 1}", {}),
        ("x: float = 1.0", math.nan),
        ("x: str = ''", date(2026, 1, 1)),
    ],
)
def test_a_value_that_would_run_is_not_refused(tmp_path, line, value):
    runner.check_parameters(write_notebook(tmp_path / "own.ipynb", line), {"x": value})


def test_a_notebook_that_declares_another_kind_is_refused_before_a_kernel(lab, session, tmp_path):
    shipped = nbformat.read(runner.find("backtest"), as_version=4)
    (cell,) = [one for one in shipped.cells if "parameters" in one.metadata.get("tags", [])]
    assert "capital: float = 10_000.0" in cell.source
    cell.source = cell.source.replace("capital: float = 10_000.0", 'capital: str = "10k"')
    nbformat.write(shipped, tmp_path / "own.ipynb")
    one = {"session": session.id, "strategy": "sma_cross", "capital": 50}
    with pytest.raises(errors.InvalidParameter, match=r"capital=50.* is a number, and .*own.ipynb"):
        fxlab.batch([one], out=tmp_path / "out", lab=lab, notebook=tmp_path / "own.ipynb")
    assert not (tmp_path / "out").exists()


def test_there_is_a_shipped_notebook_and_no_other(tmp_path):
    assert runner.find("backtest").name == "backtest.ipynb"
    for name in ("nothing", "../batch/backtest", tmp_path / "no.ipynb"):
        with pytest.raises(errors.InvalidInput, match="there is no notebook"):
            runner.find(name)


def order(tmp_path, *sources, **parameters):
    path = write_notebook(tmp_path / "in.ipynb", "x: int = 1  # a number", *sources)
    return runner.NotebookTask(path, parameters, tmp_path / "made")


def test_the_notebook_of_a_sweep_runs_as_those_of_a_batch_do(lab, session, tmp_path):
    given = {"session_id": session.id, "grid": {"fast": [3, 5], "slow": [11, 21]},
             "metric": "total_return", "execution": {"taker_bps": 1},
             "return_interval": "1s"}  # fmt: skip
    ways = [
        {"out": str(tmp_path / "table")},
        {"grid": {"fst": [3]}},
        {"execution": {"takr_bps": 1}},
    ]
    path = runner.find("sweep")
    runner.check_parameters(path, given)
    tasks = [
        runner.NotebookTask(path, given | more, tmp_path / str(number))
        for number, more in enumerate(ways)
    ]
    environment = runner.environment_for(lab.settings.environment())
    ended = dict(runner.run_all(tasks, 1, environment, lambda _: None))
    assert [ended[number].state for number in range(3)] == ["done", "failed", "failed"]
    assert "did you mean 'fast'" in ended[1].error
    assert "did you mean 'taker_bps'" in ended[2].error
    table = pl.read_parquet(tmp_path / "table" / "sweep.parquet")
    alone = fxlab.sweep(
        session, "sma_cross", given["grid"], metric="total_return", return_interval="1s",
        execution=fxlab.Execution(taker_bps=1),
    )  # fmt: skip
    assert table.equals(alone.table)
    text = (tmp_path / "0" / runner.NOTEBOOK).read_text(encoding="utf-8")
    assert "application/vnd.plotly.v1+json" in text


def test_a_kernel_that_is_lost_is_told_apart(tmp_path):
    orders = [order(tmp_path, "import os; os._exit(5)")]
    orders[0].folder.mkdir()
    stale = orders[0].folder / runner.OUTPUTS
    stale.write_text("{}")
    ((_, ended),) = runner.run_all(orders, 1, {}, lambda _: None)
    assert ended.state == "died"
    assert "the kernel died" in ended.error
    assert (tmp_path / "made" / runner.NOTEBOOK).is_file()
    assert not stale.exists()


def test_a_process_that_is_lost_costs_its_notebook_only(tmp_path):
    tasks = []
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
        tasks.append(order(tmp_path / name, "import os; x and os.kill(os.getppid(), 9)"))
    tasks[1] = replace(tasks[1], parameters={"x": 0})
    (_, lost), (_, whole) = runner.run_all(tasks, 1, {}, lambda _: None)
    assert (lost.state, whole.state) == ("died", "done")
    assert "its process ended with code -9; see log.txt" in lost.error
    assert not (tmp_path / "killed" / "made" / runner.NOTEBOOK).exists()


def test_what_takes_too_long_is_ended_and_the_others_go_on(tmp_path):
    sign = tmp_path / "pid"
    sources = {
        "slow": f"import os, time\nopen({str(sign)!r}, 'w').write(str(os.getpid()))\n"
                "time.sleep(600)",
        "quick": "x",
    }  # fmt: skip
    tasks = []
    for name, source in sources.items():
        (tmp_path / name).mkdir()
        tasks.append(order(tmp_path / name, source))

    class AnHourLater:
        """A clock that jumps once the first notebook runs."""

        def monotonic(self):
            return time.monotonic() + (3_600 if sign.exists() and sign.read_text() else 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "time", AnHourLater())
        ended = dict(runner.run_all(tasks, 1, {}, lambda _: None, 1_800))
    assert (ended[0].state, ended[1].state) == ("timeout", "done")
    assert ended[0].error == "it took longer than 1800 seconds and was ended; see log.txt"
    assert ended[0].seconds > 1_800
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(sign.read_text())).wait(120)
    assert not (tasks[0].folder / runner.NOTEBOOK).exists()


def test_the_record_names_the_commit_of_the_working_directory(lab, session, tmp_path, monkeypatch):
    def git(*words):
        own = ["-c", "user.name=x", "-c", "user.email=x@example.com", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *own, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def failed(tasks, *_rest):
        tasks[0].folder.mkdir(parents=True, exist_ok=True)
        yield 0, runner.NotebookOutcome("failed", "no", 1.0)

    def commit():
        one = {"session": session.id, "strategy": "sma_cross"}
        (row,) = rows_of(fxlab.batch([one], out=tmp_path / "out", lab=lab))
        return json.loads((Path(row["folder"]) / "job.json").read_text())["commit"]

    monkeypatch.setattr("fxlab.batcher.batch.run_all", failed)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    assert commit() is None
    (folder / "idea.py").write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    git("tag", "-am", "a tag", "v1")
    head = git("rev-parse", "HEAD")
    assert commit() == head
    (folder / "idea.py").write_text("2")
    assert commit() == f"{head}-dirty"
    monkeypatch.setenv("PATH", "")
    assert commit() is None


def test_a_timeout_is_a_failure_and_is_run_again(lab, asked, tmp_path, monkeypatch):
    given = []

    def late(tasks, _workers, _environment, _tick, limit):
        given.append((len(tasks), limit))
        tasks[0].folder.mkdir(parents=True, exist_ok=True)
        yield 0, runner.NotebookOutcome("timeout", "too <long>", 9.0)

    monkeypatch.setattr("fxlab.batcher.batch.run_all", late)
    for _ in range(2):
        found = fxlab.batch(asked[:1], out=tmp_path, lab=lab, timeout="1h30m")
        assert found.failed["state"].to_list() == ["timeout"]
        assert found.counts == "1 timeout"
    assert "too &lt;long&gt;" in found.index.read_text(encoding="utf-8")
    assert given == [(1, 5_400.0)] * 2


@pytest.mark.parametrize("timeout", [0, -1, "soon", True, math.nan, math.inf])
def test_a_timeout_is_a_duration(timeout, tmp_path):
    one = {"session": "x", "strategy": "sma_cross"}
    with pytest.raises(errors.InvalidParameter, match=r"^timeout="):
        fxlab.batch([one], out=tmp_path / "out", lab=object(), timeout=timeout)
    assert not (tmp_path / "out").exists()


def test_a_process_that_cannot_start_is_told_and_leaves_a_folder(tmp_path):
    tasks = [order(tmp_path)]
    ((_, lost),) = runner.run_all(tasks, 1, {"PYTHONHOME": str(tmp_path)}, lambda _: None)
    assert lost.state == "died"
    assert tasks[0].folder.is_dir()


def test_nothing_outlives_a_batch_that_is_stopped(tmp_path):
    sign = tmp_path / "pid"
    source = f"import os, time\nopen({str(sign)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"

    def stop(_running):
        if sign.exists() and sign.read_text():
            raise errors.Cancelled("enough")

    with pytest.raises(errors.Cancelled, match="enough"):
        list(runner.run_all([order(tmp_path, source)], 1, {}, stop))
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(sign.read_text())).wait(120)
    assert not (tmp_path / "made" / runner.NOTEBOOK).exists()


def test_a_cancelled_batch_says_how_far_it_came(lab, asked, tmp_path, monkeypatch):
    def first_only(orders, *_rest):
        orders[0].folder.mkdir(parents=True)
        yield 0, runner.NotebookOutcome("failed", "no", 1.0)
        raise KeyboardInterrupt

    monkeypatch.setattr("fxlab.batcher.batch.run_all", first_only)
    with pytest.raises(errors.Cancelled, match=r"after 1 of 4 jobs: 1 failed; .* goes on"):
        fxlab.batch(asked, out=tmp_path, lab=lab)
    assert "waiting" in (tmp_path / "index.html").read_text()


def test_one_batch_at_a_time_writes_into_a_folder(lab, asked, tmp_path, monkeypatch):
    from fxlab.batcher.batch import only_one

    with only_one(tmp_path), pytest.raises(errors.InvalidInput, match="another run writes into"):
        fxlab.batch(asked, out=tmp_path, lab=lab)


def test_another_process_finds_the_same_server_and_modules(lab):
    found = runner.environment_for(lab.settings.environment())
    assert found["FXLAB_HOME"] == str(lab.settings.home)
    assert str(SUPPORT) in found["PYTHONPATH"].split(os.pathsep)
    assert not [p for p in found["PYTHONPATH"].split(os.pathsep) if p.startswith(sys.prefix)]


def test_handing_in_without_a_folder_only_saves(lab, session, tmp_path):
    result = fxlab.backtest(session, "sma_cross", {"fast": 3, "slow": 11})
    assert runner.save_outputs(result, lab, "") == result.run_id
    assert lab.run(result.run_id)["fingerprint"] == result.fingerprint


KILLED = """
import sys, fxlab
fxlab.batch(sys.argv[1], out=sys.argv[2])
"""


@pytest.mark.faults
def test_a_batch_that_was_killed_goes_on(lab, session, tmp_path):
    plan, out = tmp_path / "plan.toml", tmp_path / "out"
    plan.write_text(
        f'[defaults]\nsession = "{session.id}"\n'
        '[[job]]\nstrategy = "sma_cross"\nparameters = { fast = 5, slow = 21 }\n'
        '[[job]]\nstrategy = "batch_strategies:breaks"\nparameters = { how = "wait" }\n'
    )
    command = [sys.executable, "-c", KILLED, str(plan), str(out)]
    path = os.pathsep.join([str(SUPPORT), str(Path(__file__).parents[2])])
    running = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    until = time.monotonic() + 300
    while not list(out.glob("*/job.json")) and time.monotonic() < until:
        assert running.poll() is None
        time.sleep(0.1)
    while not list(out.glob("batch*/.notebook.ipynb")) and time.monotonic() < until:
        time.sleep(0.1)
    children = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGKILL)
    running.wait(120)
    _, alive = psutil.wait_procs(children, 60)
    assert alive == []
    assert not list(out.glob("batch*/notebook.ipynb"))
    only = plan.read_text().rpartition("[[job]]")[0]
    plan.write_text(only)
    found = fxlab.batch(plan, out=out, lab=lab)
    assert found.table["from_before"].to_list() == [True]
