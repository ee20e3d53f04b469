"""CSV reader: strict text tables, and the column names that vendors use.

Every line is a row with all its fields, or the file is refused. Readers made for analysis fill
short lines with nulls and skip what they cannot read. Here a field that is missing, and a file that
ends in the middle of a line, are errors with a line number; the fields stay text until
`fxlab.collect._files.parsing` has understood each of them.

What vendors call the columns of ticks is listed here, so that a refusal says all that has to change
at once.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NoReturn

import polars as pl

from fxlab.collect._files.fields import SourceLocation
from fxlab.errors import did_you_mean
from fxlab.schema import BOOK_DEPTH

BARS: Final = frozenset(("open", "high", "low", "close"))

_CALLED: Final[dict[str, str]] = {
    "timestamp": "time ts date datetime transacttime tradetime eventtime exchangetimestamp "
    "exchangetime unixtime unix epoch localtime gmttime utctime utc tickstime",
    "received_at": "localtimestamp receivetime receivetimestamp receivedtime recvtime arrivaltime",
    "symbol": "ticker pair instrument market instid instrumentname product currencypair",
    "price": "px tradeprice lastprice rate",
    "volume": "size quantity vol sz tradesize lastsize lastqty baseqty basevolume tradeqty",
    "quote_volume": "quoteqty quoteamount quotesize foreignnotional turnover",
    "trade_id": "id tid tradeid aggtradeid trdmatchid matchid tradeseq fillid",
    "side": "takerside aggressorside takersidetype",
    "buyer_is_maker": "isbuyermaker buyermaker ismaker",
    "bid": "bidprice bidpx bestbidprice",
    "ask": "askprice askpx offer bestaskprice",
    "bid_size": "bidvolume bidvol bidqty bidquantity bidamount bidsz bestbidqty bestbidsize",
    "ask_size": "askvolume askvol askqty askquantity askamount asksz bestaskqty bestasksize",
    "last_update_id": "lastupdateid updateid finalupdateid",
    "first_update_id": "firstupdateid",
}
_MEANINGS: Final = {
    **{ours.replace("_", ""): ours for ours in _CALLED},
    **{name: ours for ours, names in _CALLED.items() for name in names.split()},
}
_LEVEL: Final = re.compile(r"(bid|ask)s?\[(\d+)\]\.(price|amount|size|qty|quantity)")
_SHOWN: Final = 12


def meanings(names: Iterable[str], known: Collection[str]) -> dict[str, str]:
    """Return fxlab's name for each column that a vendor calls otherwise."""
    found = {name: _meaning(name) for name in names if name not in known}
    return {name: ours for name, ours in found.items() if ours is not None}


def _meaning(name: str) -> str | None:
    lowered = name.strip().lower()
    level = _LEVEL.fullmatch(lowered)
    if level is not None:
        number = int(level[2]) + 1  # vendors count from 0
        what = "price" if level[3] == "price" else "qty"
        return f"{level[1]}_{what}_{number}" if number <= BOOK_DEPTH else None
    return _MEANINGS.get(re.sub(r"[^a-z0-9]", "", lowered))


def refuse_bars(place: SourceLocation, names: Iterable[str], whose: str = "") -> None:
    """Refuse candles by what they are."""
    if {name.strip().lower() for name in names} >= BARS:
        place.refuse(
            f"it holds bars (open, high, low, close){f' of {whose}' if whose else ''}: candles, "
            "not ticks, and fxlab needs the ticks they were made of; get the vendor's trades or "
            "quotes of the same time"
        )


def refuse_separator(place: SourceLocation, line: str, mark: str) -> NoReturn:
    """Refuse a file whose decimals have commas, as spreadsheets write them."""
    word = {";": "semicolons", "\t": "tabs", "|": "bars"}[mark]
    place.refuse(
        f"its fields are separated by {word} ({shortened(line)!r}), and its decimals then often by "
        "commas, as spreadsheets write them: export it again from the source with commas "
        "between fields and points in numbers"
    )


def shortened(line: str) -> str:
    """Return a line for an error, cut between words if it has any."""
    return textwrap.shorten(line, 80) if " " in line else f"{line:.80}"


