"""Executors of trials: threads, processes (loky), or the workers of a Dask cluster.

Dask moves tasks, not ticks: a worker opens a session itself and keeps what it read, a frame is sent
to all workers once. Groups of points are lost with a worker and given to another one, so a killed
worker costs time and no point.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import CancelledError
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from fxlab.backtester.result import VERSIONED
from fxlab.errors import InvalidParameter, WorkerLost
from fxlab.sweeper._processes import (
    Processes,
    Sent,
    Spread,
    Waiting,
    forget,
    packed,
    replay_group,
    worth,
)
from fxlab.sweeper._space import Point
from fxlab.sweeper._study import SweepStudy
from fxlab.sweeper._threads import Threads

if TYPE_CHECKING:
    from distributed import Client

TRIES: Final = 3  # of a group, each with another worker
CONNECT_SECONDS: Final = 10


TrialExecutor = Threads | Spread
"""What replays points: `run` yields outcomes, `close` stops what runs and frees what is held."""


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in VERSIONED}


class Cluster(Spread):
    """Points of all sessions over the workers of a Dask cluster.

    Parameters
    ----------
    studies
        What is replayed.
    scheduler
        The scheduler's address, or a connected ``distributed.Client``.
    """

    def __init__(self, studies: Sequence[SweepStudy], scheduler: object) -> None:
        super().__init__()
        self._studies = studies
        self._client, self._is_ours = _connected(scheduler)
        _check_workers(self._client)
        self._executor = self._client.get_executor(pure=False)
        self._keys = [study.key for study in studies]
        self._parcels = [_parcel(study) for study in studies]
        self._shipped: dict[int, Any] = {}
        self._losses = Counter[tuple[int, int]]()

    def close(self) -> None:
        """Free what the workers hold, and disconnect."""
        self._executor.shutdown(wait=False)
        self._client.run(forget, self._keys)
        self._shipped.clear()
        if self._is_ours:
            self._client.close()

    def _send(self, waiting: Waiting) -> Sent | None:
        """Keep every thread of the cluster busy, and one group waiting for each."""
        if len(self._under_way) >= 2 * max(1, sum(self._client.nthreads().values())):
            return None
        number = min(waiting)
        if number not in self._shipped:
            self._shipped[number] = self._client.scatter(
                self._parcels[number], broadcast=True, hash=False
            )
        points, spec = self._take(waiting, number), self._shipped[number]
        future = self._executor.submit(replay_group, self._keys[number], spec, points, 1)
        return future, number, points

    def _failed(self, number: int, points: list[Point], error: Exception) -> None:
        """Return if the group's worker was lost, as often as that may happen."""
        from distributed import KilledWorker

        if not isinstance(error, KilledWorker | CancelledError):
            raise error
        group = number, points[0].number
        self._losses[group] += 1
        if self._losses[group] == TRIES:
            raise WorkerLost(
                f"{TRIES} workers ended while they replayed the same {len(points)} points of "
                f"session {self._studies[number].session}: too little memory? With lab=... "
                "the same call goes on from what is stored"
            ) from error
        self._shipped.pop(number, None)  # the study may have gone with the worker


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


def _parcel(study: SweepStudy) -> bytes:
    found = packed(study, passwords=False)
    if found is None:
        raise InvalidParameter(
            f"strategy {study.run.strategy.name!r} or its source cannot be sent to other "
            "processes; put the strategy into a module that the workers can import"
        )
    return found


def executor_for(
    studies: Sequence[SweepStudy],
    workers: int,
    points: int,
    scheduler: Any,  # noqa: ANN401 - a Dask client or its address
) -> TrialExecutor:
    """Return what runs the trials: Dask if asked for, processes where they pay, else threads."""
    if scheduler is not None:
        return Cluster(studies, scheduler)
    specs = worth(studies, points, workers)
    if specs is None:
        return Threads(studies, workers)
    return Processes(studies, specs, workers)
