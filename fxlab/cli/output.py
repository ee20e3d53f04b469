"""How the command line speaks: tables and plain lines out, errors as one red sentence."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from fxlab.errors import FxlabError

if TYPE_CHECKING:
    import polars as pl

PIPE_WIDTH = 10_000
"""Columns of output that is no terminal: nothing is cut or wrapped in a file."""


class ErrorsAsSentences(TyperGroup):
    """Commands whose `FxlabError` ends as one line on standard error and exit code 1."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - typer brings its own click, or not
        """Run the command."""
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            try:
                return super().invoke(ctx)
            except FxlabError as error:
                if ctx.params.get("debug"):
                    raise
                _complain("Error", error, "red")
                raise typer.Exit(1) from None


def say(text: str) -> None:
    """Print a plain line."""
    _console().print(Text(text), soft_wrap=True)


def show_rows(columns: Iterable[str], rows: Iterable[Iterable[object]], title: str = "") -> None:
    """Print rows of values as a table; no text in them is taken for markup."""
    table = Table(*columns, title=title or None, title_justify="left", header_style="bold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    _console().print(table)


def show_frame(frame: pl.DataFrame, title: str = "") -> None:
    """Print a frame as a table."""
    show_rows(frame.columns, frame.iter_rows(), title)


@contextmanager
def live(view: Any) -> Iterator[None]:  # noqa: ANN401 - whatever rich can draw
    """Draw a view anew several times a second; nothing where there is no terminal."""
    if not sys.stdout.isatty():
        yield
        return
    from rich.live import Live

    with Live(view, console=_console(), refresh_per_second=8):
        yield


def _cell(value: object) -> Text:
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Text(_number(value), justify="right")
    return Text(_words(value))


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if abs(value) < 1_000 else f"{value:,.2f}"


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _complain(kind: str, problem: object, style: str) -> None:
    console = Console(stderr=True)
    console.print(Text(f"{kind}: {' '.join(str(problem).split())}", style=style), soft_wrap=True)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    _complain("Warning", message, "yellow")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
