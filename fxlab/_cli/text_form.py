"""Text tables for a terminal: wrapped, shortened by whole columns, ids never cut.

Where there is too little room, texts wrap first, then headings break at their underscores, then
columns are left out, the last ones first, and a line says which. Ids, numbers and times are shown
whole or not at all. Output that is no terminal is as wide as its longest lines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import polars as pl
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from fxlab import _html
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.report._summary import show_metric, show_seconds

NOTHING: Final = "-"
MOST_ITEMS: Final = 6
"""Items of a list that a cell shows; a session may have 5,000 symbols."""

LONGEST_ID: Final = 70
_NARROWEST: Final = 12
_PARTS: Final = ("test_", "train_")
_IDS: Final = frozenset(
    {"id", "session", "symbol", "run", "sweep", "job", "strategy", "metric", "setting"}
)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, its cells as text, and how it may be treated."""

    name: str
    cells: list[str]
    right: bool = False
    wraps: bool = False

    @property
    def needs(self) -> int:
        """Return how wide its widest cell is."""
        return max(map(cell_len, self.cells), default=0)

    @property
    def is_id(self) -> bool:
        """Return whether it names the row: such columns go last."""
        return self.name in _IDS or self.name.endswith("_id")


def columns_of_values(names: Sequence[str], cells: Sequence[Sequence[object]]) -> list[Column]:
    """Return columns of values of any kind; a number in a column of texts stands as text."""
    made = []
    for name, values in zip(names, cells, strict=True):
        numbers = [value for value in values if value is not None]
        right = bool(numbers) and all(map(_is_number, numbers))
        texts = [_text(value, name) for value in values]
        made.append(Column(name, texts, right, wraps=not right and name not in _IDS))
    return made


def columns_of_facts(facts: Mapping[str, object], title: str) -> list[Column]:
    """Return two columns: names and values."""
    values = [_text(value, name) for name, value in facts.items()]
    return [Column("", list(facts)), Column(title, values, wraps=True)]


def columns_of_frame(frame: pl.DataFrame) -> list[Column]:
    """Return the columns of a frame, with the digits and units that a notebook shows."""
    units = frame["unit"].to_list() if {"metric", "unit"} <= set(frame.columns) else None
    return [_column(one, units) for one in frame if units is None or one.name != "unit"]


