"""What a replay hands out: some ticks, the market time they belong to, and how the run stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import polars as pl


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The ticks of one moment of a replay; none where the market was quiet.

    Attributes
    ----------
    number : int
        Batches before this one.
    timestamp : datetime.datetime
        Market time (UTC): every tick up to it was delivered.
    frame : polars.DataFrame
        ``timestamp``, ``symbol``, ``seq``, ``price`` and what else the ticks have (``volume``,
        ``quote_volume``, ``side``), merged over the symbols by time.
    progress, time_progress : float
        Share of the ticks, and of the time range, that is over: 0 to 1.
    lag : float
        Wall seconds that the replay is behind its schedule; zero while its reader keeps up.
    prices : dict[str, float]
        Last price of each symbol so far.
    ended : tuple[str, ...]
        Symbols whose last tick is in this batch; the others go on without them.
    sought : bool
        True for the batch that answers a `Replay.seek`: it has no ticks, and what was drawn of
        later times, or of times before the jump, no longer holds.
    equity : float or None
        Money of the running strategy; None without one.
    positions : dict[str, float] or None
        Base units held of each symbol.
    fills : polars.DataFrame or None
        What the strategy bought and sold since the last batch, as `Result.fills` has it; after a
        jump backward, since the start of the run. What ``close_at_end`` sells after the last tick
        is in the result only.
    fills_count : int or None
        All fills of the run so far.
    """

    number: int
    timestamp: datetime
    frame: pl.DataFrame = field(repr=False)
    progress: float
    time_progress: float
    lag: float
    prices: dict[str, float]
    ended: tuple[str, ...] = ()
    sought: bool = False
    equity: float | None = None
    positions: dict[str, float] | None = None
    fills: pl.DataFrame | None = field(default=None, repr=False)
    fills_count: int | None = None
