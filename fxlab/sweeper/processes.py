"""Several sessions at once: each in a process of its own, which reads its ticks itself.

Threads share all that is worth sharing for one session; for several, processes also share the work
of strategies that hold Python's lock. A process is started as a program, never forked: a fork
copies locks that threads hold, and importing the user's script again would run it again.
"""

from __future__ import annotations

import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, Final

from fxlab.errors import WorkerLost
from fxlab.sweeper import estimate
from fxlab.sweeper.child import Order
from fxlab.sweeper.lane import Outcome
from fxlab.sweeper.replaying import PULSE_SECONDS, Tick
from fxlab.sweeper.shipping import Parcel, pickled
from fxlab.sweeper.space import Point
from fxlab.sweeper.studies import Study

WORTH_SECONDS: Final = 20.0
"""Work of one core from which on starting processes pays."""


def worth(studies: Sequence[Study], points: int, workers: int) -> list[bytes] | None:
    """Return the studies as bytes if processes are worth it and possible, else None."""
    if len(studies) < 2 or workers < 2:
        return None
    if estimate.seconds_a_point(studies[0]) * points * len(studies) < WORTH_SECONDS:
        return None
    parcels = [Parcel.of(study, passwords=True) for study in studies]
    made = [pickled(parcel) for parcel in parcels if parcel is not None]
    whole = [one for one in made if one is not None]
    return whole if len(whole) == len(studies) else None


class Processes:
    """Sessions over processes; each takes the next session when it is done with one."""

    def __init__(self, studies: Sequence[Study], parcels: Sequence[bytes], workers: int) -> None:
        self._names = [study.session for study in studies]
        self._parcels = parcels
        count = min(workers, len(parcels))
        self._threads = max(1, workers // count)
        self._answers: queue.SimpleQueue[tuple[_Worker, str, Any]] = queue.SimpleQueue()
        self._workers = [_Worker(self._answers) for _ in range(count)]

    def run(
        self, work: Sequence[Sequence[Point]], tick: Tick
    ) -> Iterator[tuple[int, list[Outcome]]]:
        """Yield outcomes of all sessions as they come."""
        waiting = {number: list(points) for number, points in enumerate(work) if points}
        for worker in self._workers:
            self._employ(worker, waiting)
        while any(worker.number is not None for worker in self._workers):
            try:
                worker, kind, content = self._answers.get(timeout=PULSE_SECONDS)
            except queue.Empty:
                tick(sum(each.under_way for each in self._workers))
                continue
            number = worker.number
            if kind == "outcomes" and number is not None:
                worker.under_way = 0.0
                yield number, content
            elif kind == "under way":
                worker.under_way = content
                tick(sum(each.under_way for each in self._workers))
            elif kind == "ready":
                self._employ(worker, waiting)
            elif number is not None:
                raise content if kind == "error" else self._lost(worker, number)

    def close(self) -> None:
        """End the processes, whatever they do."""
        for worker in self._workers:
            worker.end()

    def _employ(self, worker: _Worker, waiting: dict[int, list[Point]]) -> None:
        """Give a worker the next session: one that it has read already, if there is one."""
        worker.number = None
        if not waiting:
            return
        taken = {number for other in self._workers for number in other.known}
        number = min(waiting, key=lambda n: (n not in worker.known, n in taken, n))
        worker.begin(number, self._parcels[number], waiting.pop(number), self._threads)

    def _lost(self, worker: _Worker, number: int) -> WorkerLost:
        return WorkerLost(
            f"the process that replayed session {self._names[number]} ended with code "
            f"{worker.process.wait()}: it was killed, or had too little memory; with lab=... the "
            "same call goes on from what is stored; workers=1 uses no other process"
        )


class _Worker:
    """One process, and the thread that listens to it."""

    def __init__(self, answers: queue.SimpleQueue[tuple[_Worker, str, Any]]) -> None:
        command = [sys.executable, "-m", "fxlab.sweeper.child"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own module
        self.known = set[int]()
        self.number: int | None = None
        self.under_way = 0.0
        self._answers = answers
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def begin(self, number: int, parcel: bytes, points: list[Point], threads: int) -> None:
        """Send an order."""
        content = None if number in self.known else parcel
        order = Order(number, content, points, threads, list(sys.path))
        self.known.add(number)
        self.number = number
        _send(self._pipe(self.process.stdin), order)

    def end(self) -> None:
        """Kill the process, and wait until it is gone."""
        self.process.kill()
        self.process.wait()
        self._listener.join()
        with suppress(BrokenPipeError):  # an order that was never read
            self._pipe(self.process.stdin).close()
        self._pipe(self.process.stdout).close()

    def _listen(self) -> None:
        answers = self._pipe(self.process.stdout)
        while True:
            try:
                kind, content = pickle.load(answers)  # noqa: S301 - from our own child, by a pipe
            except (EOFError, OSError, pickle.UnpicklingError):
                self._answers.put((self, "gone", None))
                return
            self._answers.put((self, kind, content))

    @staticmethod
    def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
        assert stream is not None  # noqa: S101 - for the type checker: both are pipes
        return stream


def _send(stream: IO[bytes], order: Order) -> None:
    try:
        pickle.dump(order, stream)
        stream.flush()
    except BrokenPipeError:  # the listener tells that it is gone
        return
