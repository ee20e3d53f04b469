"""Executors of trials: threads, processes (loky), or the workers of a Dask cluster.

A process is started as a program, never forked: a fork copies locks that threads hold, and
importing the user's script again would run it again. It ends with this process, whatever ends that.
Threads share all that is worth sharing for one session; for several, processes also share the work
of strategies that hold Python's lock.

A study is `packed` for its way: what it needs, without what cannot travel. A frame travels as it
is; of a session its address does: the other process opens its own connection, so ticks go straight
from the database to where they are replayed. Passwords travel only through a pipe to a child of
this process; a worker elsewhere has to know its own.

Dask moves tasks, not ticks: a worker opens a session itself and keeps what it read, a frame is sent
to all workers once. Groups of points are lost with a worker and given to another one, so a killed
worker costs time and no point.
"""

from __future__ import annotations

import os
import pickle
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import closing
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fxlab._progress import Advance
from fxlab.backtester._feeds import needs_of
from fxlab.backtester._frame_source import FrameSource
from fxlab.backtester.execution import Execution
from fxlab.backtester.result import VERSIONED
from fxlab.errors import InvalidParameter, WorkerLost
from fxlab.sweeper import _study
from fxlab.sweeper._space import Point
from fxlab.sweeper._study import CachedSource, SweepStudy
from fxlab.sweeper._threads import (
    MOST_POINTS,
    PULSE_SECONDS,
    Threads,
    Tick,
    check_workers,
    next_size,
    run_trials,
)
from fxlab.sweeper._trial import TrialResult

if TYPE_CHECKING:
    from distributed import Client
    from loky import ProcessPoolExecutor


LOOK_SECONDS: Final = 0.2
"""How often a process looks whether its parent is there."""


def start(environment: Mapping[str, str] | None = None) -> ProcessPoolExecutor:
    """Return an executor of one process, started with the first task that it is given.

    Parameters
    ----------
    environment
        Variables for it, beside those of this process.
    """
    from loky import ProcessPoolExecutor

    # What a task leaves in memory is meant to stay: loky takes it for a leak from 300 MB on.
    variables = {**(environment or {}), "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"}
    return ProcessPoolExecutor(1, env=variables, initializer=_begin, initargs=(os.getpid(),))


def end(executor: Any) -> None:  # noqa: ANN401 - loky ships no types
    """Kill the process and all that it has started, and wait until they are gone."""
    executor.shutdown(wait=True, kill_workers=True)


def exit_code(error: BrokenExecutor) -> str:
    """Return the code that a lost process ended with, as far as it is known."""
    return ", ".join(re.findall(r"\((-?\d+)\)", str(error))) or "unknown"


def _begin(parent: int) -> None:
    """Prepare the new process: it hears of its parent's end only, and prints to standard error."""
    os.setsid()  # a Ctrl-C in the terminal is for the parent
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # Not psutil's wait: where there is no pidfd, it takes a parent that is not reaped for alive.
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)


def packed(study: SweepStudy, *, passwords: bool) -> bytes | None:
    """Return what another process needs of a study; None if it cannot leave this process.

    A function typed in a notebook travels by value, others by the name of their module.
    """
    import cloudpickle

    source: object = study.source.source if isinstance(study.source, CachedSource) else study.source
    if hasattr(source, "address"):
        source = source.address(passwords=passwords)
    elif not isinstance(source, FrameSource):
        return None
    try:
        found: bytes = cloudpickle.dumps((source, study.terms, study.example))
    except (pickle.PicklingError, AttributeError, TypeError):
        return None
    return found


def unpacked(found: bytes) -> SweepStudy:
    """Return the study of these bytes; they come from our own process or from its cluster."""
    source, terms, example = pickle.loads(found)  # noqa: S301 - never from a file or a stranger
    opened = source if isinstance(source, FrameSource) else source.opened()
    return SweepStudy(opened, terms, example)


WORTH_SECONDS: Final = 20.0
"""Work of one core from which on starting processes pays."""

Waiting = dict[int, list[Point]]
"""Number of a study to its points that no process has yet."""

Answer = tuple[int, list[TrialResult]]
"""How many points to take next, and what became of these."""

Sent = tuple["Future[Answer]", int, list[Point]]

_opened: dict[str, SweepStudy] = {}
"""The studies that this process has opened for others; its threads share them."""

_lock = threading.Lock()


def replay_group(key: str, spec: bytes | None, points: list[Point], threads: int) -> Answer:
    """Replay some points in the process that this runs in."""
    with _lock:
        if key not in _opened and spec is not None:
            _opened[key] = unpacked(spec)
        study = _opened[key]
    began = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        groups = run_trials(study, points, pool, threads, lambda _: None, size=len(points))
        found = [one for group in groups for one in group]
    size = next_size(len(points), time.monotonic() - began, quick=study.is_quick)
    return min(MOST_POINTS, size), found


def forget(keys: Sequence[str]) -> int:
    """Free the studies of this process; return how many others it has opened."""
    with _lock:
        for key in keys:
            _opened.pop(key, None)
        return len(_opened)


