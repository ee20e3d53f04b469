"""Executions: backtests and recordings that the web surface started, and the events they tell.

A backtest over HTTP is a *paced replay* of a session: its ticks are handed to the strategy at
`acceleration_factor` times their own speed ("max": without waiting). Its result is bit for bit
that of `fxlab.backtest`, and is saved as a run under the execution's id. A few run at a time, in
threads, the others wait their turn; a recording has its collector's own thread.

Events go to every WebSocket from a bounded buffer. A slow client loses the oldest, and is told how
many; no execution waits for it.
"""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fxlab.backtester.options import execution_of
from fxlab.collect.collector import Subscribers
from fxlab.errors import FxlabError, RunNotFound
from fxlab.replayer.replay import Replay, replay
from fxlab.web._requests import Overloaded, encoded

if TYPE_CHECKING:
    from fxlab.collect.collector import Collector
    from fxlab.collect.feed import Message
    from fxlab.lab import Lab
    from fxlab.replayer._cursor import ReplayBatch

MOST_WAITING: Final = 200
"""Backtests that wait; more are refused."""
MOST_KEPT: Final = 1_000
"""Executions that are over and still told of; older backtests are found among the saved runs."""
TOLD_EVERY: Final = 0.2
"""Seconds between two events of progress."""
CLOSING: Final = 60.0
"""Seconds that recordings have to end in when the server stops; the exit waits for the rest."""

ENDED: Final = ("completed", "stopped", "failed")
_RUN_OPTIONS: Final = ("symbols", "start", "end", "capital")


class WebEvent(NamedTuple):
    """One event: JSON as every client gets it."""

    symbol: str | None
    text: str

    @classmethod
    def of(cls, kind: str, values: Mapping[str, Any]) -> WebEvent:
        """Build the event from what it says."""
        return cls(None, encoded({"type": kind, **values}))

    @classmethod
    def tick(cls, session_id: str, message: Message) -> WebEvent:
        """Build the event of a live message; ids are texts."""
        values = message._asdict()
        kind = values.pop("kind", None)  # of an Event, what happened
        values |= {n: str(v) for n, v in values.items() if n.endswith("id") and v is not None}
        what = {} if kind is None else {"event": kind}
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(message).__name__)
        return cls.of("tick", {"session_id": session_id, "kind": name[1:], **values, **what})


class BacktestExecution:
    """A backtest that waits, runs or is over."""

    def __init__(self, player: Replay, asked: Mapping[str, Any], data_session_id: str) -> None:
        now = datetime.now(UTC)
        self.id = f"exec_{now:%Y%m%d_%H%M%S}_{uuid.uuid4().hex[:8]}_backtest"
        self._player: Replay | None = player
        self._turn = threading.Lock()
        self._facts: dict[str, Any] = {
            "session_id": self.id,
            "data_session_id": data_session_id,
            "mode": "backtest",
            "symbols": list(player.symbols),
            **{name: asked.get(name) for name in ("strategy", "parameters")},
            **{name: asked[name] for name in ("acceleration_factor", "batch_size")},
            "created_at": now,
        }
        self._now: dict[str, Any] = {"state": "queued", "progress": 0.0, "result": None}
        self._now |= dict.fromkeys(("error", "started_at", "ended_at", "position", "standing"))

    @property
    def state(self) -> str:
        """Return queued, running, stopping, completed, stopped or failed."""
        return str(self._now["state"])

    def summary(self) -> dict[str, Any]:
        """Return what the document calls an Execution."""
        return self._facts | self._now

    def stop(self) -> None:
        """Ask for the end; one that waits is over at once."""
        with self._turn:
            if self._player is None:
                return
            self._player.stop()
            if self.state == "queued":
                self._end("stopped")
            else:
                self._now["state"] = "stopping"

    def run(self, lab: Lab, tell: Callable[[BacktestExecution], None]) -> None:
        """Replay to the end, or until `stop`; `tell` is called with each change."""
        with self._turn:
            player = self._player
            if player is None:  # stopped while it waited
                return
            self._now |= {"state": "running", "started_at": datetime.now(UTC)}
        tell(self)
        try:
            self._follow(player, tell)
            over = player.state == "finished"
            result = self._stored(player, lab) if over else {}
            self._end("completed" if over else "stopped", **result)
        except FxlabError as error:
            self._end("failed", error=str(error))
        except Exception as error:
            self._end("failed", error=f"{type(error).__name__}: {error}")
            raise
        finally:
            tell(self)

    def _follow(self, player: Replay, tell: Callable[[BacktestExecution], None]) -> None:
        told = 0.0
        for batch in player:
            self._now |= {
                "progress": batch.progress,
                "position": batch.timestamp,
                "standing": _standing(batch),
            }
            if time.monotonic() - told >= TOLD_EVERY:
                told = time.monotonic()
                tell(self)

    def _stored(self, player: Replay, lab: Lab) -> dict[str, Any]:
        """Return the result, saved under the execution's id; one that cannot be saved says why."""
        if player.strategy is None:
            return {"result": {"ticks": player.total}}
        found = replace(player.result, run_id=self.id)
        told = {
            "run_id": None,
            "ticks": found.ticks,
            "first": found.first,
            "last": found.last,
            "fills_count": found.fills.height,
            "trades_count": found.trades.height,
            "fingerprint": found.fingerprint,
            "metrics": dict(found.metrics),
        }
        try:
            told["run_id"] = found.save(lab)
        except FxlabError as error:
            return {"result": told, "error": f"the run is not saved: {error}"}
        return {"result": told}

    def _end(self, state: str, **told: Any) -> None:  # noqa: ANN401 - of `_now`
        # The state last: who sees it sees the result.
        self._player = None
        self._now |= {"ended_at": datetime.now(UTC), **told}
        self._now["state"] = state


