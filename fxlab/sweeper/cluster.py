"""For those who outgrow one machine: points over the workers of a Dask cluster.

Dask moves tasks, not ticks: a worker opens a session itself and keeps what it read, a frame is sent
to all workers once. Groups of points are lost with a worker and given to another one, so a killed
worker costs time and no point.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from fxlab.backtester.result import VERSIONED
from fxlab.errors import InvalidParameter, WorkerLost
from fxlab.sweeper.replaying import Tick, next_size, outcomes
from fxlab.sweeper.shipping import Parcel, load, pickled
from fxlab.sweeper.space import Point
from fxlab.sweeper.studies import Study

if TYPE_CHECKING:
    from distributed import Client, Future

    from fxlab.sweeper.lane import Outcome

TRIES: Final = 3  # of a group, each with another worker
CONNECT_SECONDS: Final = 10
SHELF: Final = "fxlab_sweep_studies"
"""Attribute of a Dask worker under which it keeps the studies it has opened."""


@dataclass
class _Shelf:
    """The studies that one worker has opened; its threads share them."""

    studies: dict[str, Study] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


def replay_group(key: str, parcel: bytes, points: list[Point]) -> tuple[float, list[Outcome]]:
    """Replay some points on the worker that this runs on; return the seconds it took too."""
    study = _opened(key, parcel)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        groups = list(outcomes(study, points, pool, 1, _unheard))
    return time.monotonic() - began, [one for group in groups for one in group]


def _opened(key: str, parcel: bytes) -> Study:
    shelf = _shelf()
    with shelf.lock:
        if key not in shelf.studies:
            shelf.studies[key] = load(parcel).opened()
        return shelf.studies[key]


def _shelf() -> _Shelf:
    from distributed import get_worker

    shelf: _Shelf = get_worker().__dict__.setdefault(SHELF, _Shelf())
    return shelf


def _unheard(under_way: float) -> None:
    """Tell nobody: a group is short."""


def _forget(keys: Sequence[str], dask_worker: Any = None) -> None:  # noqa: ANN401 - Dask gives it
    shelf = dask_worker.__dict__.get(SHELF)
    for key in keys if shelf else ():
        shelf.studies.pop(key, None)


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in VERSIONED}


@dataclass
class _Group:
    """Points of one study that are on a worker."""

    number: int
    points: list[Point]
    tries: int = 1


class Cluster:
    """Points of all sessions over the workers of a Dask cluster.

    Parameters
    ----------
    studies
        What is replayed.
    scheduler
        The scheduler's address, or a connected ``distributed.Client``.
    """

    def __init__(self, studies: Sequence[Study], scheduler: object) -> None:
        self._studies = studies
        self._client, self._is_ours = _connected(scheduler)
        _check_workers(self._client)
        self._keys = [study.key for study in studies]
        self._parcels = [_parcel(study) for study in studies]
        self._sent: dict[int, Future] = {}

    def run(
        self, work: Sequence[Sequence[Point]], tick: Tick
    ) -> Iterator[tuple[int, list[Outcome]]]:
        """Yield outcomes as the workers return them."""
        from distributed import as_completed

        under_way: dict[Future, _Group] = {}
        coming = _Groups(work)
        arriving = as_completed(loop=self._client.loop)
        try:
            self._submit(coming, under_way, arriving)
            while under_way:
                future = next(arriving)
                group = under_way.pop(future)
                if future.status != "finished":
                    self._try_again(future, group, under_way, arriving)
                    continue
                seconds, found = future.result()
                coming.size = next_size(len(group.points), seconds, quick=True)
                self._submit(coming, under_way, arriving)
                yield group.number, found
                tick(0.0)
        finally:
            self._client.cancel(list(under_way))

    def _submit(
        self,
        coming: _Groups,
        under_way: dict[Future, _Group],
        arriving: Any,  # noqa: ANN401
    ) -> None:
        """Keep every thread of the cluster busy, and one group waiting for each."""
        threads = sum(self._client.nthreads().values())
        while len(under_way) < 2 * max(1, threads) and (group := coming.take()) is not None:
            self._send(group, under_way, arriving)

    def _send(
        self,
        group: _Group,
        under_way: dict[Future, _Group],
        arriving: Any,  # noqa: ANN401
    ) -> None:
        number = group.number
        if number not in self._sent:
            self._sent[number] = self._client.scatter(
                self._parcels[number], broadcast=True, hash=False
            )
        key, parcel = self._keys[number], self._sent[number]
        future = self._client.submit(replay_group, key, parcel, group.points, pure=False)
        under_way[future] = group
        arriving.add(future)

    def _try_again(
        self,
        future: Future,
        group: _Group,
        under_way: dict[Future, _Group],
        arriving: Any,  # noqa: ANN401
    ) -> None:
        """Give a group to another worker if its own was lost; raise what the work raised."""
        from distributed import KilledWorker

        error = future.exception() if future.status == "error" else None
        if error is not None and not isinstance(error, KilledWorker):
            raise error
        if group.tries == TRIES:
            raise WorkerLost(
                f"{TRIES} workers ended while they replayed the same {len(group.points)} points of "
                f"session {self._studies[group.number].session}: too little memory? With lab=... "
                "the same call goes on from what is stored"
            )
        group.tries += 1
        self._sent.pop(group.number, None)  # the parcel may have gone with the worker
        self._send(group, under_way, arriving)

    def close(self) -> None:
        """Free what the workers hold, and disconnect."""
        self._client.run(_forget, self._keys)
        self._sent.clear()
        if self._is_ours:
            self._client.close()


class _Groups:
    """Cuts the points of all studies into groups of the size that is right just then."""

    def __init__(self, work: Sequence[Sequence[Point]]) -> None:
        self.size = 1
        self._work = [(number, list(points)) for number, points in enumerate(work) if points]

    def take(self) -> _Group | None:
        """Return the next group, or None if there are no more points."""
        if not self._work:
            return None
        number, points = self._work[0]
        taken, rest = points[: self.size], points[self.size :]
        self._work[0] = (number, rest)
        if not rest:
            self._work.pop(0)
        return _Group(number, taken)


def _connected(scheduler: object) -> tuple[Client, bool]:
    """Return a client, and whether it has to be closed."""
    try:
        from distributed import Client
    except ImportError as error:
        raise InvalidParameter(
            "scheduler=... needs the package distributed; install it with: pip install "
            "'fxlab[cluster]', or leave it out to use this machine"
        ) from error
    if isinstance(scheduler, Client):
        return scheduler, False
    if not isinstance(scheduler, str):
        raise InvalidParameter(
            f"scheduler={scheduler!r:.80} is neither an address, such as 'tcp://10.0.0.1:8786', "
            "nor a distributed.Client"
        )
    try:
        return Client(scheduler, timeout=CONNECT_SECONDS, set_as_default=False), True
    except (OSError, ValueError) as error:
        raise InvalidParameter(
            f"no Dask scheduler answers at {scheduler!r} ({error}); start one with: dask "
            "scheduler, and workers with: dask worker ADDRESS"
        ) from error


def _check_workers(client: Client) -> None:
    """Make sure that there are workers, and that they compute what this process would."""
    own = _versions()
    for address, found in client.run(_versions).items():
        for name, version in own.items():
            if found.get(name) != version:
                raise InvalidParameter(
                    f"worker {address} has {name} {found.get(name)}, and this process has "
                    f"{version}: results would not be the same bits; install the same versions"
                )
    if not client.nthreads():
        raise InvalidParameter(
            f"the scheduler at {client.scheduler.address} has no workers; start some with: "
            f"dask worker {client.scheduler.address}"
        )


def _parcel(study: Study) -> bytes:
    parcel = Parcel.of(study, passwords=False)
    found = None if parcel is None else pickled(parcel)
    if found is None:
        raise InvalidParameter(
            f"strategy {study.run.strategy.name!r} or its source cannot be sent to other "
            "processes; put the strategy into a module that the workers can import"
        )
    return found
