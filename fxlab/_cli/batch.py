"""Commands of unattended work: a batch of notebooks, nightly sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fxlab._cli.common import command, say, show_frame

if TYPE_CHECKING:
    from fxlab.batcher.batch import Batch
    from fxlab.batcher.nightly import Night

FILE: Final = "Defaults, and a table for each"
CRONTAB: Final = (
    "Every night at 2, with this line in crontab -e (the embedded server must be up):\n\n\b\n"
    "0 2 * * * cd $HOME/research && .venv/bin/fxlab nightly nights.toml --out nights"
    " >> nights.log 2>&1"
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(batch)
    command(app, epilog=CRONTAB)(nightly)


def batch(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help=f"{FILE} job.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for notebooks, reports and the index.")],
    notebook: Annotated[
        str, typer.Option(help="A notebook that takes the parameters of the shipped one.")
    ] = "backtest",
    workers: Annotated[int, typer.Option(min=1, help="How many notebooks at a time.")] = 1,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Look for look-ahead first, on a sample.")
    ] = True,
    again: Annotated[bool, typer.Option("--again", help="Run also what is done.")] = False,
) -> None:
    """Run a notebook for each of many backtests; exit code 1 if one failed.

    Each leaves an executed notebook, a report and a saved run. Run it again to go on after a stop:
    what is done is not run twice.
    """
    import fxlab

    found = fxlab.batch(
        file,
        out=out,
        notebook=notebook,
        workers=workers,
        check_lookahead=check,
        again=again,
    )
    _show(found, "job", ("notebook", "report", "session"))


def nightly(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help=f"{FILE} sweep.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of all nights; each gets a page in it.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; every core unless given.")
    ] = None,
) -> None:
    """Run a list of sweeps, keep every point, write the night's page; exit code 1 if one failed.

    Sessions are named by id, by tag, or as the newest of a symbol. Run twice in one night, no point
    is replayed twice. Points of all nights count as trials when the best one is judged.
    """
    import fxlab

    found = fxlab.nightly(file, out=out, workers=workers)
    _show(found, "sweep", ("strategy", "sessions", "metric", "seconds"))


def _show(found: Batch | Night, kind: str, leave_out: Sequence[str]) -> None:
    """Show what became of the work; exit with 1 if some of it failed."""
    show_frame(found.table, leave_out=(*leave_out, "error"))
    for name, error in found.failed.select(kind, "error").iter_rows():
        say(f"{name}: {error}")
    say(str(found))
    if found.failed.height:
        raise typer.Exit(1)
