"""Output of commands: tables as text, JSON or CSV, and errors as one sentence in a shell's words.

A command hands its tables to `show_frame`, `show_rows` and `show_facts` and never asks which form
was wanted: `command` gives each of them ``--json`` and ``--csv``, and what is shown is written in
that form when the command is over. Plain lines go to standard error then, so that standard output
can be parsed.

Messages are written once, for Python users: ``list them with lab.sessions()``, ``use
fill='next_trade'``. `for_shell` turns calls into commands and keyword arguments into the options of
the command that runs, so no function has to know who is going to read its errors.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import inspect
import io
import json
import math
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer
from rich.console import Console, RenderableType
from rich.text import Text
from typer.core import TyperGroup

from fxlab.config import CONFIG_FILE, SECRET_NAMES, Settings
from fxlab.errors import Cancelled, FxlabError, InvalidParameter

if TYPE_CHECKING:
    import polars as pl

    from fxlab._cli.text_form import Column


# call -> command; the first that fits is taken
_CALLS: Final = (
    (r"lab\.sessions\(\) or: (?=fxlab )", ""),
    (r"list (\w+) with lab\.sessions\(\) and pass \[lab\.session\(session_id\), \.\.\.\]",
     r"list \1 with: fxlab sessions list"),
    (r"(?:with )?lab\.sessions\(\)", "with: fxlab sessions list"),
    (r"(?:with )?lab\.runs\(\)", "with: fxlab runs list"),
    (r"(?:with )?lab\.sweeps\(\)", "with: fxlab sweeps list"),
    (r"fxlab\.strategies\(\) lists the shipped ones; register yours with @fxlab\.strategy",
     "fxlab strategies lists the shipped ones; name yours as module:function"),
    (r"lab\.verify\('?([^')]*)'?\)", r"fxlab verify \1"),
    (r"lab\.(undelete|delete)\('?([^')]*)'?\)", r"fxlab sessions \1 \2"),
    (r"lab\.deleted\(\)", "fxlab sessions list --deleted"),
    (r"lab\.purge\(\)", "fxlab purge"),
    (r"lab\.purge\(\[?'([^']*)'\]?\)", r"fxlab purge \1"),
    (r"fxlab\.connect\(\)", "fxlab up"),
    (r"fxlab\.(up|down|strategies|doctor)\(\)", r"fxlab \1"),
    (r"the session's symbols are in session\.symbols",
     "fxlab sessions show SESSION tells the session's symbols"),
    (r"they are in this error's \.sweep and nowhere else; with lab=\.\.\. .* goes on from there",
     "nothing is kept; with --save, finished points are, and a stopped sweep goes on"),
    (r"the same call\b", "the same command"),
    (r"(?:execution=)?Execution\(latency='?([^')]*)'?\)", r"--latency \1"),
    (r"(?:execution=)?Execution\((\w+)='?([^')]*)'?\)", r"-x \1=\2"),
    (r"the traceback above shows where", "fxlab --debug ... shows where"),
)  # fmt: skip
QUOTES: Final = "'\""
_KEYWORD: Final = re.compile(
    r"(?<![\w.(-])([a-z_]+)=(True|False|None|'[^']*'|\"[^\"]*\"|-?\d[\w.]*(?<!\.)|(?=[\s;,)]|$))"
)


def for_shell(message: str, options: Mapping[str, str] | None = None) -> str:
    """Return a message in the words of the command line.

    Parameters
    ----------
    message
        Of an error or a warning.
    options
        The options of the command that runs, such as ``--fill``, by the keyword they stand for.
    """
    for call, words in _CALLS:
        message = re.sub(call, words, message)
    known = options or {}

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in known:
            return found[0]
        if known[name].endswith("="):
            return f"{known[name]}{value.strip(QUOTES)}"
        if value in {"True", "None"}:
            return known[name]
        if value == "False":
            return f"--no-{known[name].removeprefix('--')}"
        return f"{known[name]} {value.strip(QUOTES)}".rstrip()

    return _KEYWORD.sub(option, message)


INTERRUPTED: Final = 130
"""Exit code of a program that Ctrl-C ended."""


class Parts:
    """What a command shows in JSON or CSV: parts by name, the last one being the main table."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.shown: dict[str, Any] = {}
        self.heads: dict[str, Sequence[str]] = {}

    def write(self) -> None:
        """Write the parts to standard output; the CSV of what has several is the main one."""
        if not self.shown:
            return
        if self.form == "json":
            whole = next(iter(self.shown.values())) if len(self.shown) == 1 else self.shown
            plain = (
                not (sys.stdout.encoding or "").lower().startswith("utf")
            )  # then \u20bf is exact
            print(json.dumps(whole, indent=1, ensure_ascii=plain, default=str))  # noqa: T201
            return
        *others, main = self.shown
        _write_csv(self.shown[main], self.heads.get(main, ("name", "value")))
        if others:
            left = ", ".join(others)
            _note(f"the CSV leaves out: {left}; --json has everything")


