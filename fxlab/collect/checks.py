"""Refuse a row by naming its file, its line, its value and the rule it breaks.

Rules are Polars expressions, so a million rows are judged in a few milliseconds; only when one is
broken is the row looked up that the error shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import polars as pl

from fxlab.collect.fields import RAW, Field
from fxlab.errors import ImportRefused


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows came from, in the user's words.

    Attributes
    ----------
    file
        What the user calls it.
    word, first
        "line" and 2 for CSV (its first line is the header), "row" and 1 elsewhere.
    """

    file: str
    word: str = "row"
    first: int = 1

    def refuse(self, reason: str, row: int | None = None) -> NoReturn:
        """Raise `ImportRefused` for the whole file or one of its rows, counted from zero."""
        where = self.file if row is None else f"{self.file}, {self.word} {self.first + row}"
        raise ImportRefused(f"{where}: {reason}; nothing was imported")


def check(place: Place, raw: pl.DataFrame, rows: pl.DataFrame, wanted: Sequence[Field]) -> None:
    """Raise `ImportRefused` for the first row in which a field breaks its rule.

    Parameters
    ----------
    place
        Where the rows came from.
    raw, rows
        The rows as the file has them, and as they were understood.
    wanted
        The fields, each with its rule.
    """
    both = rows.hstack(raw.select(pl.all().name.prefix(RAW)).get_columns())
    holds = both.select(
        field.holds.fill_null(value=False).alias(str(number)) for number, field in enumerate(wanted)
    )
    broken = [(held.arg_min() or 0, number) for number, held in enumerate(holds) if not held.all()]
    if not broken:
        return
    row, number = min(broken)
    field = wanted[number]
    others = int(holds.select((~pl.all_horizontal(pl.all())).sum()).item()) - 1
    more = f" (and {others:,} more rows break a rule)" if others else ""
    shown = " and ".join(
        f"{name}={_short(raw[name][row])}" for name in (field.source, *field.beside)
    )
    hint = field.hint(raw[field.source][row]) if field.hint is not None else ""
    rule = f"{field.rule}; {hint}" if hint else field.rule
    place.refuse(f"{shown}, but {rule}{more}; mend or remove it", row)


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
