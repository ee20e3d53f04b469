"""Hostile values in every place that takes a text: public calls, commands, fields of panels.

Nothing is listed by hand but what a call needs beside the value: a new function, method, parameter,
command, option or field is tried as soon as it exists.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import re

import ipywidgets as w
import polars as pl
import pytest
import typer
from markets import recorded_walk
from tick_files import HOSTILE_IDS, write_session
from typer.testing import CliRunner

import fxlab
from fxlab import Lab, Session, Settings, errors, widgets
from fxlab._cli import app
from fxlab.backtester.strategy import strategy
from fxlab.mock import MockVenue, generated
from fxlab.widgets._forms import WRONG

HOSTILE = (
    "x'; drop table tick_prices; --", '"<img src=x onerror=alert(1)>', "../../etc/passwd", "..", "",
    "x\0y", "x\ny\u202e", "{{7*7}}%s%n", "--help", "x" * 10_000,
    "\uff58", "x\u0430", "x\u200b", "e\u0301",  # look-alikes, and what nobody sees
)  # fmt: skip
MORE = [one for one in HOSTILE_IDS if one not in HOSTILE]
WORST = (HOSTILE[0], HOSTILE[1], "x" * 10_000)
SHARE = 8
WRITES = {"directory": ("../../etc/passwd", "x\0y", "{{7*7}}%s%n", "x" * 10_000)}
"""Where a page of some megabytes is written, fewer are tried."""
LONGEST = 700
"""Characters of an answer to a value of ten thousand."""


def tried(*place):
    """Return what is tried in a place: all of the worst, and of the others every eighth in turn."""
    if place[-1] in WRITES:
        return WRITES[place[-1]]
    return (*HOSTILE, *MORE[sum(map(ord, "".join(place))) % SHARE :: SHARE])


def assert_answered(call):
    """Call what may refuse a value in few words, and may not fail otherwise."""
    said = ""
    try:
        found = call()
        if inspect.isgenerator(found):
            next(found, None)
    except errors.FxlabError as error:
        said = str(error)
    assert len(said) < LONGEST, said[:200]


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


NOBODY = "http://127.0.0.1:9"
"""Where no venue listens."""


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
        elif parameter.name == "url":
            options["url"] = NOBODY
    return method(*words, **options)


@pytest.mark.parametrize(
    ("kind", "method", "parameter"),
    [(kind.__name__, *each) for kind in (Lab, Session) for each in texts(kind)],
)
def test_a_call_answers_a_hostile_text_or_refuses_it(
    lab, session, tmp_path, monkeypatch, kind, method, parameter
):
    monkeypatch.chdir(deep(tmp_path))
    held = {"Lab": lab, "Session": session}[kind]
    for value in tried(kind, method, parameter):
        assert_answered(lambda v=value: call(getattr(held, method), parameter, v, good(session)))


# ---- functions, and what they return -----------------------------------------------------------

NO_TEXT = {"up", "down", "status", "mend", "connect", "strategies", "with_pips"}
"""Functions that take settings, which are tried below, or a frame."""
RUN = {"strategy": "sma_cross", "parameters": {"fast": 3, "slow": 9}}
GRID_OF = {"strategy": "sma_cross", "parameters": {"fast": [3, 4], "slow": [9]}}
GRID = {**GRID_OF, "workers": 1, "check_lookahead": False}
GOOD = {
    "backtest": RUN, "replay": RUN, "check_lookahead": {**RUN, "cuts": 2}, "cost_ladder": RUN,
    "sweep": GRID, "walk_forward": {**GRID, "train": "10s", "test": "10s"},
    "swap_rates": {
        "symbol": "EUR/USD", "start": "2026-01-01", "end": "2026-01-03", "long_annual": 0.01,
        "short_annual": 0.01,
    },
    "batch": {"dry_run": True, "out": "out"}, "nightly": {"dry_run": True, "out": "out"},
    "BatchJob": {"session": "one", "strategy": "sma_cross"},
    "Signals": {"target": pl.lit(0.0)},
}  # fmt: skip
TEXTS = re.compile(r"\b(str|Time|Duration|Path)\b")


def text_parameters(function):
    """Return the parameters that may be a text, or hold texts."""
    found = inspect.signature(function).parameters.values()
    return [one.name for one in found if TEXTS.search(str(one.annotation))]


def shaped(function, parameter, value):
    """Yield a value as it may be given: by itself, and in a mapping or a list where one may be."""
    yield value
    annotation = str(inspect.signature(function).parameters[parameter].annotation)
    if "Mapping" in annotation or "dict[" in annotation:
        yield {value: value}
    if any(kind in annotation for kind in ("list[", "Sequence[", "Iterable[")):
        yield [value]


def assert_all_answered(function, parameter, known, *place):
    for plain in tried(*place, parameter):
        for value in shaped(function, parameter, plain):
            assert_answered(lambda given={**known, parameter: value}: function(**given))


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        (name, parameter)
        for name in fxlab.__all__
        if inspect.isfunction(getattr(fxlab, name)) and name not in NO_TEXT
        for parameter in text_parameters(getattr(fxlab, name))
    ],
)
def test_a_function_answers_a_hostile_text_or_refuses_it(
    lab, session, tmp_path, monkeypatch, name, parameter
):
    monkeypatch.chdir(deep(tmp_path))
    fxlab.strategies()  # those that are shipped stay, others are forgotten
    monkeypatch.setattr(strategy, "_REGISTRY", dict(strategy._REGISTRY))
    function = getattr(fxlab, name)
    nothing = Settings.load(home=tmp_path / "home")  # to be saved, or to be replaced
    beside = {
        "source": session, "settings": nothing, "function": lambda: None, "lab": lab,
        "jobs": [{"session": session.id, **RUN}],
        "sweeps": [{**GRID_OF, "sessions": [session.id]}],
    }  # fmt: skip
    known = {one: beside[one] for one in inspect.signature(function).parameters if one in beside}
    assert_all_answered(function, parameter, known | GOOD.get(name, {}), name)
    assert not (tmp_path / "home").exists()


NOT_MADE = {"Lab", "Session", "Endpoint", "Feed", "Rollover"}
"""Tried above; or nothing that a user calls; a Rollover is a Collector to its caller."""
OF_CODE = {
    "Execution.for_symbol", "Execution.from_dict", "FrameCache.columns", "Latency.from_dict",
    "RunOptions.of", "Settings.is_default", "Strategy.describe", "Strategy.parse",
}  # fmt: skip
"""They take names of fields and what fxlab has written; a misspelt keyword is a TypeError."""


def methods_of(kind):
    """Yield each public method of a class with its parameters that may be a text."""
    for name, method in inspect.getmembers(kind):
        is_own = inspect.isfunction(method) or inspect.ismethod(method)
        if is_own and not name.startswith("_") and f"{kind.__name__}.{name}" not in OF_CODE:
            yield from ((name, parameter) for parameter in text_parameters(method))


METHODS = [
    (name, method, parameter)
    for name in fxlab.__all__
    if inspect.isclass(getattr(fxlab, name)) and name not in NOT_MADE
    for method, parameter in methods_of(getattr(fxlab, name))
]


@pytest.fixture(scope="module")
def made(lab, session):
    """Return one of each thing whose methods take texts, by its class."""
    result, swept = fxlab.backtest(session, **RUN), fxlab.sweep(session, **GRID, lab=lab)
    crossing = strategy.get("sma_cross")
    with MockVenue(generated(["BTC_USDT"], seed=1, rate=100, trades=10)) as venue:
        collector = lab.collect("binance", ["BTC_USDT"], url=venue.url, settle=0)
        found = [
            result, swept, fxlab.walk_forward(session, **GOOD["walk_forward"]), collector,
            fxlab.replay(session, **RUN), fxlab.FrameSource(session.prices()), crossing,
            crossing.parameters["fast"], result.execution, fxlab.Latency.parse("10ms"),
            fxlab.RunOptions(), fxlab.BatchJob(**GOOD["BatchJob"]), fxlab.Signals(pl.lit(0.0)),
            lab.settings, lab.cache,
        ]  # fmt: skip
        try:
            yield {type(one).__name__: one for one in found}
        finally:
            collector.stop()


def in_a_loop(function):
    """Return what calls a function where an event loop runs."""

    async def called(given):
        return function(**given)

    return functools.wraps(function)(lambda **given: asyncio.run(called(given)))


KNOWN = {
    "symbol": "BTC_USDT", "symbols": ["BTC_USDT"], "train": "10s", "point": 0, "name": "lot_size",
    "values": {}, "given": {}, "texts": {}, "text": "1", "time": "2026-01-01", "directory": "out",
    "options": {}, "compute": lambda ticks: ticks,
}  # fmt: skip


@pytest.mark.parametrize(("kind", "method", "parameter"), METHODS)
def test_what_functions_return_answers_a_hostile_text_or_refuses_it(
    made, tmp_path, monkeypatch, kind, method, parameter
):
    monkeypatch.chdir(deep(tmp_path))
    function = getattr(made[kind], method)
    if kind == "Collector":
        function = in_a_loop(function)
    needed = inspect.signature(function).parameters.values()
    known = {
        one.name: KNOWN.get(one.name)
        for one in needed
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD
    }
    assert_all_answered(function, parameter, known, kind, method)


def test_a_copy_of_a_session_stays_whatever_is_to_be_cleared(tmp_path):
    copies = fxlab.FrameCache(tmp_path / "copies", 2**30)
    kept = copies.folder / "one" / "revision" / "tick_prices BTC"
    kept.mkdir(parents=True)
    (kept / "price.arrow").write_bytes(bytes(10))
    for value in (*HOSTILE, *MORE):
        assert copies.clear(value) == 0
    assert copies.clear("one") == 10
    assert copies.folder.exists()


@pytest.mark.parametrize(
    ("kind", "parameter"),
    [
        (kind, parameter)
        for kind in ("BatchJob", "Execution", "FrameSource", "RunOptions", "Signals")
        for parameter in text_parameters(getattr(fxlab, kind))
    ],
)
def test_what_is_made_of_a_hostile_text_is_made_or_refused(session, kind, parameter):
    known = {"frame": session.prices()} if kind == "FrameSource" else GOOD.get(kind, {})
    assert_all_answered(getattr(fxlab, kind), parameter, known, kind)


@pytest.mark.parametrize("name", Settings.load().sources)
def test_a_setting_is_taken_or_refused(name):
    for value in tried(name):
        assert_answered(lambda value=value: Settings.load(**{name: value}))


# ---- the command line --------------------------------------------------------------------------

AWAY = {"lab", "demo"}
"""Commands that would go on for long: they are tried where no server answers."""
EMPTY = {"backup", "restore"}
"""Commands about all data of a server: they are tried in a home without any."""
BESIDE = {"mock": ["--for=0.05s"], "collect": ["--service", "--session=own"]}
"""Options by which a command ends by itself, and records nothing."""


def commands(group=None, words=()):
    """Yield the words of each command, and the command."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        elif not command.hidden:
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
    session, tmp_path, monkeypatch, free_ports, words, needed, place
):
    monkeypatch.chdir(deep(tmp_path))
    write_session(tmp_path, "tree", rows=4)
    if words[0] in AWAY | EMPTY:
        leave(monkeypatch, tmp_path / "home", free_ports(3), is_empty=words[0] in EMPTY)
    known = {
        "session_id": session.id, "strategy": "sma_cross", "path": str(tmp_path),
        "venue": "binance", "symbols": "BTC_USDT",
    }  # fmt: skip
    for value in tried(*words, place.name):
        line = list(words)
        for option in BESIDE.get(words[0], ()):
            if option.partition("=")[0] not in place.opts:
                line.append(option)
        for name in needed:
            if name != place.name:
                line.append(known.get(name, session.id))
        if place.param_type_name == "argument":
            line += ["--", value]
        else:
            line += [f"{place.opts[0]}={value}"]
        assert_told(line, value)


