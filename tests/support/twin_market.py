"""What the twin of the engine reads and writes: rows, books, assumptions, records.

Plain objects and Python numbers; ``None`` is "none". Nothing here comes from the package: a twin
that shared code with the engine would share its mistakes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from itertools import pairwise

Level = tuple[float, float]
"""Price and quantity shown."""


class Status(IntEnum):
    """What became of an order."""

    FILLED = 1
    REPLACED = 2
    UNCHANGED = 3
    NO_EQUITY = 4
    OPEN = 5
    PARTLY_REPLACED = 6
    FILLED_IN_PART = 7
    STALE_BOOK = 8
    NO_LIQUIDITY = 9
    GAP = 10
    TOO_SMALL = 11
    NO_MARGIN = 12
    COOLING_DOWN = 13
    BAD_BOOK = 14


class Reason(IntEnum):
    """Why an order was made."""

    SIGNAL = 1
    STOP_LOSS = 2
    TAKE_PROFIT = 3
    TRAILING_STOP = 4
    MAX_HOLDING = 5
    LIQUIDATION = 6
    REBALANCE = 7
    END = 8


FORCED = frozenset(
    {
        Reason.STOP_LOSS,
        Reason.TAKE_PROFIT,
        Reason.TRAILING_STOP,
        Reason.MAX_HOLDING,
        Reason.LIQUIDATION,
    }
)
"""Exits that no decision asked for."""


class Flag(IntFlag):
    """What is special about a fill."""

    PARTIAL = 1
    BEYOND_DEPTH = 2
    GAP = 4
    LEVERAGE = 8


PLAIN = Flag(0)
"""Nothing special."""


@dataclass(frozen=True)
class TwinBook:
    """A snapshot of the book: levels from the best on; a side may be empty."""

    time: int
    bids: tuple[Level, ...] = ()
    asks: tuple[Level, ...] = ()

    @property
    def bid(self) -> float | None:
        """Return the best bid."""
        return self.bids[0][0] if self.bids else None

    @property
    def ask(self) -> float | None:
        """Return the best ask."""
        return self.asks[0][0] if self.asks else None

    @property
    def usable(self) -> bool:
        """Return whether the book says anything: what crosses or is out of order does not."""
        falling = all(better > worse for (better, _), (worse, _) in pairwise(self.bids))
        rising = all(better < worse for (better, _), (worse, _) in pairwise(self.asks))
        crossed = self.bids and self.asks and self.bids[0][0] >= self.asks[0][0]
        whole = all(price > 0 and size >= 0 for price, size in self.bids + self.asks)
        return bool(self.bids or self.asks) and falling and rising and whole and not crossed

    def against(self, side: int) -> tuple[Level, ...]:
        """Return the levels that a buyer (1) or a seller (-1) trades with."""
        return self.asks if side > 0 else self.bids

    def shown(self, side: int, price: float) -> float:
        """Return the quantity shown at a price on the side's own side of the book."""
        own = self.bids if side > 0 else self.asks
        for level, quantity in own:
            if level == price:
                return quantity
        if own and (own[-1][0] - price) * side > 0:
            return float("inf")  # deeper than the book shows
        return 0.0


@dataclass(frozen=True)
class Exits:
    """Exits of a position, as fractions of its entry price."""

    stop_loss: float | None = None
    take_profit: float | None = None
    trailing_stop: float | None = None


NO_EXITS = Exits()


@dataclass(frozen=True)
class TwinDecision:
    """What a strategy says at a row."""

    target: float
    exits: Exits = NO_EXITS
    limit: float | None = None


@dataclass(frozen=True)
class TwinRow:
    """A trade (price), a book (book) or a quote (both)."""

    time: int
    leg: str
    price: float | None = None
    book: TwinBook | None = None
    volume: float = 0.0
    taker: int = 0
    delay: int = 0
    decision: TwinDecision | None = None

    @property
    def shown(self) -> TwinBook | None:
        """Return the row's book, if it says anything."""
        return self.book if self.book is not None and self.book.usable else None


@dataclass(frozen=True)
class Rate:
    """What longs and shorts of a leg pay at a time, as fractions of notional."""

    time: int
    leg: str
    long: float
    short: float


@dataclass(frozen=True)
class TwinTerms:
    """The assumptions of a run; fees and slippage are fractions, times microseconds."""

    book: bool = False
    taker: float = 0.0
    maker: float = 0.0
    slippage: float = 0.0
    impact: float = 0.0
    impact_notional: float = 1e6
    delay: Callable[[str, int, TwinRow], int] = lambda _leg, _count, _row: 0
    max_book_age: int | None = None
    last_level: bool = False
    touch: bool = False
    queue: bool = False
    lot_size: dict[str, float] = field(default_factory=dict)
    min_notional: dict[str, float] = field(default_factory=dict)
    fee_per_order: dict[str, float] = field(default_factory=dict)
    fee_per_unit: dict[str, float] = field(default_factory=dict)
    min_fee: dict[str, float] = field(default_factory=dict)
    tick_size: dict[str, float] = field(default_factory=dict)
    max_leverage: float = 1.0
    maintenance: float = 0.0
    liquidation: float = 0.0
    funding: tuple[Rate, ...] = ()
    gaps: tuple[tuple[str, int], ...] = ()  # (leg, end of a hole in its recording)
    rebalance: float | None = None
    across_gaps: bool = False
    close_at_end: bool = False
    shared_cash: bool = False
    max_holding: int | None = None
    cooldown: int = 0
    reenter: bool = False
    interval: int = 60_000_000


@dataclass(frozen=True)
class TwinFill:
    """One execution."""

    leg: str
    time: int
    decided_at: int
    reason: Reason
    maker: bool
    target: float
    price: float
    qty: float
    fee: float
    position: float
    flags: Flag


@dataclass(frozen=True)
class TwinOrder:
    """An order and what became of it; price is None if nothing traded."""

    leg: str
    status: Status
    reason: Reason
    decided_at: int
    ready_at: int
    done_at: int
    target: float
    price: float | None
    qty: float
    fee: float
    position: float


@dataclass(frozen=True)
class TwinTrade:
    """A round trip; exited_at is None while it is open."""

    leg: str
    direction: int
    entered_at: int
    exited_at: int | None
    reason: Reason | None
    qty: float
    entry_price: float
    exit_price: float
    fees: float
    funding: float
    pnl: float
    low: float
    high: float


@dataclass
class TwinResult:
    """Everything that a run leaves behind."""

    capital: float
    equity: float
    max_drawdown: float = 0.0
    ruined_at: int | None = None
    """The first time at which equity was at or below zero."""
    orders: list[TwinOrder] = field(default_factory=list)
    fills: list[TwinFill] = field(default_factory=list)
    trades: list[TwinTrade] = field(default_factory=list)
    samples: list[tuple[int, float]] = field(default_factory=list)
    path: list[tuple[int, float]] = field(default_factory=list)
    """Equity after every row."""
    cash: dict[str, float] = field(default_factory=dict)
    positions: dict[str, float] = field(default_factory=dict)


def merge(rows: list[TwinRow], legs: list[str]) -> list[TwinRow]:
    """Return rows by time; then by leg; then trades before books; then as they came."""
    return sorted(rows, key=lambda row: (row.time, legs.index(row.leg), row.price is None))
