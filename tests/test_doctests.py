"""The examples of all public names run, as they stand in the docstrings."""

from __future__ import annotations

import asyncio
import doctest
import inspect
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
import pytest
from markets import random_walk, recorded_walk

import fxlab
from fxlab import _log
from fxlab.backtester.strategy import strategy
from fxlab.mock import MockVenue, generated

NAMES = sorted(set(fxlab.__all__) - {"__version__"})
ELSEWHERE = {
    "CollectorStatus": "the README's recording, run by test_docs",
    "Listener": "notebook 05, run by test_notebooks",
    "backup": "would stop the server of all tests: test_backup",
    "batch": "a kernel a job: test_batch",
    "mend": "would mend the server of all tests: test_mending",
}
"""Names whose use is shown, and run, in another place."""
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def session(lab, unique):
    """Return a small session of trades."""
    name = unique("examples")
    lab.import_frame(recorded_walk(1_500, symbol="BTC_USDT"), "prices", session_id=name)
    return lab.session(name)


@pytest.fixture
def names(lab, session, unique, tmp_path, monkeypatch):
    """Return what examples may use without saying where it is from."""
    fxlab.strategies()  # loads the shipped ones
    monkeypatch.setattr(strategy, "_REGISTRY", dict(strategy._REGISTRY))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_log, "_shown", None)
    monkeypatch.setattr(_log.LOGGER, "handlers", [*_log.LOGGER.handlers])
    level = _log.LOGGER.level
    yield {
        "fxlab": fxlab, "pl": pl, "np": np, "asyncio": asyncio, "Path": Path,
        "Annotated": Annotated, "MockVenue": MockVenue, "generated": generated,
        "lab": lab, "session": session, "folder": tmp_path / "out", "new_id": unique,
        "ticks": random_walk(1_500).drop("bid_qty_1", "ask_qty_1"),
    }  # fmt: skip
    _log.LOGGER.setLevel(level)


def examples_of(name):
    """Return the examples in a public name's own docstring."""
    doc = inspect.getdoc(getattr(fxlab, name)) or ""
    return doctest.DocTestParser().get_doctest(doc, {}, name, None, 0)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(ELSEWHERE)))
def test_the_example_of_a_name_runs(name, names):
    test = examples_of(name)
    assert test.examples, f"{name} has no example"
    assert not any(doctest.SKIP in one.options for one in test.examples)
    test.globs.update(names)
    told = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    assert runner.run(test, out=told.append).failed == 0, "".join(told)