def assert_told(line, value):
    """Run a command line, which may refuse a value in few words, and may not fail otherwise."""
    answer = CliRunner().invoke(app, line)
    shown = answer.stderr + answer.stdout
    assert answer.exception is None or isinstance(answer.exception, SystemExit), (value, answer)
    assert "Traceback" not in shown
    assert len(answer.stderr) < 4 * LONGEST, (value[:80], answer.stderr[:400])


def leave(monkeypatch, home, ports, *, is_empty=False):
    """Let commands find no server: none of our own in an empty home, or one that is not there."""

    def become(*_):
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", become)  # as JupyterLab
    monkeypatch.setenv("FXLAB_HOME", str(home))
    names = ("QUESTDB_HTTP_PORT", "QUESTDB_PG_PORT", "QUESTDB_HEALTH_PORT")
    for name, port in zip(names, ports, strict=True):
        monkeypatch.setenv(f"FXLAB_{name}", str(port))
    if not is_empty:
        monkeypatch.setenv("FXLAB_QUESTDB_HOST", "127.0.0.1")
        monkeypatch.setenv("FXLAB_QUESTDB_PASSWORD", "of nobody")


@pytest.mark.parametrize("command", ["up", "down", "status", "doctor"])
def test_a_command_without_words_answers_hostile_settings_or_refuses_them(
    monkeypatch, tmp_path, free_ports, command
):
    leave(monkeypatch, tmp_path / "home", free_ports(3))
    for value in HOSTILE[:3]:
        monkeypatch.setenv("FXLAB_QUESTDB_USER", value)
        monkeypatch.setenv("FXLAB_QUESTDB_PASSWORD", value)
        assert_told([command], value)