_parts: Parts | None = None  # of the command that runs: a process runs one at a time
_words: Sequence[str] = ()  # and what was typed


class ErrorsAsSentences(TyperGroup):
    """Commands whose `FxlabError` ends as one line on standard error and exit code 1.

    Ctrl-C ends a command with exit code 130, and a line says what is kept and how to go on.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - see below
        """Read what was typed, and remember it."""
        global _words  # noqa: PLW0603
        _words = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer brings its own click, or not
        """Run the command."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except (FxlabError, KeyboardInterrupt) as error:
                if ctx.params.get("debug"):
                    raise
                if isinstance(error, Cancelled | KeyboardInterrupt):
                    _stopped(for_shell(str(error)) or "nothing is kept")
                    raise typer.Exit(INTERRUPTED) from None
                _complain("Error", for_shell(str(error), _options(self, ctx)), "red")
                for note in getattr(error, "__notes__", ()):  # of what went wrong beside it
                    _note(note)
                raise typer.Exit(1) from None


class ListsByDefault(TyperGroup):
    """`fxlab runs --limit 5` is `fxlab runs list --limit 5`, as it was before 0.4; until 0.5."""

    default = "list"

    def parse_args(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - as above
        """Read what was typed, and put the default where no command is named."""
        asks_help = bool(args) and args[0] in ctx.help_option_names
        named = bool(args) and not args[0].startswith("-")
        return super().parse_args(ctx, args if named or asks_help else [self.default, *args])


def options_of(group: type) -> list[inspect.Parameter]:
    """Return the options of a group: a class with an attribute for each, annotated for typer."""
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=getattr(group, name), annotation=kind
        )
        for name, kind in get_type_hints(group, include_extras=True).items()
    ]


