"""The cache of compiled code is a comfort: without one the same figures come, told once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numba import njit

import fxlab.backtester._kernel.compiled  # noqa: F401 - listens to numba from then on
from fxlab.config import Settings
from fxlab.errors import InvalidSettings

SMALL = """
import numpy as np
from fxlab.backtester._kernel import columns, compiled
ticks, starts = np.arange(3), np.zeros(3, np.int64)
columns.bar_starts(ticks, 2, starts)
columns.to_ticks(ticks / 2, 2.0, ticks)
print(*starts, compiled.cache_folder(), flush=True)
"""
COMPILING = "compiling the backtester"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a script with one compiled function: numba finds a function by its file."""
    path = tmp_path / "small.py"
    path.write_text(SMALL)
    return path


def run(script: Path, **environment: str) -> tuple[list[str], str]:
    """Run a script; return its words, and what stands on standard error."""
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_compiling_is_told_once(small: Path, tmp_path: Path):
    cache = str(tmp_path / "cache")
    found, said = run(small, NUMBA_CACHE_DIR=cache)
    assert found[:3] == ["0", "2", "0"]
    assert found[3].startswith(cache)
    assert said.count(COMPILING) == 1
    again, said = run(small, NUMBA_CACHE_DIR=cache)
    assert (again, said) == (found, "")


def test_functions_of_others_that_belong_to_no_module_are_compiled():
    """Some packages make them at run time; numba tells of them as of all others."""
    made: dict[str, Any] = {}
    exec("def doubled(x):\n    return 2 * x", {}, made)  # noqa: S102 - as they do
    assert made["doubled"].__module__ is None
    assert njit(made["doubled"])(21) == 42


@pytest.mark.parametrize("variable", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_cache_that_cannot_be_written_is_told_once_and_stops_nothing(small: Path, variable: str):
    found, said = run(small, **{"NUMBA_CACHE_DIR": "", variable: "/proc/nowhere"})
    assert found[:3] == ["0", "2", "0"]
    assert not found[3].startswith("/proc")
    assert not Path(found[3]).exists()  # it lived as long as the process
    assert said.count("/proc/nowhere") == 1
    assert "set NUMBA_CACHE_DIR" in said
    assert "Traceback" not in said


def test_the_processes_that_it_starts_share_what_was_compiled(small: Path, tmp_path: Path):
    with small.open("a") as file:
        file.write(
            "import subprocess, sys\n"
            "if len(sys.argv) == 1:\n"
            "    subprocess.run([sys.executable, __file__, 'child'], check=True)\n"
        )
    found, said = run(small, NUMBA_CACHE_DIR="/proc/nowhere", TMPDIR=str(tmp_path))
    folders = [word for word in found if word.startswith(str(tmp_path))]
    assert len(folders) == 2
    assert len(set(folders)) == 1
    assert said.count(COMPILING) == said.count("set NUMBA_CACHE_DIR") == 1


def test_a_full_disk_stops_nothing(small: Path, tmp_path: Path):
    full = """
import errno, os
from numba.core import caching
def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
caching.FunctionCache.save_overload = full
"""
    small.write_text(full + SMALL)
    found, said = run(small, NUMBA_CACHE_DIR=str(tmp_path))
    assert found[:3] == ["0", "2", "0"]
    assert "No space left" in said


def test_a_user_without_a_home_is_told_the_setting(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: "~/.local/share/fxlab")
    monkeypatch.delenv("FXLAB_HOME", raising=False)
    with pytest.raises(InvalidSettings, match="FXLAB_HOME"):
        Settings.load()
    assert Settings.load(home=str(tmp_path)).home == tmp_path
    with pytest.raises(InvalidSettings, match="whole path"):
        Settings.load(home="~nobody-of-this-name/x")
