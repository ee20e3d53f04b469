"""HTML for notebooks and reports: templates that escape, and the texts of values and tables.

Session notes, symbols and parameters come from outside and end up in pages. A template escapes
every text; only what another part made (`Markup`) is taken as it is.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from fxlab.errors import some

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

NOTHING: Final = "\u2013"
"""Shown for a value that is not there."""


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        autoescape=True,
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    made.filters.update(show=show, heading=heading)
    made.globals["nothing"] = NOTHING
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return made


def page(template: str, **values: Any) -> str:  # noqa: ANN401 - what the template names
    """Return a whole page."""
    return _environment().get_template(f"{template}.html.j2").render(values)


def part(name: str, *values: Any) -> Markup:  # noqa: ANN401 - what the macro names
    """Return a part of a page: what a macro of ``templates/parts.html.j2`` makes of the values."""
    made: Markup = getattr(_environment().get_template("parts.html.j2").module, name)(*values)
    return made


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
    literal: Container[str] = (),
    inline: bool = True,
) -> Markup:
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
    literal
        Columns that are called by an id, a symbol or what a person wrote: named as they are.
    inline
        Whether each cell carries its style; a page has a style sheet for it.
    """
    digits = decimals or {}
    heads = [
        (name if name in literal else heading(name), kind.is_numeric() or name in right)
        for name, kind in frame.schema.items()
    ]
    columns = (
        [(text, is_number) for text in texts(column, digits.get(column.name))]
        for column, (_, is_number) in zip(frame.head(limit), heads, strict=True)
    )
    more = f"{limit:,} of {frame.height:,} rows shown." if frame.height > limit else ""
    return part("table", caption, heads, zip(*columns, strict=True), more, inline)


def plain(frame: pl.DataFrame, literal: Container[str] = ()) -> str:
    """Return a frame as text, its values and heads as `table` shows them."""
    shown = [
        pl.Series(name if name in literal else heading(name), texts(frame[name]))
        for name in frame.columns
    ]
    with pl.Config(
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_rows=50,
        tbl_cols=20,
        fmt_str_lengths=60,
    ):
        return str(pl.DataFrame(shown))


def facts(pairs: Iterable[tuple[str, object]], *, inline: bool = True) -> Markup:
    """Return (name, value) pairs as a two-column table with row headings, escaped."""
    return part("facts", [(name, show(value)) for name, value in pairs], inline)


def paragraphs(lines: Sequence[object]) -> Markup:
    """Return a paragraph for each text, escaped."""
    return part("paragraphs", lines)


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


def slug(text: str, otherwise: str) -> str:
    """Return a text as it can stand in names of files and in links."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.")[:60] or otherwise
