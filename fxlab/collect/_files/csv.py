"""CSV reader: strict text tables, and the column names that vendors use.

Every line is a row with all its fields, or goes to quarantine. Readers made for analysis fill
short lines with nulls and skip what they cannot read. Here a field that is missing, and a file that
ends in the middle of a line, are told with a line number; the fields stay text until
`fxlab.collect._files.parsing` has understood each of them.

What vendors call the columns of ticks is listed here, so that a refusal says all that has to change
at once.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NoReturn

import polars as pl

from fxlab.collect._files.fields import SourceLocation
from fxlab.collect._files.quarantine import BadRow, Quarantine
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


LONGEST_LINE: Final = 1_000_000
"""Bytes; a longer line is no tick."""
MOST_COLUMNS: Final = 500
ROW: Final = "row"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def read(
    data: bytes,
    bad: Quarantine,
    separator: str = ",",
    names: Sequence[str] | None = None,
) -> tuple[pl.DataFrame, pl.Series | None]:
    """Return the fields of a CSV file as text, and which rows they are; an empty field is null.

    Parameters
    ----------
    data
        The file's bytes: UTF-8, no quotes; lines end with LF or CR LF.
    bad
        Takes the lines that are no rows: more or fewer fields than the header, a quoted field, a
        NUL, bytes that are not text, a last line without an end, a line that is too long.
    separator
        Between fields.
    names
        The columns of a file without a header; else the first line names them.

    Returns
    -------
    (polars.DataFrame, polars.Series)
        One String column a header field, one row a good line; the places of the rows among all
        lines, None if all are good.

    Raises
    ------
    ImportRefused
        For an empty file, or a header with a missing or doubled column name.
    """
    place = bad.place
    data = data.removeprefix(_BYTE_ORDER_MARK)
    if not data or data.isspace():
        place.refuse("the file is empty, not even a header; remove it, or copy it again")
    body = data
    if names is None:
        header, end, body = data.partition(b"\n")
        fault = _fault(header[: LONGEST_LINE + 1], separator, is_cut=not end)
        if fault is not None:
            place.refuse(fault.reason + fault.cure, -1)
        names = header_of(place, header.decode().removesuffix("\r"), separator)
    if len(names) > MOST_COLUMNS:
        place.refuse(f"the header has {len(names):,} columns, and {MOST_COLUMNS} is the most")
    whole = body.rstrip(b"\r\n")
    is_cut = bool(whole) and not body.endswith(b"\n")
    bad.rows = whole.count(b"\n") + 1 if whole else 0
    lines = functools.cache(lambda: whole.split(b"\n"))
    bad.text = lambda row: lines()[row].removesuffix(b"\r").decode(errors="replace")
    frame = None if is_cut else _quick(whole, names, separator, bad.rows)
    if frame is not None:
        return frame, None
    return _line_by_line(lines(), names, separator, bad, is_cut=is_cut)


def _quick(whole: bytes, names: Sequence[str], separator: str, rows: int) -> pl.DataFrame | None:
    """Return the fields of lines that are all good; None where one is not.

    Polars refuses a line with too many fields and fills up one with too few: if no line was
    refused and the separators are as many as they must be, each line has its number.
    """
    parted = whole.count(separator.encode())
    if b"\0" in whole or b'"' in whole or parted != rows * (len(names) - 1):
        return None
    if not rows:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.String()))
    try:
        frame = pl.read_csv(
            whole, has_header=False, separator=separator, quote_char=None, infer_schema=False
        )
    except pl.exceptions.PolarsError:
        return None
    if frame.shape != (rows, len(names)):
        return None
    frame.columns = list(names)
    if b" " in whole:
        frame = frame.with_columns(pl.all().str.strip_chars(" "))
        frame = frame.with_columns(pl.when(pl.all() != "").then(pl.all()))
    return frame


def _line_by_line(
    lines: list[bytes], names: Sequence[str], separator: str, bad: Quarantine, *, is_cut: bool
) -> tuple[pl.DataFrame, pl.Series]:
    """Return the good lines' fields and places; the others go to quarantine."""
    good, found = [], []
    for row, line in enumerate(lines):
        last = is_cut and row == len(lines) - 1
        fault = _fault(line, separator, len(names), is_cut=last)
        if fault is None:
            good.append(row)
        else:
            found.append(dataclasses.replace(fault, row=row))
    bad.add(found)
    frame = _quick(b"\n".join(lines[row] for row in good), names, separator, len(good))
    if frame is None:  # what Polars takes for a line is another thing than what has an end
        bad.place.refuse("its lines cannot be told apart; write it with one kind of line end")
    return frame, pl.Series(ROW, good, dtype=pl.Int64)


def _fault(line: bytes, separator: str, wanted: int = 0, *, is_cut: bool = False) -> BadRow | None:
    """Return what is wrong with a line before its fields are looked at."""
    plain = "; write the file as plain numbers and names"
    if len(line) > LONGEST_LINE:
        rule = f"the line is longer than {LONGEST_LINE:,} bytes"
        return BadRow(-1, rule, rule, "; mend or remove it")
    for odd, meaning in ((b"\0", "a NUL character"), (b'"', "a quoted field")):
        if odd in line:
            return BadRow(-1, meaning, f"{meaning} stands there", plain)
    if is_cut:
        return BadRow(
            -1,
            "the file ends inside the line",
            f"the file ends inside {line.decode(errors='replace')!r:.80}, without a line end: its "
            "last number may be cut",
            "; copy the file again, or end the line if it is whole",
        )
    try:
        text = line.decode("utf-8").removesuffix("\r")
    except UnicodeDecodeError:
        rule = "the bytes are not UTF-8 text"
        return BadRow(-1, rule, rule, "; the file is damaged or not CSV")
    count = text.count(separator) + 1
    if wanted and count != wanted:
        return BadRow(
            -1,
            "another number of fields than the header",
            f"{text!r:.80} has {count} fields and the header has {wanted}; the line is cut or has "
            "a comma too many",
            ": mend or remove it",
        )
    return None


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
