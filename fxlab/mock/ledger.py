"""The list of everything the venue did wrong, with the figures to reconcile with.

It lives in memory and, if a path is given, in a file of JSON lines that is flushed with every
fault, so that it outlives a venue that is killed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

KEPT: Final = 200_000


class Ledger:
    """Faults in their order.

    Parameters
    ----------
    path
        A file of JSON lines that is written anew; None for memory only.
    header
        What the first line says: the seed and the faults that were asked for.

    Attributes
    ----------
    faults
        The first `KEPT` of them; the file has them all.
    counts
        How often each fault befell.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self.faults: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.header = dict(header)
        self._file = None if path is None else path.open("w", encoding="utf-8")
        self._write({"ledger": self.header})

    def add(self, fault: str, **figures: Any) -> None:  # noqa: ANN401 - any JSON
        """Write one fault down."""
        line = {"fault": fault, **figures}
        self.counts[fault] += 1
        if len(self.faults) < KEPT:
            self.faults.append(line)
        self._write(line)

    def close(self, state: Mapping[str, Any]) -> None:
        """Write the last lines: one for each symbol, then one with everything else."""
        if self._file is None:
            return
        for symbol, figures in state["symbols"].items():
            self._write({"symbol": symbol, **figures})
        self._write({"closed": {key: state[key] for key in ("venues", "counts")}})
        self._file.close()
        self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
