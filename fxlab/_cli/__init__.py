"""Command line (typer): thin commands over the functions that notebooks use.

Each command gathers its options, calls one function, and prints what came back. An error that fxlab
raises on purpose is one red line; with --debug it is a traceback.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from fxlab._cli import backtest, collect, data, server, sweep
from fxlab._cli.common import ErrorsAsSentences, say

app = typer.Typer(
    cls=ErrorsAsSentences,
    help="Collect ticks, keep them in QuestDB, backtest strategies on them.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes 10:100:10 for a picture and [x] for a style
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        import fxlab

        say(f"fxlab {fxlab.__version__}")
        raise typer.Exit


@app.callback()
def fxlab(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Collect ticks, keep them in QuestDB, backtest strategies on them."""


server.register(app)
data.register(app)
collect.register(app)
backtest.register(app)
sweep.register(app)


def main() -> None:
    """Run the command line on this process's arguments."""
    # For strategies named module:function. Last, so that no file here hides a package.
    sys.path.append(os.getcwd())  # noqa: PTH109 - sys.path holds text
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that it cannot hold becomes a "?"
            stream.reconfigure(errors="replace")
    app()
