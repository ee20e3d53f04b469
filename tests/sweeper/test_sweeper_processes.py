"""Several sessions over processes: the same table, and no surprise when a process dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import polars as pl
import psutil
import pytest
from markets import random_walk
from sweep_strategies import moody, slow_digit

import fxlab
from fxlab import errors
from fxlab.sweeper import _executors

GRID = {"fast": [3, 5, 8], "slow": [5, 13, 21]}

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def always(monkeypatch):
    """Make processes worth it for the smallest sweep."""
    monkeypatch.setattr(_executors, "WORTH_SECONDS", 0.0)
    made = []
    plain = _executors.Processes.__init__

    def noted(self, *arguments):
        made.append(self)
        plain(self, *arguments)

    monkeypatch.setattr(_executors.Processes, "__init__", noted)
    return made


@pytest.fixture(scope="module")
def frames():
    return [random_walk(1_500, seed) for seed in (1, 2, 3)]


def pids(executor):
    return [pid for pool in executor._pools for pid in list(pool._processes or ())]


def test_small_work_starts_no_process(frames):
    studies = fxlab.sweep(frames, "sma_cross", {"fast": 3}).studies
    assert _executors.worth(studies, 1, 2) is None
    assert _executors.worth(studies[:1], 10**9, 2) is None
    assert _executors.worth(studies, 10**9, 1) is None
    assert _executors.worth(studies, 10**9, 2) is not None


def test_processes_change_no_bit(frames, always):
    alone = fxlab.sweep(frames, "sma_cross", GRID, workers=1)
    assert not always
    heard = []
    spread = fxlab.sweep(
        frames, "sma_cross", GRID, workers=2, progress=lambda *said: heard.append(said)
    )
    assert len(always) == 1
    assert spread.table.equals(alone.table, null_equal=True)
    assert heard[-1] == (1.0, "27 of 27 points")


def test_sessions_are_read_by_the_processes_themselves(lab, unique, always):
    sessions = []
    for seed in (1, 2):
        name = unique("spread")
        walk = random_walk(1_000, seed, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
        lab.import_frame(walk, "prices", session_id=name)
        sessions.append(lab.session(name))
    spread = fxlab.sweep(sessions, "sma_cross", GRID, workers=2, lab=lab)
    assert always
    alone = fxlab.sweep(sessions, "sma_cross", GRID, workers=1)
    assert spread.table.equals(alone.table, null_equal=True)
    assert fxlab.sweep(sessions, "sma_cross", GRID, workers=1, lab=lab).resumed == 18


def test_strategies_that_print_or_fail_do_not_disturb(frames, always):
    grid = {"mood": ["calm", "early", "late"]}
    found = fxlab.sweep(frames, moody, grid, workers=2)
    assert always
    assert found.table["state"].to_list() == ["done", "failed", "failed"] * 3


def test_a_lost_process_is_one_sentence(frames, always):
    def kill(share, words):
        if always:
            for pid in pids(always[0]):
                with suppress(ProcessLookupError):  # it is gone, and reaped
                    os.kill(pid, signal.SIGKILL)

    grid = {"level": [1, 2, 3], "seconds": [0.3]}
    with pytest.raises(errors.WorkerLost, match=r"ended with code -9.*same call goes on"):
        fxlab.sweep(frames, slow_digit, grid, workers=2, progress=kill, check_lookahead=False)


def test_cancelling_ends_the_processes(frames, always):
    started = []

    def stop(share, words):
        if not words.startswith("0 "):
            started.extend(pids(always[0]))
            raise errors.Cancelled("enough")

    grid = {"level": [1, 2, 3, 4], "seconds": [0.05]}
    with pytest.raises(errors.SweepCancelled) as caught:
        fxlab.sweep(frames, slow_digit, grid, workers=2, progress=stop, check_lookahead=False)
    assert caught.value.sweep.table.height > 0
    assert started
    assert not any(psutil.pid_exists(pid) for pid in started)


def test_an_error_in_a_process_is_raised_here(frames, always):
    empty = random_walk(1_500, 9).with_columns(pl.col("timestamp").dt.offset_by("1d"))
    with pytest.raises(errors.EmptySession, match="has no ticks"):
        fxlab.sweep([frames[0], empty], "sma_cross", GRID, workers=2, end="2025-01-01T01:00:00Z")


def test_a_script_without_a_main_guard_may_sweep_over_sessions(tmp_path):
    script = tmp_path / "nightly.py"
    script.write_text(
        "import fxlab\nfrom fxlab.sweeper import _executors as processes\n"
        "from markets import random_walk\n"
        "processes.WORTH_SECONDS = 0.0\n"
        "def mine(*, level: int = 1) -> fxlab.Signals:\n"
        "    import polars as pl\n"
        "    digit = pl.col('price_ticks') % 10\n"
        "    target = pl.when(digit == level).then(1.0).when(digit == 0).then(0.0)\n"
        "    return fxlab.Signals(target=target, lookback=0)\n"
        "found = fxlab.sweep([random_walk(500, 1), random_walk(500, 2)], mine,\n"
        "                    {'level': [1, 2]}, workers=2)\n"
        "alone = fxlab.sweep([random_walk(500, 1), random_walk(500, 2)], mine,\n"
        "                    {'level': [1, 2]}, workers=1)\n"
        "print(found.table.equals(alone.table, null_equal=True))\n"
    )
    paths = [str(SUPPORT), str(Path(fxlab.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_nothing_outlives_a_sweep_that_is_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(
        "import fxlab, os\nfrom fxlab.sweeper import _executors as processes\n"
        "from markets import random_walk\n"
        "from sweep_strategies import slow_digit\n"
        "processes.WORTH_SECONDS = 0.0\n"
        "def told(share, words):\n"
        "    if not words.startswith('0 '):\n"
        "        print('begun', flush=True)\n"
        "fxlab.sweep([random_walk(500, 1), random_walk(500, 2)], slow_digit,\n"
        "            {'level': range(300), 'seconds': [0.3]}, workers=2,\n"
        "            check_lookahead=False, progress=told)\n"
    )
    paths = [str(SUPPORT), str(Path(fxlab.__file__).parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    running = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE)
    assert running.stdout.readline() == b"begun\n"
    children = psutil.Process(running.pid).children(recursive=True)
    assert len(children) >= 2
    running.kill()
    running.communicate()
    _, alive = psutil.wait_procs(children, 60)
    assert alive == []
