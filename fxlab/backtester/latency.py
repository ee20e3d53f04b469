"""How long an order takes to the market: always the same, drawn, or measured.

Draws are made once, from a seed and the symbol's name, into a table that the kernel walks through
order by order. So chunks, threads and other symbols cannot change a draw.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fxlab.errors import InvalidParameter, did_you_mean
from fxlab.numbers import integer, number
from fxlab.times import Duration, parse_duration

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
    """

    kind: str
    values: tuple[float, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidParameter(_no_kind(self.kind))
        seed = integer(self.seed, 0)
        if seed is None:
            raise InvalidParameter(f"seed={self.seed!r} is not a whole number from 0 up")
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
        if number(sigma, 0, 5) is None:
            raise InvalidParameter(f"sigma={sigma!r} is not a number from 0 to 5")
        return cls("lognormal", (float(parse_duration(median, "median")), float(sigma)), seed)

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
        if kind not in KINDS:
            if colon:
                raise InvalidParameter(_no_kind(kind))
            return cls.fixed(text)
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
        elif self.kind == "normal":
            drawn = rng.normal(self.values[0], self.values[1], DRAWS)
        else:
            drawn = rng.uniform(self.values[0], self.values[1], DRAWS)
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


def _no_kind(kind: str) -> str:
    near = did_you_mean(str(kind), KINDS)
    return f"{kind!r:.80} is no kind of latency; known: {', '.join(KINDS)}. {near}".strip()
