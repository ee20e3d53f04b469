"""CSV, strictly: every line is a row with all its fields, or the file is refused.

Readers made for analysis fill short lines with nulls and skip what they cannot read. Here a field
that is missing, and a file that ends in the middle of a line, are errors with a line number; the
fields stay text until `fxlab.collect.rows` has understood each of them.
"""

from __future__ import annotations

import re
import textwrap
from typing import Final

import polars as pl

from fxlab.collect.checks import Place

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def read(place: Place, data: bytes) -> pl.DataFrame:
    """Return the fields of a CSV file as text; an empty field is null.

    Parameters
    ----------
    place
        The file, for errors.
    data
        Its bytes: UTF-8, one header line, commas, no quotes; lines end with LF or CR LF.

    Returns
    -------
    polars.DataFrame
        One String column a header field, one row a line.

    Raises
    ------
    ImportRefused
        For an empty file, a cut last line, a missing or doubled column name, a line with more or
        fewer fields than the header, a quoted field, or bytes that are not text.
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)
    _refuse_odd_bytes(place, data)
    header, _, body = data.partition(b"\n")
    names = _header(place, _text(place, header, row=-1))
    lines = _lines(place, body)
    _refuse_odd_counts(place, lines, len(names))
    fields = lines.str.split_exact(",", len(names) - 1).struct.rename_fields(names)
    found = fields.struct.unnest()
    if b" " in body:
        found = found.with_columns(pl.all().str.strip_chars(" "))
    return found.with_columns(pl.when(pl.all() != "").then(pl.all()))


def _refuse_odd_bytes(place: Place, data: bytes) -> None:
    if not data or data.isspace():
        place.refuse("the file is empty, not even a header; remove it, or copy it again")
    for odd, meaning in ((b"\0", "a NUL character"), (b'"', "a quoted field")):
        if odd in data:
            row = data.count(b"\n", 0, data.index(odd)) - 1
            place.refuse(f"{meaning} stands there; write the file as plain numbers and names", row)
    if not data.endswith(b"\n"):
        last = data.rsplit(b"\n", 1)[-1].decode(errors="replace")
        place.refuse(
            f"the file ends inside {last!r:.80}, without a line end: its last number may be cut; "
            "copy the file again, or end the line if it is whole",
            data.count(b"\n") - 1,
        )


def _lines(place: Place, body: bytes) -> pl.Series:
    """Return the lines as text, the empty ones at the end left out."""
    whole = body.rstrip(b"\r\n")
    if not whole:
        return pl.Series("line", [], dtype=pl.String)
    try:
        # One column: the separator cannot occur. Polars splits lines many times faster than Python.
        frame = pl.read_csv(
            whole, has_header=False, separator="\0", quote_char=None, infer_schema=False
        )
    except pl.exceptions.PolarsError:
        _text(place, whole, row=0)
        raise
    lines = frame.to_series().fill_null("")
    if lines.len() != whole.count(b"\n") + 1:
        place.refuse("its lines cannot be told apart; write it with one kind of line end")
    return lines


def _text(place: Place, data: bytes, row: int) -> str:
    try:
        return data.decode("utf-8").removesuffix("\r")
    except UnicodeDecodeError as error:
        row += data.count(b"\n", 0, error.start)
        place.refuse("the bytes are not UTF-8 text; the file is damaged or not CSV", row)


def _refuse_odd_counts(place: Place, lines: pl.Series, wanted: int) -> None:
    counts = lines.str.count_matches(",", literal=True) + 1
    odd = (counts != wanted).arg_true()
    if odd.len():
        place.refuse(
            f"{lines[odd[0]]!r:.80} has {counts[odd[0]]} fields and the header has {wanted}; "
            "the line is cut or has a comma too many: mend or remove it",
            odd[0],
        )


def _header(place: Place, line: str) -> list[str]:
    names = [name.strip() for name in line.split(",")]
    shown = textwrap.shorten(line, 80) if " " in line else f"{line:.80}"
    for mark, word in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if line.count(mark) >= len(names):
            place.refuse(
                f"its fields are separated by {word} ({shown!r}), and its decimals then often by "
                "commas, as spreadsheets write them: export it again from the source with commas "
                "between fields and points in numbers"
            )
    if any(re.match(r"[+-]?\.?\d", name) for name in names):
        place.refuse(
            f"the first line must be a header with a column timestamp, not {shown!r}: the file has "
            "no header; put the columns' names above it, such as timestamp,price,volume"
        )
    for name in names:
        if not name or names.count(name) > 1:
            place.refuse(f"the header has the column {name!r} twice or empty: {shown!r}")
    return names