# ---- panels --------------------------------------------------------------------------------------


def with_text(*, fast: int = 3, word: str = "one") -> fxlab.Signals:
    """Take a text, too.

    Parameters
    ----------
    fast, word
        What it takes.
    """
    del word
    return fxlab.Signals(target=pl.lit(float(fast)), lookback=0)


PANELS = {
    "SessionPicker": widgets.SessionPicker,
    "Workbench": lambda lab, one: widgets.Workbench(lab, session_id=one, strategy="with_text"),
    "SweepPanel": lambda lab, one: widgets.SweepPanel(lab, session_id=one),
    "ReplayPanel": lambda lab, one: widgets.ReplayPanel(lab, session_id=one),
    "QualityPanel": lambda lab, one: widgets.QualityPanel(lab, session_id=one),
    "RunsBrowser": lambda lab, _: widgets.RunsBrowser(lab),
    "LiveMonitor": lambda lab, _: widgets.LiveMonitor(lab),
    "ExecutionForm": lambda _lab, _: widgets.ExecutionForm(),
    "GridForm": lambda _lab, _: widgets.GridForm("sma_cross"),
    "StrategyForm": lambda _lab, _: widgets.StrategyForm("with_text"),
}
NO_FIELD = {"KeyGuard", "ProgressBar", "PickerState", "ZoomableChart", "workbench"}