def lay_out(columns: Sequence[Column], width: int | None) -> tuple[Table, int, list[str]]:
    """Return a table for a terminal of a width, how wide it is, and what has to be said about it.

    A width of None is output without an end of line.
    """
    shown = list(columns)
    heads = {one.name: one.name for one in shown}
    notes: list[str] = []
    if width is not None and _width(shown, heads, {}) > width:
        heads, notes = _headings(shown)
        left_out = []
        while len(shown) > 1 and _width(shown, heads, _least(shown)) > width:
            left_out.append(_least_needed(shown))
            shown.remove(left_out[-1])
        if left_out:
            names = ", ".join(one.name for one in reversed(left_out))
            notes.append(f"too narrow for: {names}; --json and --csv have every column")
    sizes = _sizes(shown, heads, width)
    table = Table(header_style="bold", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for one in shown:
        table.add_column(
            Text(heads[one.name]),
            justify="right" if one.right else "left",
            width=sizes[one.name],
            overflow="fold",
        )
    for row in zip(*(one.cells for one in shown), strict=True):
        table.add_row(*map(Text, row))
    return table, sum(sizes.values()) + _between(shown), notes


def _least_needed(shown: list[Column]) -> Column:
    """Return the last column that names no row; where all do, the last of them."""
    return next((one for one in reversed(shown[1:]) if not one.is_id), shown[-1])


def _sizes(shown: list[Column], heads: dict[str, str], width: int | None) -> dict[str, int]:
    """Return how wide each column is: texts share what the others leave."""
    sizes = {one.name: _size(heads[one.name], one.needs) for one in shown}
    if width is None:
        return sizes
    least = _least(shown)
    while sum(sizes.values()) + _between(shown) > width:
        room = {
            one.name: sizes[one.name]
            for one in shown
            if sizes[one.name] > max(least.get(one.name, math.inf), _head_size(heads[one.name]))
        }
        if not room:
            break
        sizes[max(room, key=room.__getitem__)] -= 1
    return sizes


def _width(shown: list[Column], heads: dict[str, str], sizes: dict[str, int]) -> int:
    """Return the width of a table whose columns are as wide as they have to be."""
    cells = (_size(heads[one.name], sizes.get(one.name, one.needs)) for one in shown)
    return sum(cells) + _between(shown)


def _between(shown: list[Column]) -> int:
    """Return the room between columns, and behind the last one."""
    return 2 * len(shown) - 1


def _size(head: str, needs: int) -> int:
    return max(needs, _head_size(head), 1)


def _head_size(head: str) -> int:
    return max(map(cell_len, head.split("\n")))


def _least(shown: list[Column]) -> dict[str, int]:
    """Return how narrow the columns that wrap may become: no word of an id is broken."""
    return {one.name: min(one.needs, _narrowest(one)) for one in shown if one.wraps}


def _narrowest(one: Column) -> int:
    words = (cell_len(word) for cell in one.cells for word in cell.split() if _is_name(word))
    return max([_NARROWEST, *words])


def _is_name(word: str) -> bool:
    """Return whether a word may be an id: paths, addresses and what is longer may be broken."""
    return len(word) <= LONGEST_ID and not set(word) & set("/\\@")


def _headings(shown: list[Column]) -> tuple[dict[str, str], list[str]]:
    """Return headings that are no wider than they need be, and the legend of those that are ids."""
    heads: dict[str, str] = {}
    legend: list[str] = []
    for one in shown:
        if cell_len(one.name) <= max(one.needs, 3):
            heads[one.name] = one.name
        elif any(map(str.isdigit, one.name)):
            heads[one.name] = f"({len(legend) + 1})"
            legend.append(f"{heads[one.name]} {one.name}")
        else:
            heads[one.name] = _broken(one.name, max(one.needs, 3))
    return heads, legend


def _broken(name: str, room: int) -> str:
    """Return a heading in lines that end behind underscores, each as long as fits."""
    marks = [0, *(at + 1 for at, letter in enumerate(name) if letter in "_ "), len(name)]
    lines = [""]
    for first, last in pairwise(marks):
        piece = name[first:last]
        if lines[-1] and cell_len(lines[-1] + piece) > room:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _column(column: pl.Series, units: list[str] | None) -> Column:
    name = column.name
    if units is not None and column.dtype.is_float():
        texts = [_metric(value, unit) for value, unit in zip(column, units, strict=True)]
    elif (unit := _unit(name)) and column.dtype.is_numeric():
        texts = [_metric(value, unit) for value in column]
    elif column.dtype.is_float() or isinstance(column.dtype, pl.Datetime):
        texts = [_dash(text) for text in _html.texts(column)]
    else:
        texts = [_text(value, name) for value in column]
    right = column.dtype.is_numeric()
    is_fixed = right or isinstance(column.dtype, pl.Datetime | pl.Boolean)
    made = Column(name, texts, right, wraps=False)
    return made if is_fixed or made.is_id else Column(name, texts, right, wraps=True)


def _unit(name: str) -> str:
    """Return the unit of a column that is named after a figure, or for a time."""
    for part in _PARTS:
        name = name.removeprefix(part)
    if name in METRICS:
        return METRICS[name][0]
    return "seconds" if name == "seconds" or name.endswith("_seconds") else ""


def _metric(value: float | None, unit: str) -> str:
    return _dash(show_metric(value, unit))


def _text(value: object, name: str = "") -> str:
    """Return a value as text; of a long list the first items and how many there are."""
    if value is None:
        return NOTHING
    if isinstance(value, float) and name.endswith("_seconds"):
        return show_seconds(value)
    if isinstance(value, list | tuple | pl.Series) and len(value) > MOST_ITEMS:
        return f"{_html.show(list(value[:MOST_ITEMS]))} and {len(value) - MOST_ITEMS:,} more"
    if isinstance(value, datetime):
        return f"{_html.show_time(value)} UTC" if value.tzinfo else _html.show_time(value)
    return _dash(_html.show(value)) or NOTHING


def _dash(text: str) -> str:
    return NOTHING if text in {_html.NOTHING, "nan"} else text


def _is_number(value: Any) -> bool:  # noqa: ANN401 - any cell
    return isinstance(value, int | float) and not isinstance(value, bool)
