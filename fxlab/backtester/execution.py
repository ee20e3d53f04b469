"""Execution model: fill rules, fees, slippage, latency, funding and swap rates.

`Execution` says how orders meet the market: when they fill, at what price, at what cost.

`Latency` says how long an order takes to the market: constant, drawn, or measured. Draws are made
once, from a seed and the symbol's name, into a table that the kernel walks through order by order.
So chunks, threads and other symbols cannot change a draw.

Funding is what holding a position costs over time: a fraction of its notional at one moment. A
perpetual's rate is paid by longs to shorts (or the other way round, if negative); an FX swap
charges each side its own rate at the end of the trading day.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab._times import (
    Duration,
    from_micros,
    integer,
    number,
    parse_duration,
    required,
)
from fxlab.backtester._kernel.records import TERMS
from fxlab.errors import InvalidParameter, check_choice

FILLS: Final = ("next_trade", "book")
TAKER_BPS: Final = 5.0
UNEQUAL_FEES: Final = "unequal_fees"  # beside the names of what is as the venue listed it
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
_FIXED_FEES: Final = ("fee_per_order", "fee_per_unit", "min_fee")
PER_SYMBOL: Final = ("lot_size", "min_notional", "tick_size", *_FIXED_FEES)
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
    fee_per_order, fee_per_unit, min_fee
        Fees beside those of the notional, in quote currency: once an order that trades, for each
        base unit traded, and the least that all fees of an order come to; 0 is none. A number for
        all symbols, or a mapping by symbol. A position is sized so that it pays them.
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
        symbol; a null symbol means all of them. By default what a session has recorded of a
        perpetual is charged (`Session.funding`), and the result says so: ``"recorded"`` refuses a
        session without it, ``"none"`` charges nothing.
    instruments
        What the venue listed as the session was recorded (`Session.instruments`) is the default of
        `lot_size`, `min_notional` and `tick_size`, of each symbol that they do not name, and of
        the fees where `taker_bps` is 5, `maker_bps` is not given and all symbols have the same;
        the result says so. ``"recorded"`` refuses a session without a listing, ``"none"`` takes
        nothing from it.
    rebalance
        Trade back to the target when the exposure is this far from it; None never does.
    across_gaps
        Whether an order may fill after a gap of the recording that began before it could.
    close_at_end
        Sell what is held at the last price, instead of marking it.
    shared_cash
        Several symbols trade one account, instead of legs of equal capital.

    Raises
    ------
    InvalidParameter
        If a value is out of range.

    Examples
    --------
    >>> costs = fxlab.Execution(taker_bps=5, slippage_bps=1, latency="50ms")
    >>> fxlab.backtest(
    ...     ticks, "sma_cross", {"fast": 5, "slow": 20}, execution=costs
    ... ).execution.taker_bps
    5
    """

    fill: str = "next_trade"
    taker_bps: float = TAKER_BPS
    maker_bps: float | None = None
    fee_per_order: PerSymbol = 0.0
    fee_per_unit: PerSymbol = 0.0
    min_fee: PerSymbol = 0.0
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
    funding: pl.DataFrame | Rates | str | None = None
    instruments: str | None = None
    rebalance: float | None = None
    across_gaps: bool = False
    close_at_end: bool = False
    shared_cash: bool = False

    def __post_init__(self) -> None:
        check_choice("fill", self.fill, FILLS, "fill rule")
        check_choice("beyond_depth", self.beyond_depth, REMAINDERS, "rule for the remainder")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None or name not in ("maker_bps", "rebalance"):
                object.__setattr__(self, name, _check_between(name, value, low, high))
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise InvalidParameter(f"{name}={getattr(self, name)!r} is not True or False")
        for name in PER_SYMBOL:
            object.__setattr__(self, name, _check_per_symbol(name, getattr(self, name)))
        object.__setattr__(self, "latency", Latency.of(self.latency))
        if not (isinstance(self.funding, str) and self.funding in RECORDED_OR_NONE):
            object.__setattr__(self, "funding", parse_funding(self.funding))
        if self.instruments is not None:
            check_choice("instruments", self.instruments, RECORDED_OR_NONE, "source of sizes")
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
    def rates(self) -> Rates:
        """Return the funding rates: (symbol or None, µs, rate of longs, rate of shorts)."""
        return () if isinstance(self.funding, str) else parse_funding(self.funding)

    def as_dict(self) -> dict[str, Any]:
        """Return the assumptions as plain values that JSON can hold; `from_dict` reads them."""
        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        for name in PER_SYMBOL:
            if isinstance(values[name], Mapping):
                values[name] = dict(values[name])
        values["latency"] = self.delays.as_dict()
        if not isinstance(self.funding, str):
            values["funding"] = [list(rate) for rate in self.rates]
        if self.instruments is None:  # so that runs without a listing are what they always were
            del values["instruments"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Execution:
        """Return the assumptions that `as_dict` described, of this version or an older one."""
        given = dict(values)
        if "latency_us" in given:  # as the first version stored it
            given["latency"] = given.pop("latency_us") / 1e6
        elif isinstance(given.get("latency"), Mapping):
            given["latency"] = Latency.from_dict(given["latency"])
        if not isinstance(given.get("funding"), str):
            rates = given.get("funding") or ()
            given["funding"] = tuple(tuple(r) if isinstance(r, list) else r for r in rates)
        return cls(**given)

    def for_symbol(self, name: str, symbol: str) -> float:
        """Return `lot_size`, `min_notional`, `tick_size` or a fixed fee of a symbol; 0 is none."""
        value = getattr(self, name)
        return float(value.get(symbol, 0.0) if isinstance(value, Mapping) else value)

    def scaled(self, factor: float) -> Execution:
        """Return the assumptions with all fees, slippage and impact multiplied by a factor."""
        costs = ("taker_bps", "maker_bps", "slippage_bps", "impact_bps", *_FIXED_FEES)
        values = {name: getattr(self, name) for name in costs}
        changed: dict[str, Any] = {
            name: {symbol: fee * factor for symbol, fee in value.items()}
            if isinstance(value, Mapping)
            else value * factor
            for name, value in values.items()
            if value is not None
        }
        return replace(self, **changed)

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
        costs = f"fee {self.taker_bps:g} bps, slippage {self.slippage_bps:g} bps"
        shown, usual = ("fill", "taker_bps", "slippage_bps", "latency"), Execution()
        others = [
            f"{spec.name} {_short(spec.name, getattr(self, spec.name))}"
            for spec in fields(self)
            if spec.name not in shown and getattr(self, spec.name) != getattr(usual, spec.name)
        ]
        return ", ".join([self.fill, costs, f"latency {self.delays}", *others])


def _short(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return f"of {len(value)} rates"
    unit = " s" if name == "max_book_age" and value is not None else ""
    return f"{value:g}{unit}" if isinstance(value, float) else str(value)


def _check_per_symbol(name: str, value: object) -> float | dict[Any, float]:
    if isinstance(value, Mapping):
        return {symbol: _check_step(name, step) for symbol, step in value.items()}
    return _check_step(name, value)


def _check_step(name: str, value: object) -> float:
    step = _check_between(name, value, 0.0, 1e18)
    if 0.0 < step < SMALLEST_STEP and name not in _FIXED_FEES:
        raise InvalidParameter(
            f"{name}={step!r} is below {SMALLEST_STEP:g}, the smallest step; 0 is none"
        )
    return step


def _check_between(name: str, value: object, low: float, high: float) -> float:
    rule = f"{name}={value!r} is not a number from {low:g} to {high:g}"
    return required(number(value, low, high), rule)


DELAYS: Final = ("0s", "50ms", "250ms", "1s")
"""Latencies at which runs are compared."""

DRAWS: Final = 65_536
KINDS: Final = ("fixed", "uniform", "normal", "lognormal", "samples", "measured")


@dataclass(frozen=True, slots=True)
class Latency:
    """The time from a decision to the market, in microseconds.

    Use the constructors: ``Latency.fixed("50ms")``, ``Latency.lognormal("20ms", sigma=0.5)``,
    ``Latency.samples([...])``, ``Latency.measured()``.

    Attributes
    ----------
    kind
        One of `KINDS`.
    values
        What the kind needs, in microseconds (`lognormal`: the median and the dimensionless sigma).
    seed
        Which draws; the same seed draws the same delays.

    Examples
    --------
    >>> print(fxlab.Execution(latency=fxlab.Latency.lognormal("20ms", sigma=0.5)))
    next_trade, fee 5 bps, slippage 0 bps, latency lognormal(20 ms, 0.5; seed 0)
    """

    kind: str
    values: tuple[float, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS, "kind of latency")
        rule = f"seed={self.seed!r} is not a whole number from 0 up"
        seed = required(integer(self.seed, 0), rule)
        object.__setattr__(self, "seed", seed)

    @classmethod
    def fixed(cls, delay: Duration) -> Latency:
        """Return the same delay for every order."""
        return cls("fixed", (float(parse_duration(delay, "latency")),))

    @classmethod
    def uniform(cls, low: Duration, high: Duration, *, seed: int = 0) -> Latency:
        """Return delays spread evenly from `low` to `high`."""
        ends = (float(parse_duration(low, "low")), float(parse_duration(high, "high")))
        if ends[1] < ends[0]:
            raise InvalidParameter(f"low={low!r} is above high={high!r}; swap them")
        return cls("uniform", ends, seed)

    @classmethod
    def normal(cls, mean: Duration, deviation: Duration, *, seed: int = 0) -> Latency:
        """Return normally distributed delays; one below zero counts as zero."""
        spread = float(parse_duration(deviation, "deviation"))
        return cls("normal", (float(parse_duration(mean, "mean")), spread), seed)

    @classmethod
    def lognormal(cls, median: Duration, sigma: float, *, seed: int = 0) -> Latency:
        """Return delays with a long tail; `sigma` is the deviation of their logarithm."""
        spread = float(_check_between("sigma", sigma, 0, 5))
        return cls("lognormal", (float(parse_duration(median, "median")), spread), seed)

    @classmethod
    def samples(cls, delays: Iterable[Duration], *, seed: int = 0) -> Latency:
        """Return delays drawn from a list of measured ones."""
        if isinstance(delays, str) or not isinstance(delays, Iterable):
            raise InvalidParameter(f"delays={delays!r} is no list of durations; give ['2ms', ...]")
        delays = list(delays)
        if not delays:
            raise InvalidParameter("delays is empty; give at least one measured delay")
        return cls("samples", tuple(float(parse_duration(d, "delay")) for d in delays), seed)

    @classmethod
    def measured(cls, clock_offset: Duration = "0s") -> Latency:
        """Return the recording's own delays: received_at - timestamp of the decision's tick.

        Parameters
        ----------
        clock_offset
            Added to each delay: how far the recorder's clock was *behind* the venue's.
        """
        return cls("measured", (float(parse_duration(clock_offset, "clock_offset")),))

    @classmethod
    def of(cls, value: Latency | Duration) -> Latency:
        """Return a latency as it is, a duration as a fixed one, a text as `parse` reads it."""
        if isinstance(value, Latency):
            return value
        return cls.parse(value) if isinstance(value, str) else cls.fixed(value)

    @classmethod
    def parse(cls, text: str) -> Latency:
        """Return the latency that a text stands for, as command lines, files and forms give it.

        Parameters
        ----------
        text
            A duration (``"50ms"``), ``"measured"``, or a kind with what its constructor takes:
            ``"lognormal:20ms,0.5"``, ``"uniform:10ms,40ms,seed=3"``, ``"samples:1ms,2ms,9ms"``.

        Raises
        ------
        InvalidParameter
            If it is none of these.
        """
        kind, colon, rest = (part.strip() for part in text.lower().partition(":"))
        if kind not in KINDS and not colon:
            return cls.fixed(text)
        check_choice("latency", kind, KINDS, "kind of latency")
        words = [word.strip() for word in rest.split(",") if word.strip()]
        try:
            seed = {"seed": int(words.pop()[5:])} if rest and words[-1][:5] == "seed=" else {}
            numbers = [float(words.pop())] if kind == "lognormal" else []
            ends: list[Any] = [words] if kind == "samples" else [*words, *numbers]
            made: Latency = getattr(cls, kind)(*ends, **seed)
        except (TypeError, ValueError, IndexError) as error:
            if isinstance(error, InvalidParameter):
                raise
            raise InvalidParameter(
                f"latency={text!r:.80} is not a latency; write for example '50ms', 'measured', "
                "'lognormal:20ms,0.5' (median and sigma) or 'uniform:10ms,40ms,seed=3'"
            ) from None
        return made

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Latency:
        """Return the latency that `as_dict` described."""
        return cls(values["kind"], tuple(values["values_us"]), values["seed"])

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"kind": self.kind, "values_us": list(self.values), "seed": self.seed}

    @property
    def is_measured(self) -> bool:
        """Return whether each row brings its own delay."""
        return self.kind == "measured"

    def table(self, symbols: Sequence[str]) -> np.ndarray:
        """Return delays in whole microseconds: int64, a row a symbol, a column an order."""
        if self.kind == "measured":
            return np.zeros((len(symbols), 1), np.int64)
        if self.kind == "fixed":
            return np.full((len(symbols), 1), int(self.values[0]), np.int64)
        return np.stack([self._draw(symbol) for symbol in symbols])

    def _draw(self, symbol: str) -> np.ndarray:
        rng = np.random.default_rng([self.seed, zlib.crc32(symbol.encode())])
        if self.kind == "samples":
            drawn = rng.choice(np.array(self.values), DRAWS)
        elif self.kind == "lognormal":
            drawn = self.values[0] * rng.lognormal(0.0, self.values[1], DRAWS)
        else:  # normal, uniform
            drawn = getattr(rng, self.kind)(*self.values, DRAWS)
        whole: np.ndarray = np.maximum(np.rint(drawn), 0).astype(np.int64)
        return whole

    def __str__(self) -> str:
        """Say it in a few words."""
        if self.kind == "fixed":
            return f"{self.values[0] / 1_000:g} ms"
        if self.kind == "samples":
            return f"drawn from {len(self.values)} samples (seed {self.seed})"
        if self.kind == "measured":
            return "as measured"
        spread = self.values[1] if self.kind == "lognormal" else self.values[1] / 1_000
        return f"{self.kind}({self.values[0] / 1_000:g} ms, {spread:g}; seed {self.seed})"


Rates = tuple[tuple[str | None, int, float, float], ...]
"""(symbol or None for all, microseconds, rate of longs, rate of shorts), ordered by time."""

RECORDED_OR_NONE: Final = ("recorded", "none")
LARGEST_RATE: Final = 1.0
_FAR: Final = 2**55  # µs, a thousand years: what a datetime holds


def parse_funding(value: object) -> Rates:
    """Return funding rates, ordered by time; None means none.

    Raises
    ------
    InvalidParameter
        If the frame lacks a column, a rate is no number within one notional, or a symbol has two
        rates for one moment (one of its own beside one of all symbols, too).
    """
    if value is None:
        return ()
    if isinstance(value, pl.DataFrame):
        return _checked(_from_frame(value))
    if isinstance(value, tuple) and all(isinstance(r, tuple) and len(r) == 4 for r in value):
        return _checked(value)  # as this function returns them, or a plan has them
    raise InvalidParameter(
        f"funding={value!r:.80} is not a frame; give timestamp, rate (and symbol) as a DataFrame, "
        "or one of 'recorded' and 'none'"
    )


def _from_frame(frame: pl.DataFrame) -> Rates:
    names = set(frame.columns)
    if "timestamp" not in names or not ("rate" in names or {"rate_long", "rate_short"} <= names):
        raise InvalidParameter(
            f"funding has the columns {', '.join(frame.columns)}; it needs timestamp, and rate or "
            "rate_long and rate_short (and symbol, if they differ by symbol)"
        )
    if not isinstance(frame.schema["timestamp"], pl.Datetime):
        raise InvalidParameter("funding's timestamp is not a Datetime; cast it first")
    for name in names & {"rate", "rate_long", "rate_short"}:
        if not frame.schema[name].is_numeric():
            raise InvalidParameter(f"funding's {name} is {frame.schema[name]}, not a number")
    long = pl.col("rate") if "rate" in names else pl.col("rate_long")
    short = -pl.col("rate") if "rate" in names else pl.col("rate_short")
    plain = frame.select(
        pl.col("symbol").cast(pl.String) if "symbol" in names else pl.lit(None).alias("symbol"),
        pl.col("timestamp").dt.epoch("us").alias("time"),
        long.cast(pl.Float64).alias("long"),
        short.cast(pl.Float64).alias("short"),
    )
    return tuple(plain.iter_rows())


def _checked(rates: Rates) -> Rates:
    """Return the rates by time, or refuse those that are none or would be charged twice."""
    seen: dict[int, dict[str | None, tuple[float, float]]] = {}
    for symbol, micros, *pair in rates:
        known = integer(micros, -_FAR, _FAR)
        wrong = [r for r in pair if number(r, -LARGEST_RATE, LARGEST_RATE) is None]
        if known is None or wrong or not isinstance(symbol, str | None):
            rate = [*wrong, *pair][0]
            when = micros if known is None else f"{from_micros(known)} UTC"
            raise InvalidParameter(
                f"funding of {symbol or 'all symbols'!s:.80} has the rate {rate!s:.80} and the "
                f"time {when!s:.80}; a rate is a fraction of the notional, from -1 to 1, at a "
                "known time"
            )
        there = seen.setdefault(micros, {})
        other = next((name for name in (symbol, None, *there) if name in there), symbol)
        if there and (symbol in there or symbol is None or None in there):
            again = there[other] == tuple(pair) and other == symbol
            raise InvalidParameter(
                f"funding has two rates at {from_micros(micros)} UTC, of {other or 'all symbols'} "
                f"({there[other][0]:g}) and of {symbol or 'all symbols'} ({pair[0]:g}): both would "
                f"be charged; {'repeated rows go with .unique()' if again else 'keep one'}"
            )
        there[symbol] = (pair[0], pair[1])
    return tuple(sorted(rates, key=lambda rate: rate[1]))
