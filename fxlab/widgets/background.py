"""Runs work beside the kernel's own thread, so that clicks are still heard."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, Final, TypeVar

_ASK_SECONDS: Final = 0.1

Outcome = TypeVar("Outcome")


def run_aside(work: Callable[[], Outcome], done: Callable[[Callable[[], Outcome]], object]) -> None:
    """Run `work` in a thread, then `done` where this was called from.

    Parameters
    ----------
    work
        Takes nothing; may touch no widget but a `ProgressBar`.
    done
        Gets a function that returns the outcome of `work`, or raises its error.

    Notes
    -----
    Without a running event loop (plain Python, a test) there are no clicks to hear: both run one
    after the other before this returns.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        done(_finished(work).result)
        return
    # The context carries which cell the messages of a widget belong to.
    context = contextvars.copy_context()

    def aside() -> None:
        finished = _finished(lambda: context.run(work))
        with suppress(RuntimeError):  # the loop is closed: there is nobody left to tell
            loop.call_soon_threadsafe(done, finished.result, context=context)

    # No pool: a replay that is paused for hours must keep neither others nor an exit waiting.
    threading.Thread(target=aside, name="fxlab-panel", daemon=True).start()


def unless_cancelled(work: Callable[[], Outcome], ask: Callable[[], object]) -> Outcome:
    """Return the outcome of `work`, or raise what `ask` raises, within a fraction of a second.

    Parameters
    ----------
    work
        Runs in a thread of its own. Nobody can interrupt the code of others, such as a strategy's
        function: what has begun ends by itself, and its outcome is dropped.
    ask
        Called now and then; it may raise `Cancelled`.
    """
    outcome: Future[Outcome] = Future()
    run = contextvars.copy_context().run
    told: tuple[Any, ...] = (_finish, outcome, work)
    threading.Thread(target=run, args=told, name="fxlab-work", daemon=True).start()
    while not wait([outcome], _ASK_SECONDS).done:
        ask()
    return outcome.result()


class Pulse:
    """Calls a function at a steady pace in a thread of its own, until it is stopped.

    Pictures go on moving while the kernel's own thread is busy with a cell.

    Parameters
    ----------
    beat
        Takes nothing and returns whether it was the last time.
    seconds
        Between two calls.
    """

    def __init__(self, beat: Callable[[], bool], seconds: float) -> None:
        self._over = threading.Event()
        run = contextvars.copy_context().run
        work: tuple[Any, ...] = (self._run, beat, seconds)
        threading.Thread(target=run, args=work, name="fxlab-pulse", daemon=True).start()

    def stop(self) -> None:
        """Call no more; a call that has begun ends."""
        self._over.set()

    def _run(self, beat: Callable[[], bool], seconds: float) -> None:
        while not self._over.wait(seconds):
            if beat():
                return


def _finished(work: Callable[[], Outcome]) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    _finish(future, work)
    return future


def _finish(future: Future[Outcome], work: Callable[[], Outcome]) -> None:
    try:
        future.set_result(work())
    except Exception as error:  # noqa: BLE001 - handed on: `done` raises it
        future.set_exception(error)