def _standing(batch: ReplayBatch) -> dict[str, Any]:
    names = ("prices", "equity", "positions", "fills_count", "lag")
    return {name: getattr(batch, name) for name in names}


class CollectionExecution:
    """A recording that this server has started."""

    mode = "collection"

    def __init__(self, collector: Collector) -> None:
        self.id = collector.session_id
        self.collector = collector
        self._created_at = datetime.now(UTC)
        self._stopping = False

    @property
    def state(self) -> str:
        """Return running, stopping, completed or failed."""
        found = self.collector.status().state
        if found in {"aborted", "failed"}:
            return "failed"
        if found == "completed":
            return found
        return "stopping" if self._stopping or found == "stopping" else "running"

    def summary(self) -> dict[str, Any]:
        """Return what the document calls an Execution."""
        now = self.collector.status()
        state = self.state
        figures = ("exchange", "elapsed", "trades", "books", "gaps", "waiting_rows", "errors")
        return {
            "session_id": self.id,
            "data_session_id": self.id,
            "mode": self.mode,
            "state": state,
            "symbols": [one.symbol for one in now.symbols],
            "created_at": self._created_at,
            "progress": None if now.duration is None else min(1.0, now.elapsed / now.duration),
            "standing": {"state": now.state} | {name: getattr(now, name) for name in figures},
            "result": None,
            "error": now.message if state == "failed" else None,
        }

    def stop(self) -> None:
        """Ask for the end; what was received is stored first."""
        self._stopping = True
        self.collector.request_stop()