def listed(names: Sequence[str]) -> str:
    """Return column names for an error, whole ones."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:80] for name in names[:_SHOWN]) + more


def renaming(meant: Mapping[str, str]) -> list[str]:
    """Return which columns to rename, in words; nothing if there are none."""
    pairs = ", ".join(f"{name!r} to {ours!r}" for name, ours in meant.items())
    return [f"rename {pairs}"] if pairs else []


def wrong(
    names: Sequence[str],
    meant: Mapping[str, str],
    known: Collection[str],
    shape: str,
    one_of: Iterable[Collection[str]],
) -> list[str]:
    """Return all that is wrong with the columns of a shape."""
    called = [meant.get(name, name) for name in names]
    found = renaming(meant)
    odd = [name for name, ours in zip(names, called, strict=True) if ours not in known]
    if len(odd) == 1:
        hint = did_you_mean(odd[0], known) or "rename it or take it out of the file"
        found.append(f"column {odd[0][:80]!r} has no place among {shape} and would be lost; {hint}")
    elif odd:
        shown = ", ".join(repr(name[:80]) for name in odd)
        found.append(f"columns {shown} have no place among {shape}: take them out of the file")
    same = [(called.count(name), name) for name in dict.fromkeys(called)]
    found += [f"{count} columns mean {name}: keep one of them" for count, name in same if count > 1]
    for group in one_of:
        both = [name for name in group if name in called]
        if len(both) > 1:
            found.append(f"columns {' and '.join(both)} say the same; take one out of the file")
    return found


_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def read(
    place: SourceLocation,
    data: bytes,
    separator: str = ",",
    names: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Return the fields of a CSV file as text; an empty field is null.

    Parameters
    ----------
    place
        The file, for errors.
    data
        Its bytes: UTF-8, no quotes; lines end with LF or CR LF.
    separator
        Between fields.
    names
        The columns of a file without a header; else the first line names them.

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
    body = data
    if names is None:
        header, _, body = data.partition(b"\n")
        names = header_of(place, _text(place, header, row=-1), separator)
    lines = _lines(place, body)
    _refuse_odd_counts(place, lines, len(names), separator)
    fields = lines.str.split_exact(separator, len(names) - 1).struct.rename_fields(names)
    found = fields.struct.unnest()
    if b" " in body:
        found = found.with_columns(pl.all().str.strip_chars(" "))
    return found.with_columns(pl.when(pl.all() != "").then(pl.all()))


def _refuse_odd_bytes(place: SourceLocation, data: bytes) -> None:
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


def _lines(place: SourceLocation, body: bytes) -> pl.Series:
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


def _text(place: SourceLocation, data: bytes, row: int) -> str:
    try:
        return data.decode("utf-8").removesuffix("\r")
    except UnicodeDecodeError as error:
        row += data.count(b"\n", 0, error.start)
        place.refuse("the bytes are not UTF-8 text; the file is damaged or not CSV", row)


def _refuse_odd_counts(
    place: SourceLocation, lines: pl.Series, wanted: int, separator: str
) -> None:
    counts = lines.str.count_matches(separator, literal=True) + 1
    odd = (counts != wanted).arg_true()
    if odd.len():
        place.refuse(
            f"{lines[odd[0]]!r:.80} has {counts[odd[0]]} fields and the header has {wanted}; "
            "the line is cut or has a comma too many: mend or remove it",
            odd[0],
        )


def header_of(place: SourceLocation, line: str, separator: str) -> list[str]:
    """Return the columns that a first line names, or refuse it."""
    names = [name.strip() for name in line.split(separator)]
    shown = shortened(line)
    for mark in (";", "\t", "|"):
        if mark != separator and line.count(mark) >= len(names):
            refuse_separator(place, line, mark)
    if any(re.match(r"[+-]?\.?\d", name) for name in names):
        place.refuse(
            f"the first line must be a header with a column timestamp, not {shown!r}: the file has "
            "no header; put the columns' names above it, such as timestamp,price,volume"
        )
    for name in names:
        if not name or names.count(name) > 1:
            place.refuse(f"the header has the column {name!r} twice or empty: {shown!r}")
    return names
