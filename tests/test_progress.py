"""Bars show themselves where somebody looks, and nowhere else; parts fill a whole."""

from __future__ import annotations

import io
import itertools
import os
import pty
import re
import subprocess
import sys
import termios
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import nbformat
import papermill
import pytest
from markets import random_walk

import fxlab
from fxlab import _progress


def test_reading_tells_rows_a_second_and_what_is_left(monkeypatch):
    times = itertools.count(0.0, 10.0)
    monkeypatch.setattr(_progress, "time", SimpleNamespace(monotonic=lambda: next(times)))
    said = []
    told = _progress.in_steps(lambda *one: said.append(one))
    for share, rows in ((0.0, ""), (0.25, "1000"), (0.255, "1020"), (0.5, "2000"), (1.0, "4000")):
        told(share, rows)
    assert said == [
        (0.25, "read, 100 rows/s, 30 s left"),
        (0.5, "read, 100 rows/s, 20 s left"),
    ]


LONG = """
import time, fxlab, polars as pl
from fxlab import _progress
def work(progress=None, seconds=0.3):
    with _progress.shown(progress, "outer") as advance:
        for share in range(1, 4):
            time.sleep(seconds)
            advance(share / 4, f"part {share}")
            with _progress.shown(None, "inner") as inner:
                inner(0.5, "nested")
"""


