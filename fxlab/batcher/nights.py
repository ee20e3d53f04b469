"""The same sweeps, night after night: whatever is new is tried, nothing is tried twice.

A sweep that fails costs its own row. What was tried in earlier nights counts: a best point that is
looked for every night is found sooner or later, and the deflated Sharpe ratio knows how often.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from fxlab import html
from fxlab.backtester.report import write_whole
from fxlab.batcher import night_page
from fxlab.batcher.batching import connected, only_one
from fxlab.batcher.night_table import ended, failed, table
from fxlab.batcher.nightly_sweeps import NightlySweep, checked
from fxlab.batcher.plans import entries
from fxlab.errors import Cancelled, FxlabError, SweepCancelled
from fxlab.progress import Advance, part, silent
from fxlab.sweeper.local import check_workers

if TYPE_CHECKING:
    from fxlab.lab import Lab
    from fxlab.sweeper.sweep import Sweep


@dataclass(frozen=True)
class Night:
    """What became of the sweeps of a night.

    Attributes
    ----------
    table : polars.DataFrame
        One row a sweep; see `fxlab.batcher.night_table.table`.
    sweeps : dict of Sweep
        By name, those that did not fail.
    index : Path
        The page that shows them.
    """

    table: pl.DataFrame = field(repr=False)
    sweeps: dict[str, Sweep] = field(repr=False)
    index: Path

    @property
    def failed(self) -> pl.DataFrame:
        """Return the rows of sweeps that failed."""
        return self.table.filter(pl.col("state") == "failed")

    def __str__(self) -> str:
        """Say it in one line."""
        points, known = (int(self.table[name].sum()) for name in ("points", "from_before"))
        return (
            f"{self.table.height:,} sweeps, {self.failed.height:,} failed; {points:,} points, "
            f"{known:,} of them from before; see {self.index}"
        )

    def _repr_html_(self) -> str:
        return html.table(self.table.drop("seconds"), caption=str(self))


def nightly(
    sweeps: str | Path | Sequence[Mapping[str, Any]],
    *,
    out: str | Path,
    lab: Lab | None = None,
    workers: int | None = None,
    night: date | None = None,
    progress: Advance = silent,
) -> Night:
    """Run sweeps one after the other, keep every point, and write a page of what they gave.

    Run it twice in one night, or again after it was killed: no point is replayed twice.

    Parameters
    ----------
    sweeps
        Mappings with the fields of `fxlab.batcher.nightly_sweeps.NightlySweep`, or a TOML file
        with a table ``[defaults]`` and a table ``[[sweep]]`` for each.
    out
        The folder of all nights; each has a folder in it, named by its date, with ``index.html``
        and the whole table of every sweep as Parquet. ``index.html`` above leads to all nights.
    lab
        Where the sessions are and points are kept; connected to unless given.
    workers
        Threads; as many as there are cores unless given.
    night
        The date; that of now, in UTC, unless given.
    progress
        Told the share done, the sweep and the time left; raise `Cancelled` in it to stop.

    Raises
    ------
    InvalidInput
        Before anything runs: every sweep that is not possible, and why.
    Cancelled
        If it was interrupted; every point that was done is kept.
    """
    threads, day = check_workers(workers), night or datetime.now(UTC).date()
    plan = checked(entries(sweeps, "sweep"))
    root = Path(out).resolve()
    with connected(lab) as store, only_one(root):
        log = _Log(root, day)
        for number, one in enumerate(plan):
            advance = _named(part(progress, number / len(plan), (number + 1) / len(plan)), one.name)
            log.add(one, store, threads, advance)
        progress(1.0, f"{len(plan):,} sweeps")
        return log.show()


class _Log:
    """The sweeps of a night so far, and its page."""

    def __init__(self, root: Path, day: date) -> None:
        self._root, self._day = root, day
        self._folder = root / day.isoformat()
        self._folder.mkdir(exist_ok=True)
        self._rows: list[dict[str, Any]] = []
        self._sweeps: dict[str, Sweep] = {}

    def add(self, one: NightlySweep, lab: Lab, workers: int, progress: Advance) -> None:
        """Run a sweep and note how it ended; only an interruption goes on to the caller."""
        began = datetime.now(UTC)
        try:
            found = one.run(lab, workers, progress)
        except (KeyboardInterrupt, Cancelled) as stop:
            self._stopped(one, stop, began)
        except FxlabError as error:
            self._rows.append(failed(one, str(error), began))
        except Exception as error:  # noqa: BLE001 - a night goes on, whatever one sweep meets
            path = self._folder / f"{one.slug}.error.txt"
            write_whole(path, traceback.format_exc())
            words = f"{type(error).__name__}: {error}; the traceback is in {path.name}"
            self._rows.append(failed(one, words, began))
        else:
            self._keep(one, found, began)
        self.show()

    def show(self) -> Night:
        """Write the page of the night and that of all nights."""
        page = self._folder / "index.html"
        write_whole(page, night_page.render(self._day, self._rows, self._sweeps))
        write_whole(self._root / "index.html", night_page.render_all(self._root))
        return Night(table(self._rows), self._sweeps, page)

    def _keep(self, one: NightlySweep, found: Sweep, began: datetime) -> None:
        found.table.write_parquet(self._folder / f"{one.slug}.parquet")
        self._sweeps[one.name] = found
        self._rows.append(ended(one, found, began))

    def _stopped(self, one: NightlySweep, stop: BaseException, began: datetime) -> None:
        if isinstance(stop, SweepCancelled):
            self._keep(one, stop.sweep, began)  # type: ignore[arg-type]  # errors know no sweep
        page = self.show().index
        raise Cancelled(
            f"the night was stopped in its sweep {one.name!r}; every point that was done is kept, "
            f"{page} shows them, and the same call goes on from there"
        ) from stop


def _named(progress: Advance, name: str) -> Advance:
    return lambda share, words: progress(share, f"{name}: {words}")