def parts(widget):
    """Yield a widget and all that is in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts(child)


def shown(panel):
    """Return the HTML that a panel shows."""
    return "\n".join(one.value for one in parts(panel) if isinstance(one, w.HTML))


def test_every_panel_is_tried():
    assert {*PANELS} == {*widgets.__all__} - NO_FIELD


@pytest.mark.parametrize("name", PANELS)
def test_a_field_of_a_panel_takes_a_hostile_text_or_says_what_is_wrong(
    lab, session, monkeypatch, name
):
    monkeypatch.setitem(strategy._REGISTRY, "with_text", strategy.get(with_text))
    panel = PANELS[name](lab, session.id)
    fields = [one for one in parts(panel) if isinstance(one, w.Text | w.Textarea | w.Combobox)]
    assert fields
    picker = [*parts(panel.picker)] if hasattr(panel, "picker") else []  # a panel of its own
    before, is_wrong = shown(panel), [WRONG in one._dom_classes for one in fields]
    for number, field in enumerate(fields):
        kept = field.value
        for value in WORST if field in picker else tried(name, str(number)):
            field.set_state({"value": value})  # as the browser says it
            told = shown(panel)
            assert "<img" not in told, (field.description, value)
            assert "<b>x" not in told, (field.description, value)
            assert "Traceback" not in told, (field.description, value)
            assert len(told) < len(before) + 4 * LONGEST, (field.description, value[:80])
            assert repr(panel)
        field.set_state({"value": kept})
        assert shown(panel) == before, field.description
    assert [WRONG in one._dom_classes for one in fields] == is_wrong
