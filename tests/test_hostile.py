"""Hostile values in every place that takes a text: each public call, each word of each command.

Nothing is listed by hand but what a call needs beside the value: a new method, parameter, command
or option is tried as soon as it exists.
"""

from __future__ import annotations

import inspect

import pytest
import typer
from markets import recorded_walk
from tick_files import write_session
from typer.testing import CliRunner

from fxlab import Lab, Session, errors
from fxlab._cli import app

HOSTILE = (
    "x'; drop table tick_prices; --", '"<img src=x onerror=alert(1)>', "../../etc/passwd", "..", "",
    "x\0y", "x\ny\u202e", "{{7*7}}%s%n", "--help", "x" * 10_000,
)  # fmt: skip
LONGEST = 700
"""Characters of an answer to a value of ten thousand."""


@pytest.fixture(scope="module")
def session(lab, unique):
    name = unique("hostile")
    lab.import_frame(recorded_walk(300, symbol="BTC_USDT"), "prices", session_id=name)
    before = lab.session(name).statistics()
    yield lab.session(name)
    assert lab.session(name).statistics().equals(before)


def deep(folder):
    """Return a folder in which what is written to `../..` is still the test's own."""
    found = folder / "some" / "where" / "deep"
    found.mkdir(parents=True)
    return found


# ---- Python ------------------------------------------------------------------------------------

ELSEWHERE = {
    ("Lab", "backup"): "its folder may have any name; tests/sessions/test_backup.py",
    ("Lab", "import_csv"): "the older spelling of import_files",
}


def texts(kind):
    """Yield each public method with each of its parameters that may be a text."""
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if name.startswith("_") or (kind.__name__, name) in ELSEWHERE:
            continue
        for parameter in inspect.signature(method).parameters.values():
            if "str" in str(parameter.annotation) or "Time" in str(parameter.annotation):
                yield name, parameter.name


def good(session):
    """Return values by which a call would work, were it not for the hostile one."""
    walk = recorded_walk(20, symbol="BTC_USDT")
    return {
        "session_id": session.id, "run_id": "run-that-is-not", "sweep_id": "sweep-that-is-not",
        "frame": walk, "kind": "prices", "frames": {"prices": walk}, "interval": "1m",
        "venue": "binance", "symbols": ["BTCUSDT"], "older_than": "9000d", "paths": (),
        "data_type": "prices", "source": "csv", "path": "exported",
    }  # fmt: skip


def call(method, name, value, known):
    """Call a method with one hostile value and what else it needs."""
    words, options = [], {}
    for parameter in list(inspect.signature(method).parameters.values()):
        given = value if parameter.name == name else known.get(parameter.name)
        if parameter.kind is parameter.VAR_POSITIONAL:
            words += [given] if parameter.name == name else []
        elif parameter.kind is parameter.VAR_KEYWORD:
            continue
        elif parameter.name == name or parameter.default is parameter.empty:
            options[parameter.name] = given
    found = method(*words, **options)
    if inspect.isgenerator(found):
        next(found, None)


@pytest.mark.parametrize(
    ("kind", "method", "parameter"),
    [(kind.__name__, *each) for kind in (Lab, Session) for each in texts(kind)],
)
def test_a_call_answers_a_hostile_text_or_refuses_it(
    lab, session, tmp_path, monkeypatch, kind, method, parameter
):
    monkeypatch.chdir(deep(tmp_path))
    held = {"Lab": lab, "Session": session}[kind]
    for value in HOSTILE:
        said = ""
        try:
            call(getattr(held, method), parameter, value, good(session))
        except errors.FxlabError as error:
            said = str(error)
        assert len(said) < LONGEST, said[:200]


# ---- the command line --------------------------------------------------------------------------

WAITING = {"lab", "mock", "demo", "collect"}
"""Commands that go on until they are stopped; what they refuse is refused before that."""
OUTSIDE = {"up", "down", "backup", "restore", "doctor"}
"""Commands about a server as a whole: tests of their own stop, copy and mend one."""


def commands(group=None, words=()):
    """Yield the words of each command, and the command."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        elif command.hidden or (not words and name in WAITING | OUTSIDE):
            continue
        else:
            yield (*words, name), command


def hostile_lines():
    """Yield command lines in which one word is hostile: each argument, each option once."""
    seen = set()  # several commands take the options of a run
    for words, command in commands():
        taken = [one for one in command.params if not getattr(one, "is_flag", False)]
        needed = [one for one in taken if one.param_type_name == "argument" and one.required]
        for one in taken:
            key = (one.param_type_name == "argument" and words, *one.opts, one.help)
            if key in seen:
                continue
            seen.add(key)
            yield " ".join(words), one.name, words, [each.name for each in needed], one


LINES = list(hostile_lines())


@pytest.mark.parametrize(
    ("words", "needed", "place"),
    [line[2:] for line in LINES],
    ids=[f"{line[0]} {line[1]}".replace(" ", "-") for line in LINES],
)
def test_a_command_answers_a_hostile_word_or_refuses_it(
    session, tmp_path, monkeypatch, words, needed, place
):
    monkeypatch.chdir(deep(tmp_path))
    write_session(tmp_path, "tree", rows=4)
    known = {"session_id": session.id, "strategy": "sma_cross", "path": str(tmp_path)}
    for value in HOSTILE:
        line = list(words)
        for name in needed:
            if name != place.name:
                line.append(known.get(name, session.id))
        if place.param_type_name == "argument":
            line += ["--", value]
        else:
            line += [f"{place.opts[0]}={value}"]
        answer = CliRunner().invoke(app, line)
        shown = answer.stderr + answer.stdout
        assert answer.exception is None or isinstance(answer.exception, SystemExit), (value, answer)
        assert "Traceback" not in shown
        assert len(answer.stderr) < 4 * LONGEST, (value[:80], answer.stderr[:400])