def takes(group: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command a group's options, where `options` stands in it.

    The command is handed what was typed, by the names of the options.
    """
    shared = options_of(group)

    def add(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, **words: Any) -> None:  # noqa: ANN401 - what typer has read
            options = {one.name: words.pop(one.name) for one in shared}
            function(*args, options=options, **words)

        own = inspect.signature(function, eval_str=True).parameters.values()
        shown = [[one] if one.name != "options" else shared for one in own]
        _show_options(run, [one for part in shown for one in part])
        return run

    return add


def _show_options(run: Callable[..., None], parameters: Sequence[inspect.Parameter]) -> None:
    """Give a function that wraps a command the signature that typer and `inspect` read."""
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}


class _Forms:
    """The forms of a command's output."""

    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the (main) table as CSV.")] = False


def command(
    app: typer.Typer,
    name: str | None = None,
    **options: Any,  # noqa: ANN401 - of typer
) -> Callable[..., Any]:
    """Return a decorator that adds a command with ``--json`` and ``--csv`` to an app."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*args: Any, as_json: bool, as_csv: bool, **given: Any) -> None:  # noqa: ANN401
            with _form(as_json=as_json, as_csv=as_csv):
                function(*args, **given)

        own = inspect.signature(function, eval_str=True).parameters.values()
        _show_options(run, [*own, *options_of(_Forms)])
        app.command(name, **options)(run)
        return function

    return add


def say(text: str) -> None:
    """Print a plain line."""
    if _parts is not None:
        _note(for_shell(text))
        return
    _console().print(Text(for_shell(text)), soft_wrap=True)


def show_rows(
    columns: Sequence[str], rows: Iterable[Iterable[object]], title: str = "", *, key: str = "rows"
) -> None:
    """Print rows of values as a table."""
    made = [tuple(row) for row in rows]
    if _parts is not None:
        _parts.shown[key] = [dict(zip(columns, map(_plain, row), strict=True)) for row in made]
        _parts.heads[key] = columns
        return
    from fxlab._cli.text_form import columns_of_values

    cells = list(zip(*made, strict=True)) or [()] * len(columns)
    _print(columns_of_values(columns, cells), title)


def show_facts(pairs: Iterable[tuple[str, object]], title: str, *, key: str = "facts") -> None:
    """Print names and values, one pair a line; an object in JSON."""
    made = dict(pairs)
    if _parts is not None:
        _parts.shown[key] = {name: _plain(value) for name, value in made.items()}
        return
    from fxlab._cli.text_form import columns_of_facts

    _print(columns_of_facts(made, title))


def show_frame(
    frame: pl.DataFrame,
    title: str = "",
    *,
    empty: str = "",
    key: str = "rows",
    most: int | None = None,
    total: int | None = None,
    more: str = "--json and --csv have them all",
    leave_out: Sequence[str] = (),
) -> None:
    """Print a frame as a table.

    Parameters
    ----------
    frame
        The rows.
    title
        A line above them.
    empty
        Said instead of a text table without rows.
    key
        The frame's name in JSON that has several parts.
    most
        Rows that text shows, the first ones; JSON and CSV have all of the frame.
    total
        How many rows there are, where the frame holds only the first of them.
    more
        How to see the others: ends the line that tells how many of how many are shown.
    leave_out
        Columns that only JSON and CSV show.
    """
    total = frame.height if total is None else total
    if _parts is None:
        frame = frame.head(frame.height if most is None else most)
    if _parts is not None:
        rows = [{name: _plain(v) for name, v in row.items()} for row in frame.iter_rows(named=True)]
        _parts.shown[key] = rows
        _parts.heads[key] = frame.columns
    elif frame.is_empty() and empty:
        say(empty)
    else:
        from fxlab._cli.text_form import columns_of_frame

        _print(columns_of_frame(frame.drop(leave_out, strict=False)), title)
    if total > frame.height:
        say(f"{frame.height:,} of {total:,} shown; {more}".rstrip("; "))


SIZES_SHOWN: Final = (
    "symbol", "kind", "contract_size", "tick_size", "lot_size", "min_qty", "min_notional", "expiry",
    "taker_bps", "maker_bps",
)  # fmt: skip
"""What text shows of a venue's listing."""


def show_newest(
    frame: pl.DataFrame, limit: int, *, empty: str, leave_out: Sequence[str] = ()
) -> None:
    """Print the first rows of a listing, and how many there are; as `show_frame` does."""
    total, more = frame.height, "--limit shows more"
    show_frame(frame.head(limit), empty=empty, total=total, more=more, leave_out=leave_out)


def is_text() -> bool:
    """Return whether tables are shown as text, which may be shortened where that is said."""
    return _parts is None


def same_command(**changed: str) -> str:
    """Return the command line that runs, as it can be typed again, with other values of options."""
    words = list(_words)
    for name, value in changed.items():
        option = f"--{name}"
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
        words = [word for word in words if not word.startswith(f"{option}=")]
        words += [option, value] if value else [option]
    return shlex.join(["fxlab", *words])


def command_words() -> list[str]:
    """Return the words of the command that runs, as they were typed."""
    return list(_words)


def program() -> list[str]:
    """Return the words that run fxlab from anywhere."""
    own = Path(sys.executable).with_name("fxlab")
    return [str(own)] if own.is_file() else [sys.executable, "-m", "fxlab"]


def own_variables(words: Sequence[str]) -> dict[str, str]:
    """Return fxlab's own variables for a command that another program starts; secret ones are told.

    Raises
    ------
    InvalidParameter
        For a word, folder or value that no line of a file can hold.
    """
    names = {f"FXLAB_{one.name.upper()}" for one in dataclasses.fields(Settings)}
    secret = {f"FXLAB_{name.upper()}" for name in SECRET_NAMES}
    variables = {name: os.environ[name] for name in sorted(names - secret) if name in os.environ}
    folder = str(Path.cwd())
    for text in (*words, folder, *variables.values()):
        if not text.isprintable():
            raise InvalidParameter(
                f"{text!r:.200} has a line break or another control character, which no crontab "
                "can hold; rename it"
            )
    left_out = sorted(secret & os.environ.keys())
    if left_out:
        say(
            f"# Left out, for it is secret: {', '.join(left_out)}; write it into {CONFIG_FILE} in "
            f"{folder}"
        )
    return variables


def _unit_word(word: str) -> str:
    """Return a word as systemd reads it, where % begins a specifier."""
    escaped = word.replace("\\", r"\\").replace('"', r"\"").replace("%", "%%")
    return escaped if re.fullmatch(r"[\w@%+=:,./-]+", escaped) else f'"{escaped}"'


def systemd_service(
    words: Sequence[str],
    folder: str,
    variables: Mapping[str, str],
    description: str,
    how: Sequence[str],
) -> str:
    """Return the systemd service that runs a command in a folder; `how` are lines of its own."""
    first, *others = map(_unit_word, words)
    own = [f"Environment={_unit_word(f'{name}={value}')}" for name, value in variables.items()]
    # The program is no place for variables, so a $ in its path stands for itself.
    line = " ".join([first, *(word.replace("$", "$$") for word in others)])
    where = f"WorkingDirectory={folder.replace('%', '%%')}"
    head = ["[Unit]", f"Description={description.replace('%', '%%')}", "", "[Service]"]
    return "\n".join([*head, *how, where, *own, f"ExecStart={line}"])


@contextmanager
def live(picture: Callable[[], RenderableType]) -> Iterator[None]:
    """Redraw a picture several times a second; nothing where there is no terminal."""
    if not sys.stdout.isatty():
        yield
        return
    from rich.live import Live

    with Live(get_renderable=picture, console=_console(), refresh_per_second=8):
        yield


@contextmanager
def signals_call(stop: Callable[[], object]) -> Iterator[list[int]]:
    """Let Ctrl-C and SIGTERM end the block well: they call a function, and are in the list then."""
    came: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        stop()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _form(*, as_json: bool, as_csv: bool) -> Iterator[None]:
    """Gather what is shown, if a form is asked for, and write it when the command is over."""
    global _parts  # noqa: PLW0603 - a process runs one command
    if as_json and as_csv:
        raise InvalidParameter("--json and --csv are two forms of one output; give one of them")
    _parts = Parts("json" if as_json else "csv") if as_json or as_csv else None
    try:
        yield
    except typer.Exit:  # an answer that is no: it is shown all the same
        if _parts is not None:
            _parts.write()
        raise
    else:
        if _parts is not None:
            _parts.write()
    finally:
        _parts = None


def _write_csv(part: Any, heads: Sequence[str]) -> None:  # noqa: ANN401 - rows, or an object
    rows = (row.values() for row in part) if isinstance(part, list) else part.items()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(
        [" ".join(map(str, cell)) if isinstance(cell, list) else cell for cell in row]
        for row in rows
    )
    sys.stdout.write(text.getvalue())


def _plain(value: object) -> object:
    """Return a value as JSON has it: no nan, times as ISO 8601."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)


def _print(columns: list[Column], title: str = "") -> None:
    from fxlab._cli.text_form import lay_out

    terminal = _console()
    width = terminal.width if sys.stdout.isatty() else None
    table, needed, notes = lay_out(columns, width)
    if title:
        terminal.print(Text(for_shell(title), style="italic"), soft_wrap=True)
    # As wide as it is: a terminal that is narrower still breaks lines, and cuts nothing.
    Console(width=max(needed, 1), safe_box=True).print(table)
    for line in notes:
        terminal.print(Text(line, style="dim"), soft_wrap=True)


def _options(group: Any, ctx: Any) -> dict[str, str]:  # noqa: ANN401 - typer's own click
    """Return the options of the command that runs, by the keyword that they stand for."""
    found = group.get_command(ctx, ctx.invoked_subcommand) if ctx.invoked_subcommand else None
    if found is None:
        return {}
    options = {
        parameter.name: parameter.opts[0]
        for each in (found, *getattr(found, "commands", {}).values())
        for parameter in each.params
        if parameter.opts[0].startswith("--")
    }
    if "execution" in options:
        from fxlab.backtester.execution import Execution

        assumed = {field.name: f"-x {field.name}=" for field in dataclasses.fields(Execution)}
        options = assumed | options
    return options


def _complain(kind: str, problem: object, style: str) -> None:
    console = Console(stderr=True)
    console.print(Text(f"{kind}: {' '.join(str(problem).split())}", style=style), soft_wrap=True)


def _stopped(kept: str) -> None:
    """Say in one line what is kept, and what to run to go on, or to begin again."""
    how = "" if kept.endswith("goes on from there") else "; begin again with"
    _complain("Stopped", f"{kept}{how}: {same_command()}", "yellow")


@contextmanager
def keeping(words: str) -> Iterator[None]:
    """Say what Ctrl-C leaves of a command that is not all or nothing.

    Parameters
    ----------
    words
        Such as "what was imported is kept"; the same command has to go on from there.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Cancelled(f"{words}, and the same command goes on from there") from stop


def _note(text: str) -> None:
    Console(stderr=True).print(Text(text), soft_wrap=True)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _complain("Warning", for_shell(str(message)), "yellow")


def _console() -> Console:
    return Console(safe_box=True)
