"""Progress is silent where nobody looks, and parts fill a whole."""

from __future__ import annotations

import io
import sys

import pytest

from fxlab import _progress


def test_a_pipe_gets_nothing(capsys):
    with _progress.terminal("work") as advance:
        advance(0.5, "half")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_terminal_gets_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with _progress.terminal("import") as advance:
        advance(0.25, "a quarter")
    assert "import" in screen.getvalue()


def test_parts_fill_a_whole():
    seen = []
    inner = _progress.part(lambda share, text: seen.append((share, text)), 0.5, 0.75)
    inner(0.0, "a")
    inner(1.0, "b")
    assert seen == [(0.5, "a"), (0.75, "b")]


def test_an_error_leaves_the_terminal_clean():
    with pytest.raises(KeyboardInterrupt), _progress.terminal("work"):
        raise KeyboardInterrupt


def test_what_takes_long_is_said_once_where_there_is_no_terminal(capsys):
    for _ in range(2):
        with _progress.busy("compiling for a test"):
            pass
    assert capsys.readouterr().err == "compiling for a test\n"


def test_what_takes_long_is_said_above_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with _progress.busy("alone for a test"):
        pass
    assert "alone for a test" in screen.getvalue()
    with _progress.terminal("work"), _progress.busy("beside for a test"):
        pass
    assert "beside for a test" in screen.getvalue()


def test_a_notebook_gets_a_bar_too(monkeypatch):
    from types import SimpleNamespace

    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    screen = _progress._screen()
    assert screen is not None
    assert screen.is_jupyter
