"""Seeded markets as the kernel takes them, with everything that can stand in one.

They are longer and calmer than the drawn examples of the comparison with the twin, because the
kernel leaps over blocks of calm rows; a case is made from a seed and a few words, so that a
failing example says what it was about.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from hypothesis import strategies as st

from fxlab import Execution, Signals
from fxlab.backtester._kernel import records
from fxlab.backtester._kernel.records import MarketArrays
from fxlab.backtester._market_arrays import market_arrays, part
from fxlab.backtester._state import KernelState, Records
from fxlab.backtester.execution import Latency

START = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z
SECOND = 1_000_000
CAPITAL = 10_000.0
KINDS = ("trades", "books", "quotes", "quotes at the mid")
SCRATCH = {"legs": ("changed", "book"), "account": ("next_decision",)}
"""Fields that mean something within one row or one chunk only."""


class Rows(NamedTuple):
    """Rows of a market with decisions on them: what the kernel's state takes."""

    market: MarketArrays
    decisions: np.ndarray

    @property
    def height(self) -> int:
        """Return how many rows they are."""
        return len(self.market.time)

    def part(self, first: int, last: int | None = None) -> Rows:
        """Return some of the rows."""
        return Rows(*part(*self, first, self.height if last is None else last))


@dataclass(frozen=True)
class Case:
    """A market with decisions on it, and the assumptions it is replayed under."""

    rows: Rows
    execution: Execution
    signals: Signals
    gaps: np.ndarray
    interval: int

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return a name for each leg."""
        return tuple(f"S{number}" for number in range(self.rows.market.extremes.shape[1]))

    def ledger(self, *, leap: bool = True) -> KernelState:
        """Return a fresh account."""
        ledger = KernelState.open(
            self.symbols,
            CAPITAL,
            self.execution,
            self.interval,
            signals=self.signals,
            gaps=self.gaps,
        )
        ledger.terms["leap"] = leap
        return ledger

    def replay(self, *, leap: bool = True, cuts: list[int] | None = None) -> Records:
        """Replay the rows, cut before some of them, and close."""
        ledger = self.ledger(leap=leap)
        edges = [0, *sorted(cuts or []), self.rows.height]
        for first, last in pairwise(edges):
            ledger.replay(*self.rows.part(first, last))
        return ledger.close()

    def under(self, **assumptions: object) -> Case:
        """Return the same market under other assumptions."""
        return replace(self, execution=replace(self.execution, **assumptions))


def every(size: int, rows: int) -> list[int]:
    """Return cuts into pieces of one size."""
    return list(range(size, rows, size))


def assert_same_bits(one: Records, other: Records) -> None:
    """Compare everything that two replays leave behind, bit by bit."""
    for name in ("orders", "fills", "trades", "samples", "legs", "account"):
        mine, theirs = (np.atleast_1d(np.array(getattr(found, name))) for found in (one, other))
        kept = [field for field in mine.dtype.names if field not in SCRATCH.get(name, ())]
        assert len(mine) == len(theirs), f"{name}: {len(mine)} and {len(theirs)}"
        for field in kept:
            same = mine[field].view(np.int64) == theirs[field].view(np.int64)
            at = int(np.argmin(same)) if len(same) else 0
            assert same.all(), f"{name}[{at}].{field}: {mine[at]} and {theirs[at]}"
    assert (one.first, one.last, one.rows) == (other.first, other.last, other.rows)


def make(
    seed: int,
    kind: str = "trades",
    legs: int = 1,
    rows: int = 300,
    *,
    often: float | None = None,
    **fixed: object,
) -> Case:
    """Make a case; `fixed` holds some assumptions, `often` the share of rows with a decision."""
    rng = np.random.default_rng([seed, KINDS.index(kind), legs])
    execution = _execution(rng, kind, **fixed)
    market = _market(rng, kind, legs, rows, measured=execution.delays.is_measured)
    constants = {
        "max_holding": _some(rng, None, "2s", "40s"),
        "cooldown": _some(rng, "0s", "5s", "100s"),
        "reentry": _some(rng, "change", "signal"),
    }
    return Case(
        Rows(market, _decisions(rng, market, execution.max_leverage, often)),
        replace(execution, funding=_funding(rng, market, execution)),
        Signals(pl.lit(0.0), **constants),
        _gaps(rng, market),
        int(rng.choice([1, 10, 60, 3_600, 3_600])) * SECOND,
    )


def cases(*, rows: int = 300, kinds: tuple[str, ...] = KINDS, **fixed: object) -> st.SearchStrategy:
    """Return cases of all kinds, as a strategy of hypothesis."""
    return st.builds(
        lambda seed, kind, legs: make(seed, kind, legs, rows, **fixed),
        st.integers(0, 2**32 - 1),
        st.sampled_from(kinds),
        st.integers(1, 3),
    )


def _some(rng: np.random.Generator, usual: object, *others: object, chance: float = 0.3) -> object:
    return others[rng.integers(len(others))] if rng.random() < chance else usual


def _execution(rng: np.random.Generator, kind: str, **fixed: object) -> Execution:
    book = kind in {"books", "quotes"}
    drawn = {
        "fill": "book" if book else "next_trade",
        "taker_bps": _some(rng, 5.0, 0.0, 60.0, -2.0),
        "maker_bps": _some(rng, None, 0.0, 30.0, -7.0),
        "slippage_bps": _some(rng, 0.0, 1.0, 20.0),
        "impact_bps": _some(rng, 0.0, 10.0),
        "impact_notional": 3_000.0,
        "latency": _latency(rng),
        "max_book_age": _some(rng, "5s", "100ms", None),
        "beyond_depth": _some(rng, "cancel", "last_level"),
        "touch": _some(rng, False, True),
        "queue": book and _some(rng, False, True, chance=0.6),
        "lot_size": _some(rng, 0.0, 0.37, {"S0": 7.0, "S1": 0.01}),
        "min_notional": _some(rng, 0.0, 203.7),
        "fee_per_order": _some(rng, 0.0, 1.7, {"S1": 90.0}),
        "fee_per_unit": _some(rng, 0.0, 0.03, {"S0": 0.7}),
        "min_fee": _some(rng, 0.0, 2.1, {"S0": 40.0}),
        "tick_size": _some(rng, 0.0, 0.01, {"S0": 0.25, "S2": 0.05}),
        "max_leverage": _some(rng, 1.0, 3.0, chance=0.5),
        "maintenance_margin": _some(rng, 0.0, 0.3, 0.48),
        "liquidation_bps": _some(rng, 0.0, 70.0),
        "rebalance": _some(rng, None, 0.002, 0.05, chance=0.15),
        "across_gaps": _some(rng, False, True),
        "close_at_end": _some(rng, False, True),
        "shared_cash": _some(rng, False, True, chance=0.4),
    }
    return Execution(**drawn | fixed)


def _latency(rng: np.random.Generator) -> object:
    drawn = [
        "0s",
        "1us",
        "2s",
        Latency.samples(["0s", "1us", "2ms", "1s"], seed=3),
        Latency.lognormal("100ms", 2.0, seed=1),
        Latency.measured(),
    ]
    return drawn[rng.integers(len(drawn))]


def _market(
    rng: np.random.Generator, kind: str, legs: int, rows: int, *, measured: bool
) -> MarketArrays:
    steps = rng.choice([0, 1, 1_000, 50_000, 400_000], rows)
    steps[rng.random(rows) < rng.choice([0.0, 0.001, 0.01])] = 40 * SECOND
    often = np.array([[1, 1, 1], [1, 100, 1], [20, 5, 1]][rng.integers(3)][:legs], float)
    leg = rng.choice(legs, rows, p=often / often.sum())
    time = START + np.cumsum(steps)
    order = np.lexsort((leg, time))
    leg = leg[order]
    price = _walk(rng, leg, legs)
    columns = {"volume": rng.choice([0.0, 0.5, 2.0, 50.0], rows)}
    columns["taker"] = rng.integers(-1, 2, rows)
    if measured:
        columns["delay"] = rng.choice([0, 3, 2_000, 2 * SECOND], rows)
    if kind in {"books", "quotes"}:
        shown = rng.random(rows) < (1.0 if kind == "quotes" else 0.5)
        columns["book"] = np.where(shown, np.cumsum(shown) - 1, -1)
        books = _books(rng, time[shown], price[shown])
        if kind == "books":
            price = np.where(shown, np.nan, price)
        else:
            del columns["volume"], columns["taker"]  # a quote is not a trade
        columns["books"] = books if len(books) else np.zeros(1, records.BOOK)
    return market_arrays(legs=legs, time=time, leg=leg, price=price, **columns)


def _walk(rng: np.random.Generator, leg: np.ndarray, legs: int) -> np.ndarray:
    """Return prices on a grid of 0.01 that mostly stand nearly still, and sometimes jump."""
    price = np.empty(len(leg))
    calm = rng.random() < 0.5
    jumpy = rng.choice([0.0, 0.002, 0.02])
    for number in range(legs):
        own = leg == number
        count = own.sum()
        moves = rng.choice([-1, 0, 0, 1], count)
        jumps = rng.random(count) < jumpy
        moves[jumps] = rng.integers(-900, 900, jumps.sum())
        # Prices that turn around seldom deepen a drawdown: blocks of them can be leapt over.
        path = 3 * np.sin(np.arange(count) / 5 + number) + moves if calm else np.cumsum(moves)
        path[: count // 8] += rng.integers(-300, 300)
        price[own] = np.clip(10_000 + np.rint(path), 2_000, 50_000) / 100
    return price


def _books(rng: np.random.Generator, time: np.ndarray, price: np.ndarray) -> np.ndarray:
    books = np.zeros(len(time), records.BOOK)
    books["time"] = time
    books["bad"] = rng.random(len(time)) < 0.06
    for side, way in (("bid", -1), ("ask", 1)):
        away = np.cumsum(rng.choice([1, 1, 2, 5], (len(time), records.DEPTH)), axis=1)
        levels = rng.choice([0, 1, 2, 3, records.DEPTH], len(time), p=[0.05, 0.1, 0.2, 0.25, 0.4])
        missing = np.arange(records.DEPTH) >= levels[:, None]
        shown = rng.choice([0.0, 0.25, 4.0, 30.0, 500.0], missing.shape)
        at = (np.rint(price * 100)[:, None] + way * away) / 100
        books[f"{side}_price"] = np.where(missing, np.nan, at)
        books[f"{side}_qty"] = np.where(missing | (rng.random(missing.shape) < 0.05), 0.0, shown)
    return books


def _decisions(
    rng: np.random.Generator, market: MarketArrays, most: float, often: float | None
) -> np.ndarray:
    """Return decisions on few or many rows with a price."""
    often = often or rng.choice([0.004, 0.02, 0.3])
    chosen = np.flatnonzero((rng.random(len(market.time)) < often) & (market.price == market.price))
    found = np.zeros(len(chosen), records.DECISION)
    found["row"] = chosen
    targets = [-3.0, -1.0, -0.5, 0.0, 0.0, 0.25, 0.5, 1.0, 1.0, 3.0]
    found["target"] = np.clip(rng.choice(targets, len(chosen)), -most, most)
    for name in ("stop_loss", "take_profit", "trailing_stop"):
        fractions = rng.choice([np.nan, np.nan, 0.0013, 0.0131, 0.11, 0.4], len(chosen))
        found[name] = fractions
    near = np.rint(market.price[chosen] * 100 + rng.integers(-5, 6, len(chosen))) / 100
    found["limit"] = np.where(rng.random(len(chosen)) < 0.4, near, np.nan)
    return found


def _funding(rng: np.random.Generator, market: MarketArrays, execution: Execution) -> object:
    if execution.funding or rng.random() < 0.5:
        return execution.funding
    span = int(market.time[-1]) - START + 1
    times = np.unique(START + rng.integers(0, span, rng.integers(1, 9)))
    frame = pl.DataFrame({"timestamp": pl.Series(times).cast(pl.Datetime("us", "UTC"))})
    rates = pl.Series(rng.choice([-0.01, 0.0003, 0.02], len(times)))
    if rng.random() < 0.5:
        return frame.with_columns(rate=rates, symbol=pl.lit("S0"))
    return frame.with_columns(rate_long=rates, rate_short=rates * 2 + 0.001)


def _gaps(rng: np.random.Generator, market: MarketArrays) -> np.ndarray:
    span = int(market.time[-1]) - START + 1
    count = rng.integers(0, 5)
    ends = START + rng.integers(0, span, count)
    return np.array(
        sorted(zip(ends, rng.integers(0, market.extremes.shape[1], count), strict=True)),
        records.GAPS,
    )
