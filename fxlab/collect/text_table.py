"""CSV, strictly: every line is a row with all its fields, or the file is refused.

Readers made for analysis fill short lines with nulls and skip what they cannot read. Here a field
that is missing, and a file that ends in the middle of a line, are errors with a line number; the
fields stay text until `fxlab.collect.rows` has understood each of them.
"""

from __future__ import annotations

import polars as pl

from fxlab.collect.checks import Place

_BYTE_ORDER_MARK = "\ufeff"


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
    text = _decoded(place, data)
    if not text.endswith("\n"):
        _refuse_cut_end(place, text)
    header, *lines = text.rstrip("\n").split("\n")
    names = _header(place, header)
    fields = pl.Series("line", lines, dtype=pl.String)
    counts = fields.str.count_matches(",", literal=True) + 1
    odd = (counts != len(names)).arg_true()
    if odd.len():
        place.refuse(
            f"{lines[odd[0]]!r:.80} has {counts[odd[0]]} fields and the header has {len(names)}; "
            "the line is cut or has a comma too many: mend or remove it",
            odd[0],
        )
    split = fields.str.split_exact(",", len(names) - 1).struct.rename_fields(names)
    whole = pl.DataFrame({name: pl.Series([], dtype=pl.String) for name in names})
    if lines:
        whole = split.struct.unnest()
    return whole.with_columns(pl.all().str.strip_chars(" ").replace("", None))


def _decoded(place: Place, data: bytes) -> str:
    if not data.strip():
        place.refuse("the file is empty, not even a header; remove it, or copy it again")
    try:
        text = data.decode("utf-8").removeprefix(_BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) - 1
        place.refuse("the bytes are not UTF-8 text; the file is damaged or not CSV", row)
    for odd, meaning in (("\0", "a NUL character"), ('"', "a quoted field")):
        if odd in text:
            row = text.count("\n", 0, text.index(odd)) - 1
            place.refuse(f"{meaning} stands there; write the file as plain numbers and names", row)
    return text.replace("\r\n", "\n")


def _refuse_cut_end(place: Place, text: str) -> None:
    last = text.rsplit("\n", 1)[-1]
    place.refuse(
        f"the file ends inside {last!r:.80}, without a line end: its last number may be cut; "
        "copy the file again, or end the line if it is whole",
        text.count("\n") - 1,
    )


def _header(place: Place, line: str) -> list[str]:
    names = [name.strip() for name in line.split(",")]
    if "timestamp" not in names:
        place.refuse(f"the first line must be a header with a column timestamp, not {line!r:.80}")
    for name in names:
        if not name or names.count(name) > 1:
            place.refuse(f"the header has the column {name!r} twice or empty: {line!r:.200}")
    return names
