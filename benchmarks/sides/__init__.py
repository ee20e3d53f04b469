"""Those who do the work: fxlab, the bare kernels, and each peer as its own users would run it.

A side is a class that takes a `Market`, makes its own form of the data (not timed), and has a
method for each work it can do; every method returns an `Outcome`. A peer is imported only when
asked for, so that one that is not installed is a row with a reason, not a crash.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any


class UnavailableError(Exception):
    """A side cannot run here; the text says why."""


@dataclass(frozen=True)
class Entry:
    """Where a side lives and what has to be installed for it."""

    module: str
    maker: str
    packages: tuple[str, ...]


SIDES = {
    "fxlab": Entry("sides.ours", "Ours", ("fxlab",)),
    "bare kernel": Entry("sides.floor", "Floor", ("numba",)),
    "vectorbt rust": Entry("sides.of_vectorbt", "Rust", ("vectorbt", "vectorbt_rust")),
    "vectorbt numba": Entry("sides.of_vectorbt", "Numba", ("vectorbt",)),
    "hftbacktest": Entry("sides.of_hftbacktest", "Events", ("hftbacktest",)),
    "backtesting.py": Entry("sides.of_backtesting", "Bars", ("backtesting",)),
}


def find(name: str) -> Any:
    """Return the class of a side.

    Raises
    ------
    UnavailableError
        If a package is missing or does not import.
    """
    entry = SIDES[name]
    missing = [each for each in entry.packages if importlib.util.find_spec(each) is None]
    if missing:
        raise UnavailableError(f"{missing[0]} is not installed (pip install 'fxlab[peers]')")
    try:
        return getattr(importlib.import_module(entry.module), entry.maker)
    except Exception as error:  # whatever an import raises, the other rows go on
        raise UnavailableError(f"{entry.packages[0]} does not import: {error!r:.200}") from error
