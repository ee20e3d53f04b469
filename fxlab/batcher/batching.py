"""A batch as a recipe: check all jobs, run a notebook for each, keep what is done."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from fxlab.batcher import notebooks
from fxlab.batcher.board import Batch, Board
from fxlab.batcher.jobs import Job, checked
from fxlab.batcher.plans import entries
from fxlab.batcher.workers import Order, environment_for, run_all
from fxlab.errors import Cancelled, InvalidInput
from fxlab.progress import Advance, silent
from fxlab.sweeper.estimate import duration_words
from fxlab.sweeper.local import check_workers

if TYPE_CHECKING:
    from fxlab.lab import Lab


def batch(
    jobs: str | Path | Sequence[Job | Mapping[str, Any]],
    *,
    out: str | Path,
    notebook: str | Path = "backtest",
    workers: int | None = 1,
    lab: Lab | None = None,
    check_lookahead: bool = True,
    again: bool = False,
    progress: Advance = silent,
) -> Batch:
    """Run a notebook for each of many backtests, and write an index of what they gave.

    Each job leaves an executed notebook, a report that opens offline, and a saved run, the same
    bit by bit as that of `fxlab.backtest`. One that fails leaves its notebook with the error, and
    the others go on.

    Parameters
    ----------
    jobs
        Mappings with the fields of `fxlab.batcher.jobs.Job`, or a TOML file with a table
        ``[defaults]`` and a table ``[[job]]`` for each.
    out
        The folder for all of it, made if it is not there; its ``index.html`` is written anew after
        each job.
    notebook
        The path of a notebook with the parameters of the shipped one, ``"backtest"``.
    workers
        How many run at the same time, each in a kernel of its own; None is one a core.
    lab
        Where the sessions are and runs are saved; connected to unless given.
    check_lookahead
        First make sure, on a sample, that the strategy does not see the future.
    again
        Run also what is done. Otherwise a job is left alone whose notebook, report and saved run
        are there, made of the same data, strategy, parameters, assumptions and versions.
    progress
        Told the jobs done and the time left; raise `Cancelled` in it to stop.

    Raises
    ------
    InvalidInput
        Before anything runs: every job that is not possible, and why.
    Cancelled
        If it was interrupted; what is done is kept, and the same call goes on from there.
    """
    count, path, folder = check_workers(workers), notebooks.find(notebook), Path(out).resolve()
    found = entries(jobs, "job")
    with connected(lab) as store:
        ready = checked(found, store)
        given = [
            one.notebook_parameters(check_lookahead=check_lookahead, out=str(folder / one.folder))
            for one in ready
        ]
        notebooks.check_parameters(path, given[0])
        orders = [
            Order(path, values, folder / one.folder)
            for values, one in zip(given, ready, strict=True)
        ]
        with only_one(folder):
            board = Board(folder, ready, store, again=again)
            _run(board, orders, count, environment_for(store.settings.environment()), progress)
            return board.show()


@contextmanager
def connected(lab: Lab | None) -> Iterator[Lab]:
    """Lend the lab that is given, or one of our own."""
    if lab is not None:
        yield lab
        return
    from fxlab.connecting import connect

    with connect() as own:
        yield own


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Make a folder, and let one process at a time write into it.

    Raises
    ------
    InvalidInput
        If another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise InvalidInput(
            f"another run writes into {folder} at this moment; wait for it, or give another folder"
        ) from None


def _run(
    board: Board,
    orders: Sequence[Order],
    workers: int,
    environment: Mapping[str, str],
    progress: Advance,
) -> None:
    """Run the notebooks that are missing; whatever stops it, the page tells how far it came."""
    places = board.missing
    clock = _Clock(len(orders), len(places))

    def tick(running: int) -> None:
        progress(clock.share, f"{board.words}, {running} running{clock.left}")

    try:
        for number, ended in run_all([orders[at] for at in places], workers, environment, tick):
            board.note(places[number], ended)
            clock.ended += 1
            board.show()
        progress(1.0, board.words)
    except (KeyboardInterrupt, Cancelled) as stop:
        page = board.show().index
        raise Cancelled(
            f"the batch was stopped after {board.words}; what is done is in {page}, and the same "
            "call goes on from there"
        ) from stop


class _Clock:
    """How much of a batch is done, and how long the rest will take."""

    def __init__(self, total: int, missing: int) -> None:
        self.ended = 0
        self._total, self._missing = total, missing
        self._began = time.monotonic()

    @property
    def share(self) -> float:
        return (self._total - self._missing + self.ended) / self._total

    @property
    def left(self) -> str:
        """Return the time left in words; nothing while nobody can know."""
        if not self.ended:
            return f", {duration_words(time.monotonic() - self._began)} so far"
        rest = (self._missing - self.ended) * (time.monotonic() - self._began) / self.ended
        return f", {duration_words(rest)} left"