def in_a_terminal(script, *, errors_to_pipe=False):
    """Run Python in a pseudo terminal and return what its screen got."""
    screen, side = pty.openpty()
    termios.tcsetwinsize(side, (25, 80))
    errors = subprocess.PIPE if errors_to_pipe else side
    with subprocess.Popen(
        [sys.executable, "-c", LONG + script], stdout=side, stderr=errors, stdin=side,
        env={**os.environ, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(side)
        seen = b""
        while True:
            try:
                piece = os.read(screen, 65_536)
            except OSError:  # what a closed terminal reads as
                break
            if not piece:
                break
            seen += piece
        piped = process.stderr.read() if errors_to_pipe else b""
    os.close(screen)
    assert process.returncode == 0, (seen, piped)
    return seen.decode(), piped.decode()


def show_terminal(monkeypatch):
    """Put a terminal in the place of standard error; in a fixture, pytest would take it away."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(_progress, "DELAY", 0.0)
    return screen


def test_a_terminal_shows_a_bar_without_being_asked():
    seen, _ = in_a_terminal("work()")
    assert "outer" in seen
    assert "part 3" in seen
    assert "%|" in seen
    assert "inner" not in seen
    assert "nested" not in seen


def test_false_a_function_and_a_pipe_show_none():
    assert in_a_terminal("work(False)")[0] == ""
    assert in_a_terminal("work(lambda share, words: None)")[0] == ""
    assert in_a_terminal("work()", errors_to_pipe=True) == ("", "")


def test_what_ends_soon_never_flashes_a_bar():
    assert in_a_terminal("work(seconds=0.0)")[0] == ""


def test_a_run_shows_its_bar_and_takes_false(monkeypatch):
    terminal = show_terminal(monkeypatch)
    frame = random_walk(2_000)
    fxlab.backtest(frame, "sma_cross", progress=False)
    assert "%|" not in terminal.getvalue()
    fxlab.backtest(frame, "sma_cross")
    assert "backtest" in terminal.getvalue()
    told = []
    fxlab.backtest(frame, "sma_cross", progress=lambda share, words: told.append((share, words)))
    assert told[-1] == (1.0, "2,000 ticks")


def test_a_replay_shows_its_bar_while_it_is_read(monkeypatch):
    terminal = show_terminal(monkeypatch)
    frame = random_walk(2_000)
    assert sum(batch.frame.height for batch in fxlab.replay(frame, speed=1e9, progress=False))
    assert "%|" not in terminal.getvalue()
    player = fxlab.replay(frame, speed=1e9)
    assert "%|" not in terminal.getvalue()  # nothing is read yet
    for _ in player:
        fxlab.backtest(frame.head(50), "buy_and_hold")  # has a bar of its own
    assert "replay" in terminal.getvalue()
    assert "backtest" in terminal.getvalue()
    told = []
    for _ in fxlab.replay(frame, speed=1e9, progress=lambda share, _: told.append(share)):
        pass
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_replay_that_is_stopped_or_goes_back_puts_its_bar_away(monkeypatch):
    from tqdm import tqdm

    show_terminal(monkeypatch)
    player = fxlab.replay(random_walk(2_000), speed=1e9)
    next(player)
    assert len(tqdm._instances) == 1
    for _ in player:
        pass
    assert not tqdm._instances
    player.seek(player.bounds[0])
    next(player)
    assert len(tqdm._instances) == 1
    player.stop()
    assert not tqdm._instances


def kernel_of(monkeypatch, content):
    message = {"header": {}, "content": content}
    kernel = SimpleNamespace(get_parent=lambda: message)
    module = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=kernel))
    monkeypatch.setitem(sys.modules, "IPython", module)


def test_a_cell_that_a_person_runs_is_watched(monkeypatch):
    kernel_of(monkeypatch, {"code": "", "allow_stdin": True})
    assert _progress.is_watched()
    with ThreadPoolExecutor(1) as pool:  # a panel's work, or a pool's
        assert not pool.submit(_progress.is_watched).result()


def test_a_program_and_a_click_on_a_widget_are_not(monkeypatch):
    show_terminal(monkeypatch)
    kernel_of(monkeypatch, {"code": "", "allow_stdin": False})
    assert not _progress.is_watched()
    kernel_of(monkeypatch, {"comm_id": "", "data": {}})
    assert not _progress.is_watched()


def test_papermill_gets_no_bar(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LONG + "work()")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    done = papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False
    )
    assert done.cells[-1].outputs == []


def test_a_bar_in_a_cell_is_no_widget_and_leaves_nothing(tmp_path):
    """A widget that has gone is an error on the page of a saved notebook."""
    source = (
        LONG
        + """
import IPython.display
looks = []
publish = IPython.display.publish_display_data
IPython.core.display_functions.publish_display_data = (
    lambda **given: looks.append(given["data"]) or publish(**given))
_progress.is_watched, _progress.DELAY = lambda: True, 0.1
work()
assert "<progress" in looks[0]["text/html"] and "outer: 25% part 1" in looks[0]["text/html"]
assert looks[-1] == {}
"""
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    done = papermill.execute_notebook(
        tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False
    )
    assert [(one.output_type, one.data) for one in done.cells[-1].outputs] == [("display_data", {})]
    assert "widgets" not in done.metadata


def test_parts_fill_a_whole():
    seen = []
    inner = _progress.part(lambda share, text: seen.append((share, text)), 0.5, 0.75)
    inner(0.0, "a")
    inner(1.0, "b")
    assert seen == [(0.5, "a"), (0.75, "b")]


def test_an_error_ends_the_bar(monkeypatch):
    terminal = show_terminal(monkeypatch)
    with pytest.raises(KeyboardInterrupt), _progress.shown(None, "work"):
        raise KeyboardInterrupt
    terminal.truncate(0)
    with _progress.shown(None, "more") as advance:  # is no longer within another
        advance(0.5, "half")
    assert "more" in terminal.getvalue()


def test_what_takes_long_is_said_once_where_there_is_no_terminal(capsys):
    for _ in range(2):
        _progress.say_once("compiling for a test")
    assert capsys.readouterr().err == "compiling for a test\n"


def test_what_takes_long_is_said_above_a_bar(monkeypatch):
    terminal = show_terminal(monkeypatch)
    with _progress.shown(None, "work"):
        _progress.say_once("beside for a test")
    assert "beside for a test\n" in terminal.getvalue()


@pytest.mark.parametrize("progress", [None, False])
def test_compiling_shows_a_bar_below_that_of_a_run_unless_it_is_silenced(
    tmp_path, monkeypatch, progress
):
    # A fast machine compiles a function between two looks at the bar.
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    seen, _ = in_a_terminal(
        f"""
import os
os.environ["NUMBA_CACHE_DIR"] = {str(tmp_path)!r}
import numpy as np
from fxlab.backtester._kernel import fills, records
_progress.DELAY = 0.0
with _progress.shown({progress}, "outer"):
    fills.whole_lots(1.0, np.ones(1, records.LEG)[0])
"""
    )
    assert seen.count("compiling the backtester") == 1
    assert ("compiling   " in seen) == ("outer" in seen) == (progress is None)
    if progress is None:
        done, left = re.findall(r"(\d+) of (\d+) functions", seen)[-1]
        assert 0 < int(done) < int(left)
