"""Commands of many backtests: parameter sweep, walk-forward, batch of notebooks, nightly sweeps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fxlab._cli.backtest import (
    EVERY,
    NO_DELETED,
    Deleted,
    Limit,
    Name,
    Parameters,
    RunWords,
    Words,
    given,
    named,
    run_options,
)
from fxlab._cli.common import (
    ListsByDefault,
    command,
    for_shell,
    is_text,
    own_variables,
    program,
    say,
    show_facts,
    show_frame,
    show_newest,
    systemd_service,
    takes,
)
from fxlab.backtester.options import parse_assumption
from fxlab.backtester.strategy.strategy import MOST_VALUES, Value, get
from fxlab.errors import InvalidParameter, SweepCancelled

if TYPE_CHECKING:
    import polars as pl

    from fxlab.backtester.strategy.strategy import Strategy
    from fxlab.batcher.batch import Batch
    from fxlab.lab import Lab
    from fxlab.sweeper._results import Night
    from fxlab.sweeper.sweep import Sweep

FILE: Final = "Defaults, and a table for each"
HOUR: Final = 2
"""When a night begins, by the clock of the machine."""


def _cron_word(word: str) -> str:
    """Return a word as a shell reads it, also from a crontab, where a bare % ends the command.

    A % stands outside quotes behind a backslash: whether cron takes that away or leaves it to the
    shell, the shell sees one %.
    """
    quoted = shlex.quote(word)
    return quoted.replace("%", "\\%" if quoted == word else "'\\%'")


def crontab_line(
    words: Sequence[str], folder: str, log: str, variables: Mapping[str, str] | None = None
) -> str:
    """Return the line of a crontab that runs a command in a folder every night."""
    own = [f"{name}={_cron_word(value)}" for name, value in (variables or {}).items()]
    command = " ".join([*own, *map(_cron_word, words)])
    return f"0 {HOUR} * * * cd {_cron_word(folder)} && {command} >> {_cron_word(log)} 2>&1"


NIGHTLY: Final = "fxlab nightly sweeps"
TIMER: Final = "\n".join(
    [
        "[Unit]", f"Description={NIGHTLY}", "", "[Timer]",
        f"OnCalendar=*-*-* {HOUR:02}:00:00", "Persistent=true", "", "[Install]",
        "WantedBy=timers.target",
    ]
)  # fmt: skip
UNITS: Final = "~/.config/systemd/user/fxlab-nightly"
ENABLE: Final = (
    "systemctl --user daemon-reload && systemctl --user enable --now fxlab-nightly.timer"
)
CRONTAB: Final = (
    f"Every night at {HOUR}, with a line such as this in crontab -e (the embedded server must be "
    "up); --print-schedule prints it for your folders, and a systemd timer:\n\n\b\n"
    + crontab_line(
        [".venv/bin/fxlab", "nightly", "nights.toml", "--out", "nights"],
        "/path/to/research",
        "nights.log",
    )
)

SHOWN: Final = 10
WINDOWS: Final = 50
"""Windows of a walk-forward that text shows; it may have thousands."""

Session = Annotated[str, typer.Argument(help="The session's id, or several with commas between.")]
Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        "-g",
        metavar="NAME=VALUES",
        help="fast=10:100:10 (from:to:step, both ends inside) or slow=50,100. May be given again.",
    ),
]
Metric = Annotated[str | None, typer.Option(help="The metric that compares points.")]
Search = Annotated[str | None, typer.Option(help="grid, random or optuna.")]
Points = Annotated[int | None, typer.Option(help="How many, for random and optuna.")]
Seed = Annotated[int | None, typer.Option(help="Of random and optuna.")]
Workers = Annotated[int | None, typer.Option(help="Threads; every core unless given.")]
Scheduler = Annotated[str | None, typer.Option(help="Address of a Dask scheduler.")]
Output = Annotated[
    Path | None, typer.Option(help="Write the whole table to this file, .csv or .parquet.")
]
Save = Annotated[
    bool, typer.Option("--save", help="Keep every point in the database, and repeat none.")
]
Timeout = Annotated[
    str | None, typer.Option(help="End a notebook that takes longer than this, as 30m.")
]
SweepId = Annotated[str, typer.Argument(help="Id of a kept sweep; see fxlab sweeps list.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    nights = typer.Typer(
        cls=ListsByDefault, rich_markup_mode=None, help="List what nightly sweeps found."
    )
    command(nights, "list")(list_nights)
    command(app)(sweep)
    command(app, "walk-forward")(walk_forward)
    command(app)(batch)
    command(app, epilog=CRONTAB)(nightly)
    group = typer.Typer(
        cls=ListsByDefault, rich_markup_mode=None, help="List and show kept sweeps."
    )
    command(group, "list")(list_sweeps)
    command(group, "show")(show_sweep)
    command(group, "delete")(delete_sweep)
    command(group, "undelete")(undelete_sweep)
    app.add_typer(group, name="sweeps")
    app.add_typer(nights, name="nights")


@takes(RunWords)
def sweep(
    session: Session,
    strategy: Name,
    *,
    grid: Grid = None,
    metric: Metric = None,
    search: Search = None,
    points: Points = None,
    seed: Seed = None,
    options: Words,
    workers: Workers = None,
    scheduler: Scheduler = None,
    points_limit: Annotated[int | None, typer.Option(help="Allow a grid of so many.")] = None,
    output: Output = None,
    save: Save = False,
) -> None:
    """Try many parameters of a strategy on one session or several, and print the best."""
    import fxlab

    chosen = get(strategy)
    _check_suffix(output)
    asked = run_options(**options) | given(
        metric=metric, search=search, points=points, seed=seed, workers=workers,
        scheduler=scheduler, points_limit=points_limit,
    )  # fmt: skip
    try:
        with fxlab.connect() as lab:
            found = fxlab.sweep(
                _sessions(lab, session),
                chosen,
                _grid(chosen, grid or []),
                lab=lab if save else None,
                **asked,
            )
    except SweepCancelled as stop:  # what is done is shown, and written where the table belongs
        _show_stopped(stop, output)
        raise
    _show(found)
    if output is not None:
        _write(found.table, output)


@takes(RunWords)
def walk_forward(
    session: Annotated[str, typer.Argument(help="The session's id.")],
    strategy: Name,
    *,
    grid: Grid = None,
    train: Annotated[str, typer.Option(help="Length of a training, such as 6h.")],
    test: Annotated[
        str | None, typer.Option(help="Length of a test, such as 1h; or give --folds.")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="How many tests, each as long as fits.")] = None,
    mode: Annotated[str | None, typer.Option(help="rolling or anchored.")] = None,
    embargo: Annotated[str | None, typer.Option(help="Between training and test.")] = None,
    metric: Metric = None,
    options: Words,
    workers: Workers = None,
    save: Save = False,
) -> None:
    """Choose parameters on the past, trade them on what follows, window by window."""
    import fxlab

    chosen = get(strategy)
    asked = run_options(**options) | given(
        test=test, folds=folds, mode=mode, embargo=embargo, metric=metric, workers=workers
    )
    with fxlab.connect() as lab:
        found = fxlab.walk_forward(
            lab.session(session),
            chosen,
            _grid(chosen, grid or []),
            train=train,
            lab=lab if save else None,
            **asked,
        )
    show_frame(found.summary, str(found), most=WINDOWS, leave_out=("train_start", "train_end"))


def list_sweeps(*, limit: Limit = 20, deleted: Deleted = False) -> None:
    """List the sweeps that are kept, newest first."""
    import fxlab

    with fxlab.connect() as lab:
        found = lab.sweeps(limit=EVERY, deleted=deleted)
    empty = "no sweeps are kept; keep one with: fxlab sweep SESSION STRATEGY --grid ... --save"
    show_newest(found, limit, empty=NO_DELETED if deleted else empty, leave_out=("plan",))


def list_nights(
    *,
    limit: Limit = 20,
    top: Annotated[
        int | None, typer.Option(min=1, help="Only so many of the best points of each sweep.")
    ] = None,
    text: Annotated[str, typer.Option("--text", help="Words in plan, sweep, date, ...")] = "",
) -> None:
    """List the best points of nightly sweeps, newest night first."""
    import polars as pl

    import fxlab

    with fxlab.connect() as lab:
        found = lab.nights(limit=EVERY, top=top, text=text)
    none = "no night" + " has all these words" * bool(text)
    first = ("night", "sweep", "rank", "parameters", "figure", "change", "deflated_sharpe")
    show_newest(
        found.select(*first, pl.exclude(first)),  # a narrow terminal shows the first columns
        limit,
        empty=f"{none}; run one with: fxlab nightly FILE.toml --out nights",
        leave_out=(
            "night_id", "strategy", "sessions", "tried", "run_id", "fingerprints", "sweep_ids",
            "error", "page", "started", "updated_at",
        ),
    )  # fmt: skip


def delete_sweep(sweep_id: SweepId) -> None:
    """Hide a kept sweep; nothing of it is lost: undelete brings it back, as running it does."""
    import fxlab

    with fxlab.connect() as lab:
        lab.delete_sweep(sweep_id)
    say(f"{sweep_id} is deleted; fxlab sweeps undelete {sweep_id} brings it back")


def undelete_sweep(
    sweep_id: Annotated[str, typer.Argument(help="The id; see fxlab sweeps list --deleted.")],
) -> None:
    """Bring a deleted sweep back."""
    import fxlab

    with fxlab.connect() as lab:
        say(f"{lab.undelete_sweep(sweep_id).sweep_id} is back")


def show_sweep(sweep_id: SweepId) -> None:
    """Show one kept sweep: what was asked, and what became of its points."""
    import fxlab

    names = (
        "sweep_id", "data_session_id", "strategy", "done", "failed", "skipped", "asked", "search",
        "started", "finished", "plan",
    )  # fmt: skip
    with fxlab.connect() as lab:
        found = lab.sweep(sweep_id)
        points, gone = found.points(), found.session_deleted
    show_facts([(name, getattr(found, name)) for name in names], "sweep", key="sweep")
    show_frame(points, "points", key="points", most=WINDOWS, leave_out=("fingerprint",))
    if gone:
        say(for_shell(gone))


def _sessions(lab: Lab, text: str) -> list[Any]:
    return [lab.session(name.strip()) for name in text.split(",") if name.strip()]


def _grid(strategy: Strategy, words: list[str]) -> dict[str, list[Value]]:
    """Return the grid that NAME=VALUES words stand for."""
    return {name: _values(strategy, name, text) for name, text in named(words, "-g").items()}


def _values(strategy: Strategy, name: str, text: str) -> list[Value]:
    texts = [value for value in text.split(",") if value.strip()]
    if text.count(":") == 2 and len(texts) == 1:
        texts = _stepped(name, text)
    return [strategy.parse({name: value})[name] for value in texts]


def _stepped(name: str, text: str) -> list[str]:
    """Return the values of FROM:TO:STEP as texts, exact in decimals; both ends are inside."""
    try:
        first, last, step = (Decimal(part) for part in text.split(":"))
        count = int((last - first) / step) + 1
    except (InvalidOperation, ZeroDivisionError, ValueError, OverflowError):
        count = 0
    if not 1 <= count <= MOST_VALUES:
        raise InvalidParameter(
            f"{name}={text!r:.80} is not FROM:TO:STEP with TO in reach, such as {name}=10:100:10"
        )
    return [str(first + step * number) for number in range(count)]


def _check_suffix(output: Path | None) -> None:
    """Refuse a file that no table can be written to, before anything runs."""
    if output is not None and output.suffix.lower() not in {".csv", ".parquet"}:
        raise InvalidParameter(f"{output} is neither .csv nor .parquet; name the file so")


def _write(table: pl.DataFrame, output: Path) -> None:
    if output.suffix.lower() == ".csv":
        table.write_csv(output)
    else:
        table.write_parquet(output)
    say(f"table: {output}")


def _show_stopped(stop: SweepCancelled, output: Path | None) -> None:
    done: Sweep = stop.sweep  # type: ignore[assignment]  # errors know no sweep
    if done.table.is_empty():
        return
    show_frame(done.ranking().head(SHOWN), f"so far: {done.title}")
    if output is not None:
        _write(done.table, output)


def _show(found: Sweep) -> None:
    ranking = found.ranking()
    more = "--output writes the whole table"
    empty = f"{found.title}: no point has a {found.metric}, for want of ticks or of trades"
    show_frame(ranking, found.title, empty=empty, most=SHOWN, more=more)
    say(str(found.counts))
    for error in found.failed["error"].head(1):
        say(f"first failure: {error}")
    if ranking.height > 1:
        say(str(found.overfitting()))
    for sweep_id in found.sweep_ids:
        say(f"kept: {sweep_id}")


def batch(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help=f"{FILE} job.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for notebooks, reports and the index.")],
    notebook: Annotated[
        str, typer.Option(help="A notebook that takes the parameters of the shipped one.")
    ] = "backtest",
    parameter: Parameters = None,
    workers: Annotated[int, typer.Option(min=1, help="How many notebooks at a time.")] = 1,
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Look for look-ahead first, on a sample.")
    ] = True,
    again: Annotated[bool, typer.Option("--again", help="Run also what is done.")] = False,
    timeout: Timeout = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check the jobs and show their folders; run nothing."),
    ] = False,
) -> None:
    """Run a notebook for each of many backtests; exit code 1 if one failed.

    Each leaves an executed notebook, a report and a saved run. Run it again to go on after a stop:
    what is done is not run twice. -p sets a parameter of all jobs; values are written as in the
    file, or bare.
    """
    import fxlab

    texts = named(parameter or [])
    own: dict[str, Any] = dict(parse_assumption(f"{name}={text}") for name, text in texts.items())
    found = fxlab.batch(
        file,
        out=out,
        notebook=notebook,
        parameters=own,
        workers=workers,
        check_lookahead=check,
        again=again,
        timeout=timeout,
        dry_run=dry_run,
    )
    if dry_run:
        show_frame(found.table.select("job", "state", "session", "folder"))
        say(f"nothing was run: {found.counts}; without --dry-run, the waiting ones are")
        return
    failures = [f"{name}: {error}" for name, error in found.failed.select("job", "error").rows()]
    _show_jobs(found, ("notebook", "report", "session", "folder"), failures)


def nightly(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help=f"{FILE} sweep.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of all nights; each gets a page in it.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Threads; every core unless given.")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=0, help="Run a notebook and a report for so many of the best points."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Keep so many nights whole, and of older ones the record that charts need.",
        ),
    ] = None,
    timeout: Timeout = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check the plan, show sessions and splits; run nothing."),
    ] = False,
    on_failure: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Run this, without a shell, after a failure; it reads what failed.",
        ),
    ] = None,
    print_schedule: Annotated[
        bool,
        typer.Option(
            "--print-schedule",
            help="Run nothing: print this command for crontab -e, and as a systemd timer.",
        ),
    ] = False,
) -> None:
    """Run a list of sweeps, keep every point, write the night's page; exit code 1 if one failed.

    Sessions are named by id, by tag, or as the newest of a symbol. Run twice in one night, no point
    is replayed twice. Points of all nights count as trials when the best one is judged. Each sweep
    is compared with the night before: better, decayed, same, new, gone, or why it is not compared.
    The file may hold options in a table [night]: top, keep, timeout, on_failure. Those given here
    come first; --top 0, --keep all, --timeout none and --on-failure "" switch them off.
    """
    import fxlab

    options: dict[str, Any] = {
        "workers": workers,
        "top": top,
        "keep": int(keep) if keep and keep.isdecimal() else keep,
        "timeout": timeout,
        "on_failure": on_failure,
    }
    if print_schedule:
        _print_schedule(file, out, options)
        return
    found = fxlab.nightly(file, out=out, dry_run=dry_run, **options)
    if dry_run:
        names = ("sweep", "state", "strategy", "sessions", "points", "splits", "metric")
        show_frame(found.table.select(names))
        for line in [*found.failures, "nothing was run; without --dry-run, it is"]:
            say(line)
        raise typer.Exit(bool(found.failures))
    show_frame(
        found.changes if is_text() else found.comparison,
        "against the night before",
        key="comparison",
        leave_out=("strategy", "metric", "parameters", "parameters_before"),
    )
    _show_jobs(found, ("strategy", "sessions", "metric", "seconds", *found.unused), found.failures)


def _print_schedule(file: Path, out: Path, options: dict[str, Any]) -> None:
    """Print what runs a night, with whole paths: cron and systemd start elsewhere."""
    from fxlab.batcher._jobs import checked_sweeps, load_jobs, read_plan
    from fxlab.batcher.runner import night_options, split_command

    plan = read_plan(file, "sweep")
    command = night_options(plan, **options)["on_failure"]
    night_options(plan)  # the plan's own words, when the night comes
    if command is not None:
        options = {**options, "on_failure": shlex.join(split_command(command))}
    checked_sweeps(load_jobs(plan, "sweep"))
    words = [*program(), "nightly", str(file.absolute()), "--out", str(out.absolute())]
    for name, value in options.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    folder, log, variables = str(Path.cwd()), f"{out.absolute()}.log", own_variables(words)
    parts = {
        "crontab": crontab_line(words, folder, log, variables),
        "service": systemd_service(words, folder, variables, NIGHTLY, ("Type=oneshot",)),
        "timer": TIMER,
    }
    if not is_text():
        show_facts(parts.items(), "schedule", key="schedule")
        return
    heads = ["crontab -e", f"{UNITS}.service", f"{UNITS}.timer"]
    for head, part in zip(heads, parts.values(), strict=True):
        typer.echo(f"# {head}\n{part}\n")
    typer.echo(f"# The embedded server must be up. A timer begins with:\n# {ENABLE}")


def _show_jobs(found: Batch | Night, leave_out: Sequence[str], failures: Sequence[str]) -> None:
    """Show what became of the work; exit with 1 if some of it failed."""
    show_frame(found.table, leave_out=(*leave_out, "error"))
    for line in failures:
        say(line)
    say(str(found))
    if failures:
        raise typer.Exit(1)
