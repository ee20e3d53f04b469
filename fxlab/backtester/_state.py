"""Kernel state between chunks, and the orders, fills, trades and equity written so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from decimal import Decimal

import numpy as np

from fxlab._times import from_micros
from fxlab.backtester._kernel import records
from fxlab.backtester._kernel.records import MarketArrays, Schedule, Written
from fxlab.backtester.execution import PER_SYMBOL, Execution, Rates
from fxlab.backtester.strategy.signals import Signals
from fxlab.errors import InvalidParameter

ROOM: tuple[str, ...] = ("orders", "fills", "trades", "samples")
_KINDS = (records.ORDER, records.FILL, records.TRADE, records.SAMPLE)


@dataclass(frozen=True, slots=True)
class Records:
    """What a finished replay leaves behind; arrays of the kernel's record types."""

    first: int
    last: int
    rows: int
    orders: np.ndarray
    fills: np.ndarray
    trades: np.ndarray
    samples: np.ndarray
    legs: np.ndarray
    account: np.void


@dataclass
class KernelState:
    """Feeds the market to the kernel; `close` says what became of everything.

    Chunks may be cut anywhere: the result is the same bit by bit.
    """

    legs: np.ndarray
    account: np.ndarray
    terms: np.ndarray
    delays: np.ndarray
    funding: np.ndarray
    gaps: np.ndarray
    held_books: np.ndarray
    sell_at_end: bool = False
    first: int | None = None
    written: dict[str, list[np.ndarray]] = field(
        default_factory=lambda: {name: [] for name in ROOM}
    )
    _told: int = 0

    @classmethod
    def open(
        cls,
        symbols: tuple[str, ...],
        capital: float,
        execution: Execution,
        interval: int,
        *,
        signals: Signals | None = None,
        gaps: np.ndarray | None = None,
    ) -> KernelState:
        """Start an account.

        Parameters
        ----------
        symbols
            One leg each.
        capital
            Divided among the legs, or shared, as `execution` says.
        execution
            Costs and rules.
        interval
            Spacing of the equity samples, µs.
        signals
            Holding time, cooldown and re-entry rule of the strategy; None has none.
        gaps
            `GAPS` records of gaps in the recording, ordered by time.
        """
        count = len(symbols)
        legs = np.zeros(count, records.LEG)
        account = np.zeros(1, records.ACCOUNT)
        account["base"] = capital if execution.shared_cash else 0.0
        legs["cash"] = legs["equity"] = 0.0 if execution.shared_cash else capital / count
        for name in ("stop_loss", "take_profit", "trailing_stop", "limit"):
            legs[name] = np.nan
        for name in ("stop_level", "take_level", "trail_level"):
            legs[name] = np.nan
        legs["exited_at"] = legs["gap_ended_at"] = records.NEVER
        legs["book"] = -1
        legs["number"] = np.arange(count)
        for name in PER_SYMBOL:
            legs[name] = [execution.for_symbol(name, symbol) for symbol in symbols]
        for name in ("lot", "tick"):
            steps = [_fraction(float(step)) for step in legs[f"{name}_size"]]
            legs[f"{name}_units"], legs[f"{name}_scale"] = zip(*steps, strict=True)
        total = float(account[0]["base"])
        for leg in legs:  # as the kernel sums them
            total += float(leg["equity"])
        account["equity"] = account["peak"] = total
        account["ruined_at"] = records.NEVER
        held_books = np.zeros(count, records.BOOK)
        held_books["time"] = -1
        delays = execution.delays.table(symbols)
        terms = execution.terms(interval)
        terms["draws"] = delays.shape[1]
        opened = cls(
            legs=legs,
            account=account,
            terms=terms,
            delays=delays,
            funding=funding_records(execution.rates, symbols),
            gaps=np.empty(0, records.GAPS) if gaps is None else gaps,
            held_books=held_books,
            sell_at_end=execution.close_at_end,
        )
        return opened if signals is None else opened.reopened(signals)

    def reopened(self, signals: Signals) -> KernelState:
        """Return this account as it was opened, under the rules of other signals.

        Only before its first row: a sweep opens one account, and copies it for each point.
        """
        holding = signals.max_holding_us
        terms = _joined([self.terms])
        terms["max_holding"] = -1 if holding is None else holding
        terms["cooldown"] = signals.cooldown_us
        terms["reenter"] = signals.reentry == "signal"
        return replace(
            self,
            legs=_joined([self.legs]),
            account=_joined([self.account]),
            terms=terms,
            held_books=_joined([self.held_books]),
            written={name: [] for name in ROOM},
        )

    @property
    def rows(self) -> int:
        """Return how many rows were replayed."""
        return int(self.account[0]["rows"])

    @property
    def equity(self) -> float:
        """Return the account's equity at the last row."""
        return float(self.account[0]["equity"])

    @property
    def positions(self) -> np.ndarray:
        """Return the signed quantity of each leg."""
        quantities: np.ndarray = self.legs["qty"].copy()
        return quantities

    def new_fills(self) -> np.ndarray:
        """Return the fills (`FILL`) since the last call."""
        fresh = self.written["fills"][self._told :]
        self._told = len(self.written["fills"])
        return np.concatenate([np.empty(0, records.FILL), *fresh])

    def replay(self, market: MarketArrays, decisions: np.ndarray) -> None:
        """Replay a stretch of the market with decisions on it (`DECISION`, by row).

        The state carries over to the next.
        """
        from fxlab.backtester._kernel import replay

        rows = len(market.time)
        if not rows:
            return
        if self.first is None:
            self._begin(int(market.time[0]))
        account = self.account[0]
        schedule = Schedule(self.delays, self.funding, self.gaps, self.held_books)
        account["next_decision"] = 0
        row, room = 0, len(decisions)
        while row < rows:
            written = self._room(room, market.time)
            row = replay.replay(
                row,
                market,
                decisions,
                schedule,
                self.terms[0],
                self.legs,
                account,
                written,
            )
            self._keep(written)
            room *= 2
        self._check_finite(market)
        account["rows"] += rows
        self._hold_books(market.books)

    def close(self) -> Records:
        """Write down pending orders, open positions and the last equity."""
        from fxlab.backtester._kernel import replay

        written = _empty((2 * len(self.legs) + 2,) * len(_KINDS))
        account = self.account[0]
        replay.close(self.sell_at_end, self.legs, account, self.terms[0], written)
        self._keep(written)
        return Records(
            first=self.first or 0,
            last=int(account["now"]),
            rows=self.rows,
            legs=self.legs,
            account=account,
            **{name: self._all(name) for name in ROOM},
        )

    def take_records(self) -> list[np.ndarray]:
        """Return the orders, fills and trades since the last call; they are kept no longer."""
        found = [self._all(name) for name in ROOM[:3]]
        for name in ROOM[:3]:
            self.written[name].clear()
        return found

    def _check_finite(self, market: MarketArrays) -> None:
        """Refuse to go on with money that floats cannot hold; it never comes back to a number."""
        account = self.account[0]
        money = float(account["equity"]) + float(account["peak"]) + float(account["max_drawdown"])
        if math.isfinite(money + float(self.legs["equity"].sum())):
            return
        prices = np.nanmin(market.price), np.nanmax(market.price)
        when = from_micros(int(market.time[-1]))
        raise InvalidParameter(
            f"the money of this run left the range of floats by {when}; "
            f"prices are {prices[0]:g} to {prices[1]:g} there, equity was at most "
            f"{account['peak']:g}: give prices in another unit, a smaller capital, or a tick_size "
            "below the prices"
        )

    def _all(self, name: str) -> np.ndarray:
        """Return all records of a kind, joined in place so that asking again is cheap."""
        parts = self.written[name] or [np.empty(0, _KINDS[ROOM.index(name)])]
        if len(parts) > 1:
            parts = [_joined(parts)]
        self.written[name] = parts
        return parts[0]

    def _room(self, wanted: int, time: np.ndarray) -> Written:
        """Return empty arrays; the kernel asks for new ones when it has filled them."""
        from fxlab.backtester._kernel.replay import RECORDS_A_ROW

        least = 64 * (RECORDS_A_ROW + len(self.legs)) + wanted
        span = int(time[-1]) - int(self.account[0]["edge"])
        edges = max(0, min(len(time), span // int(self.terms[0]["interval"]) + 1))
        sizes = (least, least, least, edges + 64)
        return _empty(sizes)

    def _keep(self, written: Written) -> None:
        for name, array, count in zip(ROOM, written[:-1], written.used, strict=True):
            if count:
                array.resize(count, refcheck=False)  # no copy, and no part that nobody needs
                self.written[name].append(array)

    def _hold_books(self, books: np.ndarray) -> None:
        """Keep each leg's last book: its chunk goes."""
        if len(self.legs) == 1 and self.legs[0]["book"] < 0:
            return
        for number in np.flatnonzero(self.legs["book"] >= 0):
            self.held_books[number] = books[self.legs["book"][number]]
        self.legs["book"] = -1

    def _begin(self, first: int) -> None:
        self.first = first
        account = self.account[0]
        interval = int(self.terms[0]["interval"])
        account["now"] = account["peak_at"] = account["high_at"] = account["low_at"] = first
        account["high"] = account["low"] = account["peak"]
        account["edge"] = (first // interval + 1) * interval
        account["alarm"] = records.NEVER  # the first row sets it


def funding_records(rates: Rates, symbols: tuple[str, ...]) -> np.ndarray:
    """Return the kernel's `FUNDING` records of these symbols, ordered by (time, leg)."""
    rows = [
        (micros, leg, long, short)
        for wanted, micros, long, short in rates
        for leg, symbol in enumerate(symbols)
        if wanted is None or wanted == symbol
    ]
    return np.array(sorted(rows), records.FUNDING)


def _fraction(step: float) -> tuple[float, float]:
    """Return the numerator and denominator of a decimal step: 0.05 is 5 / 100."""
    digits, exponent = Decimal(repr(step)).as_tuple()[1:]
    units, power = int("".join(map(str, digits))), int(exponent)
    return float(units * 10 ** max(0, power)), float(10 ** max(0, -power))


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """Return records of one kind, copied as bytes: numpy looks at each field of a record first."""
    whole: np.ndarray = np.concatenate([part.view(np.uint8) for part in parts])
    return whole.view(parts[0].dtype)


def _empty(sizes: tuple[int, ...]) -> Written:
    """Return room for so many orders, fills, trades and samples."""
    rooms = [np.empty(size, kind) for size, kind in zip(sizes, _KINDS, strict=True)]
    return Written._make([*rooms, np.zeros(len(_KINDS), np.int64)])
