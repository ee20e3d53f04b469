"""How orders meet the market: when they fill, at what price, at what cost."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

from fxlab.errors import InvalidParameter, did_you_mean
from fxlab.times import Duration, parse_duration

FILLS: Final = ("next_trade",)


@dataclass(frozen=True, kw_only=True, slots=True)
class Execution:
    """The assumptions of a backtest about its orders.

    Parameters
    ----------
    fill
        ``"next_trade"``: an order decided at row i fills at the price of the first later row
        whose time is at least the decision's time plus `latency`. There is no same-tick fill.
    taker_bps
        Fee of a market order, in basis points of its notional; negative is a rebate.
    slippage_bps
        How far a fill is worse than the print, in basis points.
    latency
        From the decision to the market: a timedelta, text such as ``"50ms"``, or seconds.
    max_leverage
        Largest absolute target allowed.

    Raises
    ------
    InvalidParameter
        If a value is out of range.
    """

    fill: str = "next_trade"
    taker_bps: float = 5.0
    slippage_bps: float = 0.0
    latency: Duration = "0s"
    max_leverage: float = 1.0

    def __post_init__(self) -> None:
        if self.fill not in FILLS:
            near = did_you_mean(str(self.fill), FILLS)
            raise InvalidParameter(
                f"fill={self.fill!r} is not a fill rule; known: {', '.join(FILLS)}. {near}".strip()
            )
        _check_between("taker_bps", self.taker_bps, -100.0, 1_000.0)
        _check_between("slippage_bps", self.slippage_bps, 0.0, 1_000.0)
        _check_between("max_leverage", self.max_leverage, 0.0, 100.0)
        parse_duration(self.latency, "latency")

    @property
    def latency_us(self) -> int:
        """Return the latency in microseconds."""
        return parse_duration(self.latency, "latency")

    def as_dict(self) -> dict[str, Any]:
        """Return the assumptions as plain values, latency in microseconds."""
        values = asdict(self)
        del values["latency"]
        return {**values, "latency_us": self.latency_us}

    def __str__(self) -> str:
        """Return the assumptions on one line."""
        return (
            f"{self.fill}, fee {self.taker_bps:g} bps, slippage {self.slippage_bps:g} bps, "
            f"latency {self.latency_us / 1_000:g} ms"
        )


def check_capital(capital: float) -> float:
    """Return the capital as a float, or raise `InvalidParameter` unless it is above zero."""
    if isinstance(capital, bool) or not isinstance(capital, int | float):
        raise InvalidParameter(f"capital={capital!r} is not a number; give money, e.g. 10_000")
    if not (math.isfinite(capital) and capital > 0):
        raise InvalidParameter(f"capital={capital} must be above zero; give money, e.g. 10_000")
    return float(capital)


def _check_between(name: str, value: float, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and low <= value <= high):
        raise InvalidParameter(f"{name}={value!r} is not a number from {low:g} to {high:g}")
