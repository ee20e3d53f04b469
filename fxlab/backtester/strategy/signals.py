"""Signals: targets, events and exits of a strategy as expressions over tick columns.

They are data, not behaviour, so that the engine, the look-ahead check and sweeps can read them:
expressions and a few constants. Whatever can be refused before a tick is read is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Final, Protocol

import numpy as np
import polars as pl

from fxlab._times import Duration, integer, number, parse_duration, required
from fxlab.errors import InvalidParameter, check_choice

EXITS: Final = ("stop_loss", "take_profit", "trailing_stop")
COLUMNS: Final = ("target", *EXITS, "limit")
REENTRIES: Final = ("change", "signal")

Compute = Callable[[pl.DataFrame], pl.DataFrame]


class Events(Protocol):
    """A target as the rows that have one: for strategies whose speed matters.

    Examples
    --------
    >>> class EveryHundredth:
    ...     roots = frozenset({"price"})
    ...
    ...     def find(self, frame, first):
    ...         rows = np.arange(first + -first % 100, frame.height, 100)
    ...         return rows, np.ones(len(rows))
    >>> EveryHundredth().find(ticks, 150)[0].tolist()[:2]
    [200, 300]
    """

    @property
    def roots(self) -> frozenset[str]:
        """Return the columns that it reads."""

    def find(self, frame: pl.DataFrame, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of `frame` from `first` on that have a target (rising), and these."""


Shared = dict[tuple[type, object], object]
"""What decisions share whatever their parameters: by kind and columns of events
(`MeanCross.share`), and bars by their length."""


