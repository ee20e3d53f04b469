"""The other end of `processes`: a process that replays what it is told over its standard input.

It reads pickled orders and writes pickled answers; whatever a strategy prints goes to standard
error. Run as ``python -m fxlab.sweeper.child`` by its parent only.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import IO, Any, Final

from fxlab.sweeper.replaying import outcomes
from fxlab.sweeper.shipping import load
from fxlab.sweeper.space import Point
from fxlab.sweeper.studies import Study

TELL_SECONDS: Final = 0.2


@dataclass(frozen=True)
class Order:
    """What a child is told to do: replay points of a study on so many threads."""

    number: int
    parcel: bytes | None
    """The study; None if the child has it already."""

    points: list[Point]
    workers: int
    path: list[str]
    """Where modules are imported from."""


@dataclass
class _Child:
    answers: IO[bytes]
    studies: dict[int, Study] = field(default_factory=dict)
    told_at: float = 0.0

    def obey(self, order: Order) -> None:
        """Replay the points and answer with outcomes as they come."""
        sys.path[:] = order.path
        if order.parcel is not None:
            self.studies[order.number] = load(order.parcel).opened()
        study = self.studies[order.number]
        with ThreadPoolExecutor(order.workers) as pool:
            for some in outcomes(study, order.points, pool, order.workers, self.tell):
                self.answer("outcomes", some)
        self.answer("ready", None)

    def tell(self, under_way: float) -> None:
        """Say how much is under way, now and then."""
        if time.monotonic() - self.told_at > TELL_SECONDS:
            self.told_at = time.monotonic()
            self.answer("under way", under_way)

    def answer(self, kind: str, content: Any) -> None:  # noqa: ANN401 - whatever there is to say
        """Write one answer."""
        pickle.dump((kind, content), self.answers)
        self.answers.flush()


def main() -> None:
    """Obey until the parent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    child = _Child(answers)
    while True:
        try:
            order: Order = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the parent, by a pipe
        except EOFError:
            return
        try:
            child.obey(order)
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001 - the parent raises it
            child.answer("error", _portable(error))


def _portable(error: Exception) -> Exception:
    """Return an error that can be pickled."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - whatever its class does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    main()