class Executions:
    """What was started over HTTP, by id: those that run, that wait, and the last that are over."""

    def __init__(self, lab: Callable[[], Lab], workers: int) -> None:
        self.events: Subscribers[WebEvent] = Subscribers()
        self._lab = lab
        self._pool = ThreadPoolExecutor(workers, "fxlab execution")
        self._loop = asyncio.get_running_loop()
        self._all: dict[str, BacktestExecution | CollectionExecution] = {}
        self._turn = threading.Lock()
        self._closing = False

    def start_backtest(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Check a backtest, let it wait its turn, and tell of it."""
        lab = self._lab()
        session = lab.session(asked["session_id"])
        self._check_room()
        options = {name: asked[name] for name in _RUN_OPTIONS if name in asked}
        if "execution" in asked:
            options["execution"] = execution_of(asked["execution"])
        factor = asked["acceleration_factor"]
        player = replay(
            session,
            speed=float("inf" if factor == "max" else factor),
            batch_size=int(asked["batch_size"]),
            strategy=asked.get("strategy"),
            parameters=asked.get("parameters"),
            progress=False,
            **options,
        )
        one = BacktestExecution(player, asked, session.id)
        self._keep(one)
        waiting = self._pool.submit(one.run, lab, self._tell)
        waiting.add_done_callback(_seen)
        return one.summary()

    def start_collection(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Start a recording and tell of it."""
        self._check_room()
        one = CollectionExecution(self._lab().collect(**asked))
        self._keep(one)
        asyncio.run_coroutine_threadsafe(self._follow(one), self._loop).add_done_callback(_seen)
        return one.summary()

    def find(self, execution_id: str) -> dict[str, Any]:
        """Return what is known of an execution; of an old one, what was saved.

        Raises
        ------
        RunNotFound
            If there is none.
        """
        one = self._all.get(execution_id)
        return self._saved(execution_id) if one is None else one.summary()

    def stop(self, execution_id: str) -> dict[str, Any]:
        """Ask an execution to stop, and tell of it.

        Raises
        ------
        RunNotFound
            If this server has started none with the id.
        """
        one = self._all.get(execution_id)
        if one is None:
            raise RunNotFound.named(execution_id, self._all)
        if one.state not in ENDED:
            one.stop()
            self._tell(one)
        return one.summary()

    def listing(self) -> list[dict[str, Any]]:
        """Return all that are kept, the newest first."""
        with self._turn:
            found = list(self._all.values())
        return [one.summary() for one in reversed(found)]

    def close(self) -> None:
        """Stop everything, and wait for it: recordings are completed, no thread is left."""
        with self._turn:
            self._closing = True
            found = list(self._all.values())
        for one in found:
            if one.state not in ENDED:
                one.stop()
        self._pool.shutdown(wait=True)
        deadline = time.monotonic() + CLOSING
        for one in found:
            if isinstance(one, CollectionExecution):
                while not one.collector.status().is_over and time.monotonic() < deadline:
                    time.sleep(0.05)
        self.events.end()

    def _saved(self, run_id: str) -> dict[str, Any]:
        run = self._lab().run(run_id)
        names = ("data_session_id", "symbols", "strategy", "parameters")
        told = {"run_id": run.run_id, "ticks": run.rows_read, "metrics": run.metrics}
        return {
            "session_id": run.run_id,
            "mode": "backtest",
            "state": "completed",
            **{name: getattr(run, name) for name in names},
            "created_at": run.timestamp,
            "progress": 1.0,
            "result": told | {"fills_count": run.fills_count, "fingerprint": run.fingerprint},
            "error": None,
        }

    def _check_room(self) -> None:
        if self._closing:
            raise Overloaded("the server is stopping and starts nothing; start it again, then ask")
        with self._turn:
            waiting = sum(one.state == "queued" for one in self._all.values())
        if waiting >= MOST_WAITING:
            raise Overloaded(
                f"{waiting} backtests wait already, and that is as many as are kept; ask again "
                "when one is over, or stop some: GET /fxlab/api/executions lists them"
            )

    def _keep(self, one: BacktestExecution | CollectionExecution) -> None:
        with self._turn:
            over = [name for name, old in self._all.items() if old.state in ENDED]
            for name in over[: max(0, len(over) - MOST_KEPT + 1)]:
                del self._all[name]
            self._all[one.id] = one
        self._tell(one)

    def _tell(self, one: BacktestExecution | CollectionExecution) -> None:
        self.events.publish([WebEvent.of("execution", one.summary())])

    async def _follow(self, one: CollectionExecution) -> None:
        """Hand on the ticks of a recording, and once a second how it stands."""
        ticks = asyncio.ensure_future(self._ticks(one))
        while not one.collector.status().is_over:
            self._tell(one)
            await asyncio.wait([ticks], timeout=1.0)
        await ticks
        self._tell(one)

    async def _ticks(self, one: CollectionExecution) -> None:
        async for message in one.collector.events():
            self.events.publish([WebEvent.tick(one.id, message)])


def _seen(done: Future[Any]) -> None:
    """Let an error that is nobody's fault but ours be heard in the server's log."""
    error = None if done.cancelled() else done.exception()
    if error is not None:
        import logging

        logging.getLogger("fxlab").error("an execution failed inside fxlab", exc_info=error)