@dataclass(frozen=True, slots=True, eq=False)
class Signals:
    """What a strategy wants, row by row.

    Expressions see the columns of one symbol's ticks: ``timestamp``, ``price``, ``price_ticks``
    (Int64), ``volume`` and the like; the order book as it was strictly before the tick
    (``bid_price_1`` .. ``ask_qty_10``, ``spread``, ``mid``) and other symbols' last prices
    (`fxlab.indicators.price_of`). With `every` they see the columns of bars instead.

    Parameters
    ----------
    target
        Wanted exposure as a fraction of equity: 1 long, 0 flat, -1 short, null keep.
    stop_loss, take_profit, trailing_stop
        Exits of the position that the row's target opens, as fractions of its entry price (of
        the best price since, for a trailing stop): 0.01 is one percent. A number, or an
        expression read at the rows with a target; null is none.
    limit
        Price of a resting limit order; null or None sends a market order.
    max_holding
        Close a position after this long: a timedelta, text such as ``"5m"``, or seconds.
    reentry
        After an exit, what opens a position again: ``"change"``, a target that differs from the
        one before it; ``"signal"``, any row with a target.
    cooldown
        How long after an exit no position is opened.
    every
        Run on bars of this length, such as ``"1m"``: columns ``open``, ``high``, ``low``,
        ``close``, ``volume``, ``quote_volume``, ``trades``, ``vwap`` and, where prices lie on a
        decimal grid, ``open_ticks`` .. ``close_ticks``. A bar is known when it has ended: its
        target is decided at the first tick at or after its end. Where there is no tick there is
        no bar.
    warmup
        No decision in so many first rows of a symbol (bars, with `every`).
    lookback
        How many rows before a row its target may depend on. Known: the engine may stream the
        ticks in chunks and still give identical bits. None: all rows before it; always None
        with `every`.
    events
        The same target once more, as rows and values: a shortcut that a strategy may give where
        it knows a faster way than `target`. Both must agree.
    frame
        What a frame strategy computes; see `from_frame`.
    owner
        Strategy and parameters, for error messages.

    Raises
    ------
    InvalidParameter
        If a value has the wrong type or is out of range.

    Examples
    --------
    >>> @fxlab.strategy
    ... def above(*, level: float = 100.0) -> fxlab.Signals:
    ...     '''Long above a level.'''
    ...     return fxlab.Signals(target=(pl.col("price") > level).cast(float), lookback=0)
    >>> fxlab.backtest(ticks, above).ticks
    1500
    """

    target: pl.Expr
    _: KW_ONLY
    stop_loss: pl.Expr | float | None = None
    take_profit: pl.Expr | float | None = None
    trailing_stop: pl.Expr | float | None = None
    limit: pl.Expr | None = None
    max_holding: Duration | None = None
    reentry: str = "change"
    cooldown: Duration = "0s"
    every: str | None = None
    warmup: int = 0
    lookback: int | None = None
    events: Events | None = None
    frame: Compute | None = None
    owner: str = "the strategy"

    def __post_init__(self) -> None:
        if not isinstance(self.target, pl.Expr):
            raise InvalidParameter(
                f"target={self.target!r:.80} is not a Polars expression; write for example "
                "pl.when(pl.col('price') > 100).then(1.0), or pl.lit(1.0)"
            )
        for name in EXITS:
            _check_exit(name, getattr(self, name))
        if not (self.limit is None or isinstance(self.limit, pl.Expr)):
            raise InvalidParameter(
                f"limit={self.limit!r:.80} is not a Polars expression; write for example "
                "pl.col('price') * 0.999, or leave it out for market orders"
            )
        check_choice("reentry", self.reentry, REENTRIES, "rule")
        for name in ("warmup", "lookback"):
            if getattr(self, name) is not None or name == "warmup":
                object.__setattr__(self, name, _check_rows(name, getattr(self, name)))
        for name in ("max_holding", "every"):
            value = getattr(self, name)
            if value is not None and parse_duration(value, name) == 0:
                raise InvalidParameter(f"{name}={value!r} must be above zero, for example '1m'")
        parse_duration(self.cooldown, "cooldown")
        if self.every is not None:
            object.__setattr__(self, "lookback", None)

    @classmethod
    def from_frame(
        cls,
        compute: Compute,
        *,
        max_holding: Duration | None = None,
        reentry: str = "change",
        cooldown: Duration = "0s",
        every: str | None = None,
        warmup: int = 0,
    ) -> Signals:
        """Return the signals of a function that takes a frame of ticks (or bars) and returns one.

        Parameters
        ----------
        compute
            Takes all rows of one symbol with all columns there are; returns a frame of the same
            height with a column ``target`` and, where wanted, ``stop_loss``, ``take_profit``,
            ``trailing_stop`` and ``limit``. Other columns are ignored.
        max_holding, reentry, cooldown, every, warmup
            As in `Signals`.
        """
        return cls(
            target=pl.col("target"),
            max_holding=max_holding,
            reentry=reentry,
            cooldown=cooldown,
            every=every,
            warmup=warmup,
            frame=compute,
        )

    @property
    def expressions(self) -> dict[str, pl.Expr]:
        """Return the columns that are expressions, by name; none of a frame strategy."""
        found = {name: getattr(self, name) for name in COLUMNS} if self.frame is None else {}
        return {name: value for name, value in found.items() if isinstance(value, pl.Expr)}

    @property
    def roots(self) -> frozenset[str] | None:
        """Return the columns that the expressions read; None, all, for a frame strategy."""
        if self.frame is not None:
            return None
        roots = (value.meta.root_names() for value in self.expressions.values())
        return frozenset(name for names in roots for name in names)

    @property
    def max_holding_us(self) -> int | None:
        """Return `max_holding` in microseconds."""
        if self.max_holding is None:
            return None
        return parse_duration(self.max_holding, "max_holding")

    @property
    def cooldown_us(self) -> int:
        """Return `cooldown` in microseconds."""
        return parse_duration(self.cooldown, "cooldown")

    @property
    def every_us(self) -> int | None:
        """Return the length of the bars in microseconds; None on ticks."""
        return None if self.every is None else parse_duration(self.every, "every")


def exit_rule(name: str) -> str:
    """Return what the values of an exit have to be, and why."""
    if name == "take_profit":
        return "exits are fractions of the entry price, above 0: 0.02 is 2 %; null is none"
    return (
        "stops are fractions of a price, above 0 and below 1: 0.01 is 1 %, and a stop 100 % away "
        "could never be reached; null is none"
    )


def _check_exit(name: str, value: object) -> None:
    if value is None or isinstance(value, pl.Expr):
        return
    found = number(value)
    largest = math.inf if name == "take_profit" else 1.0
    if found is None or not 0 < found < largest:
        raise InvalidParameter(f"{name}={value!r:.80} is no exit; {exit_rule(name)}")


def _check_rows(name: str, value: object) -> int:
    rule = f"{name}={value!r:.80} is not a number of rows; give 0 or more"
    return required(integer(value, 0), rule)
