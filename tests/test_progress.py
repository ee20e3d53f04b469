"""Progress is silent where nobody looks, and parts fill a whole."""

from __future__ import annotations

import io
import sys

import pytest

from fxlab import progress


def test_a_pipe_gets_nothing(capsys):
    with progress.terminal("work") as advance:
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
    with progress.terminal("import") as advance:
        advance(0.25, "a quarter")
    assert "import" in screen.getvalue()


def test_parts_fill_a_whole():
    seen = []
    inner = progress.part(lambda share, text: seen.append((share, text)), 0.5, 0.75)
    inner(0.0, "a")
    inner(1.0, "b")
    assert seen == [(0.5, "a"), (0.75, "b")]


def test_an_error_leaves_the_terminal_clean():
    with pytest.raises(KeyboardInterrupt), progress.terminal("work"):
        raise KeyboardInterrupt
