"""What a terminal shows of a recording, drawn into a string."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from status_cases import GAP, status

from fxlab._cli.collect import status_view
from fxlab.collect import status as words


def drawn(now, width=180):
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    console.print(status_view(now))
    return console.file.getvalue()


def header(text):
    return next(line for line in text.splitlines() if line.split()[:1] == ["symbol"])


def test_it_shows_every_number_where_there_is_room():
    text = drawn(status())
    for name in words.COLUMNS:
        assert name in header(text)
    rows = [line.split() for line in text.splitlines() if "_USDT " in line]
    assert rows == [list(row) for row in words.rows(status())]
    assert "binance, session live_20261123_042944_ed427236: 123,456 trades, 900 books" in text
    assert "1,234 rows wait in the journal, 0.6 of 2,000 MB; clock +0.6 ms off" in text


@pytest.mark.parametrize("width", [60, 70, 80, 100, 120, 140, 160])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_cut(width):
    text = drawn(status(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\u2026" not in text
    for name in ("symbol", "trades/s", "last", "missing"):
        assert name in header(text)


def test_a_narrow_terminal_has_bid_and_ask_or_neither():
    for width in range(60, 160, 3):
        names = header(drawn(status(), width)).split()
        assert ("bid" in names) == ("ask" in names)


def test_a_duration_is_a_bar():
    half = drawn(status(duration=131.8))
    assert "0:01:05 of 0:02:11" in half
    assert "\u2501" in half
    assert "\u2501" not in drawn(status())


def test_states_are_words_not_only_colours():
    for state in ("starting", "collecting", "outage", "stopping", "completed", "aborted"):
        assert words.state(status(state)) in drawn(status(state))


def test_the_newest_event_and_message_are_there_and_no_markup():
    text = drawn(status(message="no answer [bold]from[/bold] it", newest=GAP))
    assert "no answer [bold]from[/bold] it" in text
    assert "gap in trades, 3 trades missing" in text


def test_a_recording_without_symbols_yet_can_be_drawn():
    assert "starting" in drawn(status("starting", symbols=(), elapsed=0.0))
