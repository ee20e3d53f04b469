"""How orders meet the market: when they fill, at what price, at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab.backtester.funding import Rates, parse_funding
from fxlab.backtester.latency import Latency
from fxlab.backtester.records import TERMS
from fxlab.errors import InvalidParameter, did_you_mean
from fxlab.numbers import number
from fxlab.times import Duration, parse_duration

FILLS: Final = ("next_trade", "book")
REMAINDERS: Final = ("cancel", "last_level")
SMALLEST_STEP: Final = 1e-22  # a decimal step has a power of ten that a float holds exactly
PerSymbol = float | Mapping[str, float]

# name: smallest and largest value
_RANGES: Final = {
    "taker_bps": (-100.0, 1_000.0),
    "maker_bps": (-100.0, 1_000.0),
    "slippage_bps": (0.0, 1_000.0),
    "impact_bps": (0.0, 1_000.0),
    "impact_notional": (1e-9, 1e18),
    "max_leverage": (0.0, 100.0),
    "maintenance_margin": (0.0, 0.99),
    "liquidation_bps": (0.0, 1_000.0),
    "rebalance": (1e-6, 100.0),
}
_PER_SYMBOL: Final = ("lot_size", "min_notional", "tick_size")
_SWITCHES: Final = ("touch", "queue", "across_gaps", "close_at_end", "shared_cash")


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """The assumptions of a backtest about its orders.

    Parameters
    ----------
    fill
        ``"next_trade"``: an order decided at row i fills at the price of the first later row
        whose time is at least the decision's time plus `latency`. ``"book"``: it fills then
        against the last order book known before that row, crossing the spread and walking the
        levels for its size. There is no same-tick fill.
    taker_bps, maker_bps
        Fees of market orders, and of limit orders that rested, in basis points of their notional;
        negative is a rebate. `maker_bps` is `taker_bps` unless given.
    slippage_bps
        How far a market order fills worse than print or book, in basis points.
    impact_bps, impact_notional
        Further slippage by size: ``impact_bps * sqrt(notional / impact_notional)``, the
        square-root law (Almgren, Thum, Hauptmann, Li 2005, "Direct estimation of equity market
        impact"); `impact_notional` is in quote currency.
    latency
        From the decision to the market: a timedelta, text such as ``"50ms"``, seconds, or a
        `Latency` (drawn or measured).
    max_book_age
        With ``fill="book"``: an older book is not traded against; None trusts any. Kept in
        seconds.
    beyond_depth
        With ``fill="book"``, what the recorded levels do not hold: ``"cancel"`` leaves it
        unfilled, ``"last_level"`` fills it at the last level's price. Both are flagged.
    touch
        A resting limit order fills when its price is reached; otherwise only when a trade goes
        *through* it.
    queue
        With ``fill="book"``: a resting limit order waits behind the quantity shown at its price;
        trades at that price and a shrinking level move it forward.
    lot_size, min_notional, tick_size
        Steps of quantity (base units), smallest notional (quote), steps of price; 0 is none. A
        number for all symbols, or a mapping by symbol.
    max_leverage
        Largest absolute target allowed; with `shared_cash` of all positions together.
    maintenance_margin, liquidation_bps
        A position is liquidated when equity falls to this share of its notional, at the taker fee
        plus `liquidation_bps`.
    funding
        A frame ``timestamp``, ``symbol`` (optional), and ``rate`` (what a long pays a short, a
        fraction of notional) or ``rate_long`` and ``rate_short`` (what each side pays: swap).
        A rate is charged before the rows of its own time, on what was held by then: a position
        opened at exactly that time does not pay, one closed at it does. One rate a moment and
        symbol; a null symbol means all of them.
    rebalance
        Trade back to the target when the exposure is this far from it; None never does.
    across_gaps
        Whether an order may fill after a hole of the recording that began before it could.
    close_at_end
        Sell what is held at the last price, instead of marking it.
    shared_cash
        Several symbols trade one account, instead of legs of equal capital.

    Raises
    ------
    InvalidParameter
        If a value is out of range.
    """

    fill: str = "next_trade"
    taker_bps: float = 5.0
    maker_bps: float | None = None
    slippage_bps: float = 0.0
    impact_bps: float = 0.0
    impact_notional: float = 1_000_000.0
    latency: Latency | Duration = "0s"
    max_book_age: Duration | None = "5s"
    beyond_depth: str = "cancel"
    touch: bool = False
    queue: bool = False
    lot_size: PerSymbol = 0.0
    min_notional: PerSymbol = 0.0
    tick_size: PerSymbol = 0.0
    max_leverage: float = 1.0
    maintenance_margin: float = 0.0
    liquidation_bps: float = 0.0
    funding: pl.DataFrame | Rates | None = None
    rebalance: float | None = None
    across_gaps: bool = False
    close_at_end: bool = False
    shared_cash: bool = False

    def __post_init__(self) -> None:
        _check_choice("fill", self.fill, FILLS, "fill rule")
        _check_choice("beyond_depth", self.beyond_depth, REMAINDERS, "rule for the remainder")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None or name not in ("maker_bps", "rebalance"):
                object.__setattr__(self, name, _check_between(name, value, low, high))
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise InvalidParameter(f"{name}={getattr(self, name)!r} is not True or False")
        for name in _PER_SYMBOL:
            object.__setattr__(self, name, _check_per_symbol(name, getattr(self, name)))
        object.__setattr__(self, "latency", Latency.of(self.latency))
        object.__setattr__(self, "funding", parse_funding(self.funding))
        if self.max_book_age is not None:  # in seconds, so that equal assumptions are equal
            seconds = parse_duration(self.max_book_age, "max_book_age") / 1e6
            object.__setattr__(self, "max_book_age", seconds)
        if self.queue and self.fill != "book":
            raise InvalidParameter(
                f"queue=True needs the books that fill={self.fill!r} does not look at; "
                "use fill='book', or queue=False"
            )

    @property
    def delays(self) -> Latency:
        """Return the latency as a `Latency`."""
        return Latency.of(self.latency)

    @property
    def latency_us(self) -> int:
        """Return a fixed latency, or the median of a drawn one, in microseconds."""
        return int(np.median(self.delays.table(["median"])))

    @property
    def rates(self) -> Rates:
        """Return the funding rates: (symbol or None, µs, rate of longs, rate of shorts)."""
        return parse_funding(self.funding)

    def as_dict(self) -> dict[str, Any]:
        """Return the assumptions as plain values that JSON can hold; `from_dict` reads them."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        for name in _PER_SYMBOL:
            if isinstance(values[name], Mapping):
                values[name] = dict(values[name])
        values["latency"] = self.delays.as_dict()
        values["funding"] = [list(rate) for rate in self.rates]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Execution:
        """Return the assumptions that `as_dict` described, of this version or an older one."""
        given = dict(values)
        if "latency_us" in given:  # as the first version stored it
            given["latency"] = given.pop("latency_us") / 1e6
        elif isinstance(given.get("latency"), Mapping):
            given["latency"] = Latency.from_dict(given["latency"])
        given["funding"] = tuple(tuple(rate) for rate in given.get("funding") or ())
        return cls(**given)

    def for_symbol(self, name: str, symbol: str) -> float:
        """Return `lot_size`, `min_notional` or `tick_size` of a symbol; 0 is none."""
        value = getattr(self, name)
        return float(value.get(symbol, 0.0) if isinstance(value, Mapping) else value)

    def terms(self, interval_us: int) -> np.ndarray:
        """Return the kernel's `TERMS` record (one element)."""
        terms = np.zeros(1, TERMS)
        age = self.max_book_age
        maker = self.taker_bps if self.maker_bps is None else self.maker_bps
        values = {
            "taker": self.taker_bps / 10_000,
            "maker": maker / 10_000,
            "slippage": self.slippage_bps / 10_000,
            "impact": self.impact_bps / 10_000,
            "impact_notional": self.impact_notional,
            "rebalance": math.nan if self.rebalance is None else self.rebalance,
            "max_leverage": self.max_leverage,
            "maintenance": self.maintenance_margin,
            "liquidation": self.liquidation_bps / 10_000,
            "interval": interval_us,
            "max_book_age": 2**62 if age is None else parse_duration(age, "max_book_age"),
            "book": self.fill == "book",
            "last_level": self.beyond_depth == "last_level",
            "touch": self.touch,
            "queue": self.queue,
            "shared": self.shared_cash,
            "across_gaps": self.across_gaps,
            "max_holding": -1,
            "leap": 1,
        }
        for name, value in values.items():
            terms[name] = value
        return terms

    def __str__(self) -> str:
        """Return the assumptions on one line: the main ones, and what differs from the default."""
        main = (
            f"{self.fill}, fee {self.taker_bps:g} bps, slippage {self.slippage_bps:g} bps, "
            f"latency {self.delays}"
        )
        shown = ("fill", "taker_bps", "slippage_bps", "latency")
        usual = Execution()
        others = [
            f"{name} {_short(name, getattr(self, name))}"
            for name in (spec.name for spec in fields(self))
            if name not in shown and getattr(self, name) != getattr(usual, name)
        ]
        return ", ".join([main, *others])


def _short(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"of {len(value)} rates"
    unit = " s" if name == "max_book_age" and value is not None else ""
    return f"{value:g}{unit}" if isinstance(value, float) else str(value)


def _check_choice(name: str, value: object, known: Sequence[str], kind: str) -> None:
    if value not in known:
        near = did_you_mean(str(value), known)
        words = f"{name}={value!r} is not a {kind}; known: {', '.join(known)}. {near}"
        raise InvalidParameter(words.strip())


def _check_per_symbol(name: str, value: object) -> float | dict[Any, float]:
    if isinstance(value, Mapping):
        return {symbol: _check_step(name, step) for symbol, step in value.items()}
    return _check_step(name, value)


def _check_step(name: str, value: object) -> float:
    step = _check_between(name, value, 0.0, 1e18)
    if 0.0 < step < SMALLEST_STEP:
        raise InvalidParameter(
            f"{name}={step!r} is below {SMALLEST_STEP:g}, the smallest step; 0 is none"
        )
    return step


def _check_between(name: str, value: object, low: float, high: float) -> float:
    found = number(value, low, high)
    if found is None:
        raise InvalidParameter(f"{name}={value!r} is not a number from {low:g} to {high:g}")
    return found