class Spread(ABC):
    """Points in groups over other processes; who those are is for those who inherit it."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._under_way: dict[Future[Answer], tuple[int, list[Point]]] = {}

    def run(
        self, work: Sequence[Sequence[Point]], tick: Tick
    ) -> Iterator[tuple[int, list[TrialResult]]]:
        """Yield outcomes of all sessions as they come."""
        waiting = {number: list(points) for number, points in enumerate(work) if points}
        under_way = self._under_way
        try:
            while waiting or under_way:
                while waiting and (sent := self._send(waiting)) is not None:
                    under_way[sent[0]] = sent[1:]
                for future in wait(under_way, PULSE_SECONDS, FIRST_COMPLETED).done:
                    number, points = under_way.pop(future)
                    try:
                        self._sizes[number], found = future.result()
                    except Exception as error:  # noqa: BLE001 - raised by the caller
                        self._failed(number, points, error)
                        waiting[number] = points + waiting.get(number, [])
                        continue
                    yield number, found
                tick(0.0)
        finally:
            for future in under_way:
                future.cancel()
            under_way.clear()

    def _take(self, waiting: Waiting, number: int) -> list[Point]:
        """Take points of a study out of those that wait, as many as are a second's work."""
        points, size = waiting.pop(number), self._sizes.get(number, 1)
        if points[size:]:
            waiting[number] = points[size:]
        return points[:size]

    @abstractmethod
    def close(self) -> None:
        """Stop what runs and free what is held."""

    @abstractmethod
    def _send(self, waiting: Waiting) -> Sent | None:
        """Give points to a free process; None if there is none."""

    @abstractmethod
    def _failed(self, number: int, points: list[Point], error: Exception) -> None:
        """Raise the error of a group, unless it should be tried again."""


def worth(studies: Sequence[SweepStudy], points: int, workers: int) -> list[bytes] | None:
    """Return the studies as bytes if processes are worth it and possible, else None."""
    if len(studies) < 2 or workers < 2:
        return None
    if _study.seconds_a_point(studies[0]) * points * len(studies) < WORTH_SECONDS:
        return None
    made = [packed(study, passwords=True) for study in studies]
    whole = [one for one in made if one is not None]
    return whole if len(whole) == len(studies) else None


class Processes(Spread):
    """Sessions over processes of this machine; each session is read by one of them only."""

    def __init__(self, studies: Sequence[SweepStudy], specs: Sequence[bytes], workers: int) -> None:
        super().__init__()
        self._names = [study.session for study in studies]
        self._specs = specs
        count = min(workers, len(specs))
        self._threads = max(1, workers // count)
        self._pools = [start() for _ in range(count)]
        self._busy: dict[int, Future[Answer]] = {}
        self._owners: dict[int, int] = {}

    def close(self) -> None:
        """End the processes, whatever they do."""
        for pool in self._pools:
            end(pool)

    def _send(self, waiting: Waiting) -> Sent | None:
        """Give a free process points of a session: one that it has read already, if there is."""
        for place, pool in enumerate(self._pools):
            if place in self._busy and not self._busy[place].done():
                continue
            numbers = [n for n in waiting if self._owners.get(n, place) == place]
            if not numbers:
                continue
            number = min(numbers, key=lambda n: (n not in self._owners, n))
            spec = None if number in self._owners else self._specs[number]
            self._owners[number] = place
            points = self._take(waiting, number)
            try:
                future = pool.submit(replay_group, str(number), spec, points, self._threads)
            except BrokenExecutor as error:  # it was lost while it had nothing to do
                self._failed(number, points, error)
                raise
            self._busy[place] = future
            return future, number, points
        return None

    def _failed(self, number: int, points: list[Point], error: Exception) -> None:
        if not isinstance(error, BrokenExecutor):
            raise error
        raise WorkerLost(
            f"the process that replayed {len(points)} points of session {self._names[number]} "
            f"ended with code {exit_code(error)}: it was killed, or had too little "
            "memory; with lab=... the same call goes on from what is stored; workers=1 uses no "
            "other process"
        ) from error


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


def replay_scenarios(
    studies: Sequence[SweepStudy],
    points: Sequence[Point],
    scenarios: Mapping[str, Execution],
    progress: Advance,
) -> list[dict[int, dict[str, np.ndarray]]]:
    """Return metrics under other assumptions: of each session, by the point's number, by scenario.

    Scenarios that read the same of the market share one pass, and each point's decisions.
    """
    found: list[dict[int, dict[str, np.ndarray]]] = [defaultdict(dict) for _ in studies]
    markets = defaultdict(list)
    for name, execution in scenarios.items():
        markets[needs_of([], execution)].append(name)
    total, done = max(1, len(markets) * len(studies) * len(points)), 0

    def tick(under_way: float) -> None:
        words = f"{done:,} of {total:,} points under {len(scenarios)} assumptions"
        progress(min(1.0, (done + under_way) / total), words)

    for names in markets.values():
        made = _under_scenarios(studies, [scenarios[name] for name in names])
        with closing(executor_for(made, check_workers(None), len(points), None)) as executor:
            for number, outcomes in executor.run([points] * len(made), tick):
                done += len(outcomes)
                for one in outcomes:
                    if one.state == "done":
                        values = (one.metrics, *one.scenarios)
                        found[number][one.number].update(zip(names, values, strict=True))
    return found


def _under_scenarios(
    studies: Sequence[SweepStudy], executions: Sequence[Execution]
) -> list[SweepStudy]:
    """Return the studies under other assumptions, of which the first stands for their own."""
    asked = studies[0].terms
    options = replace(asked.options, execution=executions[0])
    terms = replace(asked, options=options, scenarios=tuple(executions[1:]))
    return [SweepStudy(study.source, terms, study.example) for study in studies]
