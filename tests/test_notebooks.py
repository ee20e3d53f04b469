"""The notebooks: clean in the repository, right when run, small when run in batch."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import polars as pl
import pytest
from markets import recorded_walk

PROJECT = Path(__file__).parents[1]
NOTEBOOKS = sorted((PROJECT / "notebooks").rglob("*.ipynb"))
QUICKSTART = PROJECT / "notebooks" / "01_quickstart.ipynb"
PARAMETER = re.compile(r"\w+: (str|int|float|bool|dict|list) = .+  # .+")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)


def read(path):
    return nbformat.read(path, as_version=4)


def code_of(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert QUICKSTART in NOTEBOOKS


@each_notebook
def test_a_notebook_is_valid_and_small(path):
    nbformat.validate(read(path))
    assert path.stat().st_size < 40_000


@each_notebook
def test_a_notebook_holds_no_output_and_no_widget_state(path):
    notebook = read(path)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    for cell in code_of(path):
        assert cell.outputs == []
        assert cell.execution_count is None


@each_notebook
def test_a_notebook_runs_on_any_python_kernel(path):
    assert read(path).metadata.kernelspec.name == "python3"


@each_notebook
def test_a_notebook_begins_with_what_it_is(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert len(first.source.splitlines()) >= 3


@each_notebook
def test_cells_are_short_and_define_strategies_only(path):
    for cell in code_of(path):
        assert len(cell.source.splitlines()) <= 15, cell.source
        tree = ast.parse(cell.source)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert [ast.unparse(each) for each in node.decorator_list] == ["fxlab.strategy"]
                assert node in tree.body
                assert ast.get_docstring(node)
            assert not isinstance(node, ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda)


def test_only_the_notebook_of_batches_takes_dicts_and_lists():
    for path in NOTEBOOKS:
        if path.parent.name != "batch":
            (cell,) = [c for c in code_of(path) if "parameters" in c.metadata.get("tags", [])]
            assert not re.search(r": (dict|list) = ", cell.source)


@each_notebook
def test_parameters_are_typed_and_explained(path):
    (cell,) = [cell for cell in code_of(path) if "parameters" in cell.metadata.get("tags", [])]
    for line in cell.source.splitlines():
        assert PARAMETER.fullmatch(line), line


@pytest.fixture(scope="module")
def session_id(lab, unique):
    """Store a session of two symbols whose moving averages cross: as large as figures get."""
    made = unique("notebook")
    walks = [recorded_walk(20_000, seed, symbol=name) for seed, name in enumerate(("BTC", "ETH"))]
    lab.import_frames({"prices": pl.concat(walks)}, session_id=made, notes="for notebooks")
    return made


def environment(home):
    """Return an environment with the server's settings and Jupyter folders of its own."""
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    return {
        **os.environ,
        **{name: str(home / name.lower()) for name in names},
        "PYTHONPATH": str(PROJECT),
    }


@each_notebook
def test_a_notebook_runs_from_top_to_bottom(path, session_id, tmp_path):
    """All cells run in a kernel of their own, the asserts among them."""
    command = [
        *(sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-cell-timeout=120"),
        # Cells run in their order, whatever plugin shuffles tests.
        *(
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            "-q",
            "--rootdir",
            str(tmp_path),
            "-c",
            os.devnull,
            str(path),
        ),
    ]
    ran = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=600
    )
    assert ran.returncode == 0, ran.stdout[-5_000:] + ran.stderr[-2_000:]
    assert f"{len(code_of(path))} passed" in ran.stdout


RUN = """
import json, sys
import papermill
source, target, parameters = sys.argv[1:]
papermill.execute_notebook(
    source, target, parameters=json.loads(parameters), kernel_name="python3", progress_bar=False,
    store_widget_state=False,  # as `fxlab batch` does, and JupyterLab when it saves
)
"""


@pytest.fixture(scope="module")
def batch(session_id, tmp_path_factory):
    """Run the quickstart through papermill with typed parameters, and return what it wrote."""
    folder = tmp_path_factory.mktemp("papermill")
    given = {"session_id": session_id, "fast": 5, "slow": 25, "taker_bps": 0.5, "capital": 2_500.0}
    target = folder / "ran.ipynb"
    command = [sys.executable, "-c", RUN, str(QUICKSTART), str(target), json.dumps(given)]
    ran = subprocess.run(
        command, env=environment(folder), capture_output=True, text=True, check=False, timeout=600
    )
    assert ran.returncode == 0, ran.stderr[-5_000:]
    return given, target


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_batch_parameters_arrive_with_their_types(batch):
    given, target = batch
    (injected,) = [
        cell
        for cell in read(target).cells
        if "injected-parameters" in cell.metadata.get("tags", [])
    ]
    namespace = {}
    exec(injected.source, namespace)  # noqa: S102 - our own notebook
    assert {name: namespace[name] for name in given} == given
    assert {type(namespace[name]) for name in ("taker_bps", "capital")} == {float}


def test_batch_output_shows_plots_and_no_error(batch):
    kinds = [kind for output in outputs_of(read(batch[1])) for kind in output.get("data", {})]
    assert kinds.count("application/vnd.plotly.v1+json") == 2
    assert not [out for out in outputs_of(read(batch[1])) if out.output_type == "error"]


def test_batch_ran_what_was_asked(batch):
    text = json.dumps(outputs_of(read(batch[1])))
    assert "sma_cross(fast=5, slow=25" in text
    assert "fee 0.5 bps" in text
    assert batch[0]["session_id"] in text


def test_batch_output_is_small(batch):
    assert batch[1].stat().st_size < 150_000  # two plots of 30 and 70 kB
    assert "FigureWidget" not in batch[1].read_text()


OTHERS = (
    ("02_collect", {"seconds": 3.0, "symbols": "SOL_USDT"}, 1),
    ("03_sessions", {"interval": "30s"}, 3),
    ("04_backtest", {"taker_bps": 0.7}, 3),
    ("06_sweep", {"taker_bps": 0.7}, 3),
    ("07_strategy", {"window": 300}, 2),
    ("08_import", {"session_id": "own_data_in_a_batch"}, 2),
    ("batch/sweep", {"grid": {"fast": [150, 300], "slow": [1_500]}, "symbols": ["BTC_USDT"]}, 2),
    ("batch/nightly", {"top": 1}, 1),
)


@pytest.mark.parametrize(("name", "given", "plots"), OTHERS, ids=[name for name, *_ in OTHERS])
def test_the_others_run_in_a_batch_too(name, given, plots, lab, tmp_path):
    """With a parameter of their own; what is left is small."""
    source, target = PROJECT / "notebooks" / f"{name}.ipynb", tmp_path / "ran.ipynb"
    command = [sys.executable, "-c", RUN, str(source), str(target), json.dumps(given)]
    ran = subprocess.run(
        command, env=environment(tmp_path), capture_output=True, text=True, check=False, timeout=600
    )
    assert ran.returncode == 0, ran.stderr[-5_000:]
    kinds = [kind for output in outputs_of(read(target)) for kind in output.get("data", {})]
    assert kinds.count("application/vnd.plotly.v1+json") >= plots
    assert target.stat().st_size < 350_000  # the order book of 03_sessions is half of it
    assert "FigureWidget" not in target.read_text()
