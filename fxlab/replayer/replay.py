"""Replay of a session at market speed, with a strategy running on it.

Rows, kernel state and result are those of a backtest. Only the moments at which rows are fed
differ, and no result depends on those: what a replay shows is what the backtest computes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Final, Self, Unpack

import polars as pl

from fxlab._progress import Advance, Progress, chosen
from fxlab._times import Duration, Time, from_micros
from fxlab.backtester._source import as_source
from fxlab.backtester.options import Options, RunOptions, takes_run_options
from fxlab.backtester.result import Result
from fxlab.backtester.strategy.signals import Signals
from fxlab.backtester.strategy.strategy import Strategy, StrategyFunction
from fxlab.errors import InvalidParameter, some
from fxlab.replayer._clock import TimeSource, WallClock
from fxlab.replayer._player import Player, ReplayBatch

CHUNK_ROWS: Final = 65_536
"""Rows of a symbol read at a time: the first batch comes soon, and a jump can be stopped."""


@takes_run_options
def replay(
    source: Any,  # noqa: ANN401 - a Session or a frame; refused by name otherwise
    *,
    speed: float = 1.0,
    batch_size: int = 100,
    strategy: str | Strategy | StrategyFunction | None = None,
    parameters: Mapping[str, object] | None = None,
    interval: Duration = "100ms",
    clock: TimeSource | None = None,
    progress: Progress = None,
    **options: Unpack[Options],
) -> Replay:
    """Play the ticks of a session back in their own time, merged over the symbols.

    Parameters
    ----------
    source
        A `Session`, or a Polars frame of ticks (see `FrameSource`).
    speed
        Market seconds a second: 1 as it was, 100 a hundred times as fast, ``inf`` without waiting.
    batch_size
        Ticks in a batch, at most.
    strategy, parameters
        A strategy to run on the ticks, as in `fxlab.backtest`. Without one there are only ticks.
    interval
        Wall time after which what is due is handed out, though no batch is full: the clock ticks
        in a quiet market, too.
    clock
        Where time comes from; the machine's clock unless given.
    progress
        As `fxlab.backtest` takes it; told with each batch.
    symbols, start, end, execution, capital, return_interval, days_per_year, chunk_rows
        As in `fxlab.backtest`; `chunk_rows` is 65,536 unless given.

    Returns
    -------
    Replay
        Iterate it with ``for`` or ``async for``; each step is a `Batch`.

    Raises
    ------
    InvalidParameter, StrategyNotFound, SymbolNotFound, InvalidTimeRange, EmptySession
        Before the first batch, naming the value, the rule and the next step. Ticks that are out
        of order are found when they are read: `InvalidTicks` while iterating.

    Examples
    --------
    >>> for batch in fxlab.replay(
    ...     ticks, speed=1e9, strategy="sma_cross", parameters={"fast": 5, "slow": 20}
    ... ):
    ...     equity = batch.equity
    >>> equity > 0
    True
    """
    if strategy is None and (parameters is not None or options.get("execution") is not None):
        raise InvalidParameter(
            "parameters and execution belong to a strategy; name it as well, for example "
            "strategy='sma_cross'"
        )
    options.setdefault("chunk_rows", CHUNK_ROWS)
    player = Player(
        as_source(source),
        _idle if strategy is None else strategy,
        parameters,
        RunOptions.of(options),
        trading=strategy is not None,
        speed=speed,
        batch_size=batch_size,
        interval=interval,
        clock=clock or WallClock(),
    )
    return Replay(player, progress)


class Replay:
    """A running replay: an iterator and an asynchronous iterator of `Batch`.

    Made by `fxlab.replay`. `pause`, `resume`, `seek`, `stop` and `speed` may be used from any
    thread, and from inside the loop; they are heard within 50 ms.

    The schedule is absolute: a reader that is slow for a while catches up, and one that is always
    slow is told by `Batch.lag` how far it is behind. Time goes on while nobody reads: `pause`
    before you leave the loop for long.

    **With a strategy**, whatever was paused, sped up or sought on the way, `result` is what
    `fxlab.backtest` gives for the same arguments, bit by bit. A jump leaves out no tick: those
    before the new place are run through at full speed, in a new run from the start if it lies
    behind.

    An error while reading stops the replay.

    Examples
    --------
    >>> player = fxlab.replay(ticks, speed=1e9)
    >>> sum(batch.frame.height for batch in player)
    1500
    """

    def __init__(self, player: Player, progress: Progress = None) -> None:
        self._player = player
        self._progress = progress
        self._advance: Advance | None = None
        self._bar = ExitStack()
        self._turn = threading.Lock()  # one reader at a time; commands do not wait for it

    @property
    def speed(self) -> float:
        """Return market seconds a second; may be set while the replay runs."""
        return self._player.pace.speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._player.pace.speed = speed
        self._player.woken.set()

    def pause(self) -> None:
        """Let market time stand still until `resume`; the loop waits meanwhile."""
        self._player.pace.pause()
        self._player.woken.set()

    def resume(self) -> None:
        """Go on from where `pause` stopped."""
        self._player.pace.resume()
        self._player.woken.set()

    def seek(self, time: Time) -> None:
        """Go on from another time, forward or back; also after the end, and while paused.

        The next batch has no ticks: it shows prices, equity and positions as of the new place.

        Raises
        ------
        InvalidTimeRange
            If it is no time, or lies outside of what is replayed.
        InvalidInput
            After `stop`.
        """
        self._player.seek(time)

    def stop(self) -> None:
        """End the replay for good; the loop ends, and `result` covers what was replayed."""
        self._player.stop()
        self._close_bar()
        if self._turn.acquire(blocking=False):  # else the reader itself closes, in a moment
            try:
                self._player.close()
            finally:
                self._turn.release()

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return what is replayed."""
        return self._player.symbols

    @property
    def strategy(self) -> str | None:
        """Return the name of the strategy that runs on it, if there is one."""
        return self._player.strategy

    @property
    def title(self) -> str:
        """Return what is replayed, in words."""
        return self._player.title

    @property
    def total(self) -> int:
        """Return how many ticks there are."""
        return self._player.total

    @property
    def bounds(self) -> tuple[datetime, datetime]:
        """Return the first and the last moment of what is replayed."""
        first, last = self._player.bounds
        return from_micros(first), from_micros(last)

    @property
    def position(self) -> datetime:
        """Return the market time of the last batch."""
        return from_micros(self._player.position)

    @property
    def progress(self) -> float:
        """Return the share of the ticks that is over, 0 to 1."""
        return self._player.progress

    @property
    def time_progress(self) -> float:
        """Return the share of the time range that is over, 0 to 1."""
        return self._player.time_progress

    @property
    def ended(self) -> dict[str, datetime]:
        """Return the symbols that have no tick left, with the market time that showed it."""
        return {symbol: from_micros(at) for symbol, at in self._player.ended.items()}

    @property
    def state(self) -> str:
        """Return ready, running, paused, finished or stopped."""
        return self._player.state

    @property
    def result(self) -> Result:
        """Return the result of the run, once it is finished or stopped.

        After `stop` it is `fxlab.backtest` of the same arguments, with `end` just after the last
        tick that was replayed, or at the place of a jump; it is computed when it is asked for.

        Raises
        ------
        InvalidInput
            Without a strategy, before the end, or if nothing was replayed.
        """
        with self._turn:
            return self._player.result()

    def __repr__(self) -> str:
        """Show what is replayed, how far it is and how fast it goes."""
        return (
            f"<Replay of {self.title}: {some(self.symbols)}; {self.state} at "
            f"{self.position:%Y-%m-%d %H:%M:%S} UTC, {self.progress:.1%} of "
            f"{self.total:,} ticks, speed {self.speed:g}>"
        )

    def __enter__(self) -> Self:
        """Return the replay; leaving the block stops it, unless it is finished."""
        return self

    def __exit__(self, *_: object) -> None:
        if self.state != "finished":
            self.stop()

    def __iter__(self) -> Iterator[ReplayBatch]:
        return self

    def __next__(self) -> ReplayBatch:
        player = self._player
        while isinstance(found := self._poll(), float):
            player.clock.wait(found, player.woken)
        if found is None:
            self._close_bar()
            raise StopIteration
        return self._handed_out(found)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReplayBatch:
        player = self._player
        # A cancelled task loses nothing: what its thread computed is held for the next one.
        while isinstance(found := await asyncio.to_thread(self._poll), float):
            await player.clock.sleep(found, player.woken)
        if found is None:
            self._close_bar()
            raise StopAsyncIteration
        return self._handed_out(found)

    def _handed_out(self, batch: ReplayBatch) -> ReplayBatch:
        """Return a batch to the reader, in whose thread a bar shows how far it is."""
        if self._advance is None:
            self._advance = self._bar.enter_context(chosen(self._progress, "replay"))
        self._advance(batch.progress, f"{batch.timestamp:%Y-%m-%d %H:%M:%S} UTC")
        self._player.held = None
        return batch

    def _close_bar(self) -> None:
        self._bar.close()
        self._advance = None

    def _poll(self) -> ReplayBatch | float | None:
        with self._turn:
            try:
                return self._player.look()
            except BaseException:
                self._player.stop()  # rows that are read half cannot be gone on with
                raise


def _idle() -> Signals:
    """Never want anything: the strategy of a replay that has none."""
    return Signals(target=pl.lit(None, dtype=pl.Float64), lookback=0)
