"""Commands about the server, its status and health, the settings and the notebooks."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fxlab._cli.common import command, keeping, say, show_facts, show_rows
from fxlab.config import Settings, path_of
from fxlab.errors import Cancelled, InvalidInput

if TYPE_CHECKING:
    from fxlab._questdb.server import ServerStatus

HERE = Path("notebooks")
COPY = Path("fxlab-notebooks")
QUICKSTART = "01_quickstart.ipynb"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(up)
    app.command()(down)
    command(app)(status)
    command(app)(doctor)
    command(app)(settings)
    app.command()(backup)
    app.command()(restore)
    app.command(context_settings={"ignore_unknown_options": True})(lab)
    app.command()(demo)


def up() -> None:
    """Start the embedded QuestDB server, unless it runs."""
    from fxlab.lab import up as start

    with keeping("the server that was starting was stopped, its data stays"):
        found = start(Settings.load())
    _show_status(found)


def down() -> None:
    """Stop the embedded QuestDB server."""
    from fxlab.lab import down as stop

    with keeping("the server was asked to end, and writes its data"):
        was_running = stop(Settings.load())
    say("stopped" if was_running else "no embedded server was running")


def status() -> None:
    """Tell whether a server runs, and where; exit code 3 when none does."""
    from fxlab._questdb import server

    found = server.status(Settings.load())
    _show_status(found)
    if found.endpoint is None:
        raise typer.Exit(3)


def doctor(
    *,
    mend: Annotated[
        bool,
        typer.Option(
            "--mend",
            help="First cure what can be cured: a server that died or hangs, suspended tables, "
            "recordings and purges that were cut off; each is shown.",
        ),
    ] = False,
) -> None:
    """Check everything fxlab needs; exit code 1 when something needs mending."""
    from fxlab._doctor import diagnose, is_well

    is_mended = not mend or _mend()
    checks = diagnose(Settings.load())
    marks = {True: "ok", False: "MEND", None: "-"}
    rows = [(marks[check.ok], check.name, check.value, check.next_step) for check in checks]
    show_rows(("state", "what", "found", "next step"), rows)
    if not (is_mended and is_well(checks)):
        raise typer.Exit(1)


def _mend() -> bool:
    """Cure thing by thing, show what became of each, and return whether nothing remains."""
    from fxlab._doctor import mend_each
    from fxlab._progress import shown

    with keeping("what was mended stays mended"), shown(None, "mending") as advance:
        cures = list(mend_each(Settings.load(), advance))
    rows = [
        ("MEND" if not each.ok else "mended" if each.done else "ok", each.name, each.would,
         "; ".join(each.done) or "nothing to do")
        for each in cures
    ]  # fmt: skip
    show_rows(("state", "what", "cure", "done"), rows, key="cures")
    return all(each.ok for each in cures)


def backup(
    folder: Annotated[Path, typer.Argument(help="A new folder, best on another disk.")],
) -> None:
    """Copy all data of the embedded server into a new folder; it is stopped meanwhile."""
    from fxlab.sessions._archive import backup as save

    with _all_or_nothing("no backup was made"):
        files = save(folder, Settings.load())
    say(f"{files.height:,} files, {int(files['size'].sum()) / 1e6:,.0f} MB, in {folder}")


def restore(
    folder: Annotated[Path, typer.Argument(help="What fxlab backup made.")],
) -> None:
    """Restore a backup into a home without data (FXLAB_HOME), and start its server."""
    from fxlab.sessions._archive import restore as bring_back

    with _all_or_nothing("nothing was restored, unless fxlab status tells of a server"):
        files = bring_back(folder, Settings.load())
    say(f"{files.height:,} files are restored, and the server runs; list: fxlab sessions list")


@contextlib.contextmanager
def _all_or_nothing(words: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Cancelled(words) from stop


def settings() -> None:
    """List the settings, their values and where each one came from."""
    show_rows(("setting", "value", "from", "meaning"), Settings.load().table())


def lab(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIRECTORY] [JUPYTER OPTIONS]...",
            help="The notebooks' folder (./notebooks, else a copy of the shipped ones in "
            "./fxlab-notebooks), then options for JupyterLab, such as --no-browser --port 8889.",
        ),
    ] = None,
) -> None:
    """Start the server and JupyterLab on the notebooks; an empty database gets the demo."""
    from fxlab import demo as tour
    from fxlab.lab import connect
    from fxlab.lab import up as start

    words = list(arguments or [])
    given = Path(words.pop(0)) if words and not words[0].startswith("-") else None
    folder = _notebooks(given)
    chosen = Settings.load()
    with keeping("the server stays up, what was imported is kept"):
        start(chosen)
        with connect(chosen) as opened:
            if tour.prepare_if_empty(opened):
                say("the database was empty: it has the two demo sessions now")
    say(f"notebooks in {folder}; the server stays up after JupyterLab ends, stop it: fxlab down")
    _become_jupyter(folder, words, chosen)


def demo(
    *,
    out: Annotated[Path, typer.Option(help="Folder for the reports.")] = Path("fxlab-demo"),
    show: Annotated[bool, typer.Option("--open/--no-open", help="Show them in a browser.")] = True,
) -> None:
    """Import real and generated ticks, backtest them and write reports: the whole tour."""
    from fxlab import demo as tour

    with keeping("what was imported is kept"):
        made = tour.run(out=out, settings=Settings.load())
    for result, report in zip(made.results, made.reports, strict=True):
        say(f"{result!r}\nreport: {report}\n")
        if show and any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))):
            typer.launch(str(report))
    say("the server stays up; open the notebooks with: fxlab lab, stop it with: fxlab down")


def _show_status(found: ServerStatus) -> None:
    at = found.endpoint
    rows = {
        "state": found.state,
        "pid": found.pid,
        "version": found.version,
        "console": at and at.http_url,
        "user": at and at.user,
        "password": found.passwords and f"http in {found.passwords}",
        "PostgreSQL": at and f"{at.host}:{at.pg_port}, user {at.pg_user}",
        "health": at and found.health_port and f"http://{at.host}:{found.health_port}",
        "started_at": found.started_at,
        "root": found.root,
        "log": found.log,
        "message": found.message,
    }
    show_facts([(name, str(it)) for name, it in rows.items() if it is not None], "server")


def _notebooks(given: Path | None) -> Path:
    """Return the folder to open, copying the shipped notebooks if the user has none."""
    if given is not None:
        if not path_of(given).is_dir():
            raise InvalidInput(f"{given} is not a folder; give one, or none for the notebooks")
        return given
    if (HERE / QUICKSTART).is_file():  # another project's notebooks are not meant
        return HERE
    package = Path(__file__).parents[1]
    shipped = next(filter(Path.is_dir, (package / "notebooks", package.parent / "notebooks")), None)
    if shipped is None:
        raise InvalidInput("this installation ships no notebooks; give a folder: fxlab lab FOLDER")
    for source in sorted((*shipped.rglob("*.ipynb"), *shipped.rglob("*.toml"))):
        copy = COPY / source.relative_to(shipped)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():  # never over the user's own edits
            shutil.copy2(source, copy)
    return COPY


def _become_jupyter(folder: Path, words: list[str], chosen: Settings) -> None:
    """Replace this process by JupyterLab; its own defaults guard it: token and loopback."""
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    has_it = (folder / QUICKSTART).is_file()
    first = [f"--LabApp.default_url=/lab/tree/{QUICKSTART}"] if has_it else []
    command = [sys.executable, "-m", "jupyterlab", *root, *first, *words, str(folder)]
    os.execve(sys.executable, command, os.environ | chosen.environment())  # noqa: S606 - no shell
