"""The parameter types that several strategies share, with their ranges."""

from __future__ import annotations

from typing import Annotated

from fxlab.backtester.parameters import Bounds

Window = Annotated[int, Bounds(1, 1_000_000)]
BasisPoints = Annotated[float, Bounds(0.0, 10_000.0)]
StopBasisPoints = Annotated[float, Bounds(0.0, 9_999.0)]
Seconds = Annotated[float, Bounds(0.0, 86_400.0)]
