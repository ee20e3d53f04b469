"""HTML fragments for notebooks and reports: the one place that escapes values and formats numbers.

Session notes, symbols and parameters come from outside and end up in pages; one place that turns
values into text means one place to get right.
"""

from __future__ import annotations

import html
import math
from collections.abc import Container, Iterable, Mapping
from datetime import datetime
from typing import Final

import polars as pl

from fxlab.errors import some

NOTHING: Final = "\u2013"
"""Shown for a value that is not there."""

_CELL: Final = "padding:.25em .9em;white-space:nowrap;"


def escape(value: object) -> str:
    """Return the value's text with ``& < > " '`` escaped: safe in elements and attributes."""
    return html.escape(str(value), quote=True)


def show(value: object, decimals: int | None = None) -> str:
    """Return a value as people read it, not yet escaped.

    Parameters
    ----------
    value
        Numbers get thousands separators, times lose trailing zeros, lists their brackets.
    decimals
        Digits after the point of a float; None keeps up to eight significant ones.
    """
    match value:
        case None:
            text = NOTHING
        case bool():
            text = "yes" if value else "no"
        case int():
            text = f"{value:,}"
        case float():
            text = show_number(value, decimals)
        case datetime():
            text = show_time(value)
        case list() | tuple() | pl.Series():
            text = some(show(item) for item in value)
        case dict():
            text = some(f"{heading(str(name))}: {show(item)}" for name, item in value.items())
        case _:
            text = str(value)
    return text


def show_number(value: float, decimals: int | None = None) -> str:
    """Return a float with thousands separators and no needless digits."""
    if not math.isfinite(value):
        return NOTHING if math.isnan(value) else "\u221e" if value > 0 else "-\u221e"
    if decimals is not None:
        return f"{value:z,.{decimals}f}"
    size = math.floor(math.log10(abs(value))) if value else 0
    if not -5 <= size <= 15:
        return f"{value:.4g}"
    text = f"{value:,.{min(max(7 - size, 0), 10)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def show_time(moment: datetime) -> str:
    """Return a time as ``2024-08-08 23:54:15.342``, without trailing zeros or its zone."""
    text = moment.strftime("%Y-%m-%d %H:%M:%S.%f")
    return text.rstrip("0").rstrip(".")


def table(
    frame: pl.DataFrame,
    *,
    caption: str = "",
    limit: int = 200,
    decimals: Mapping[str, int] | None = None,
    right: Container[str] = (),
) -> str:
    """Return a frame as an HTML table, everything escaped.

    Parameters
    ----------
    frame
        Any frame; column names become headings, underscores read as spaces.
    caption
        One line above the table, for sighted readers and screen readers alike.
    limit
        Rows shown at most; where there are more, a line below says how many.
    decimals
        Digits after the point, by column name.
    right
        Columns aligned to the right, beside the numeric ones.
    """
    digits = decimals or {}
    shown = frame.head(limit)
    aligned = [_style(kind.is_numeric() or name in right) for name, kind in frame.schema.items()]
    names = (escape(heading(name)) for name in frame.columns)
    head = "".join(
        f'<th scope="col" style="{style}">{name}</th>'
        for name, style in zip(names, aligned, strict=True)
    )
    columns = (texts(column, digits.get(column.name)) for column in shown.get_columns())
    body = "".join(_row(row, aligned) for row in zip(*columns, strict=True))
    title = f'<caption style="text-align:left">{escape(caption)}</caption>' if caption else ""
    more = f"<p>{limit:,} of {frame.height:,} rows shown.</p>" if frame.height > limit else ""
    return (
        f'<table class="fxlab">{title}<thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{more}"
    )


def plain(frame: pl.DataFrame) -> str:
    """Return a frame as text, its values as `table` shows them."""
    shown = [pl.Series(heading(column.name), texts(column)) for column in frame.get_columns()]
    with pl.Config(
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_rows=50,
        tbl_cols=20,
        fmt_str_lengths=60,
    ):
        return str(pl.DataFrame(shown))


def facts(pairs: Iterable[tuple[str, object]]) -> str:
    """Return (name, value) pairs as a two-column table with row headings, escaped."""
    rows = "".join(
        f'<tr><th scope="row" style="{_style(number=False)}font-weight:600">{escape(name)}</th>'
        f'<td style="{_style(number=False)}white-space:normal">{escape(show(value))}</td></tr>'
        for name, value in pairs
    )
    return f'<table class="fxlab facts"><tbody>{rows}</tbody></table>'


def heading(name: str) -> str:
    """Return a column name as a heading: ``entry_price`` reads "entry price"."""
    return name.strip("_").replace("_", " ")


def texts(column: pl.Series, decimals: int | None = None) -> list[str]:
    """Return a column's texts; numbers and times get as many digits as the longest needs."""
    found = [show(value, decimals) for value in column]
    if column.dtype.is_float() and decimals is None:
        needed = max((_digits(text) for text in found), default=0)
        return [
            text if "e" in text else show(v, needed) for v, text in zip(column, found, strict=True)
        ]
    if isinstance(column.dtype, pl.Datetime):
        needed = max((_digits(text) for text in found), default=0)
        return [_padded(text, needed) for text in found]
    return found


def _digits(text: str) -> int:
    return len(text.partition(".")[2])


def _padded(time: str, digits: int) -> str:
    if time == NOTHING or not digits:
        return time
    whole, _, fraction = time.partition(".")
    return f"{whole}.{fraction.ljust(digits, '0')}"


def _row(texts: tuple[str, ...], styles: list[str]) -> str:
    cells = "".join(
        f'<td style="{style}">{escape(text)}</td>'
        for text, style in zip(texts, styles, strict=True)
    )
    return f"<tr>{cells}</tr>"


def _style(number: bool) -> str:  # noqa: FBT001 - a private switch, named at its calls
    side = "right;font-variant-numeric:tabular-nums;" if number else "left;"
    return f"{_CELL}text-align:{side}"
