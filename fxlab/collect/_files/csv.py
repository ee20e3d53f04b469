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
import json
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, NoReturn

import polars as pl

from fxlab.collect._files.fields import ROW, SourceLocation
from fxlab.collect._files.quarantine import BATCH_ROWS, BadRow, Quarantine
from fxlab.errors import did_you_mean
from fxlab.schema import BOOK_DEPTH

BARS: Final = frozenset(("open", "high", "low", "close"))
_MINUTE_BAR: Final = re.compile(r"\d{8} \d{6}(?:;\d+\.?\d*){5}")

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
    if _MINUTE_BAR.fullmatch(line.strip()):
        refuse_bars(place, BARS, "HistData ASCII minute bars")
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
MOST_BLANK: Final = 10_000_000
_FIRST_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 32 << 20
"""Bytes of text that are read at once, the first time and at most."""
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def read(
    stream: BinaryIO,
    bad: Quarantine,
    separator: str = ",",
    names: Sequence[str] | None = None,
    batch_size: int = BATCH_ROWS,
) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
    """Yield the fields of a CSV file as text, block by block; an empty field is null.

    Parameters
    ----------
    stream
        The file's bytes: UTF-8, no quotes; lines end with LF or CR LF.
    bad
        Takes the lines that are no rows: more or fewer fields than the header, a quoted field, a
        NUL, bytes that are not text, a last line without an end, a line that is too long.
    separator
        Between fields.
    names
        The columns of a file without a header; else the first line names them.
    batch_size
        About so many lines make a block.

    Yields
    ------
    (polars.DataFrame, polars.Series)
        One String column a header field, one row a good line; the places of the rows among all
        lines. The first block comes also if no line is in it.

    Raises
    ------
    ImportRefused
        For an empty file, or a header with a missing or doubled column name.
    """
    for block in lines_of(stream, bad, batch_size, has_header=names is None):
        if block.header is not None:
            names = _names(bad.place, block, separator)
        yield _fields(block, names or (), separator, bad)


@dataclass(frozen=True, eq=False)
class LineBlock:
    """Whole lines of a text file."""

    data: bytes
    first: int
    """The place of the first one among all lines."""
    is_cut: bool
    """Whether the last one has no end."""
    header: bytes | None = None

    @property
    def count(self) -> int:
        """Return how many there are."""
        return self.data.count(b"\n") + 1 if self.data else 0

    @functools.cached_property
    def split(self) -> list[bytes]:
        """Return the lines one by one."""
        return self.data.split(b"\n") if self.data else []

    def text(self, row: int) -> str:
        """Return a line by its place among all lines."""
        return self.split[row - self.first].removesuffix(b"\r").decode(errors="replace")


def lines_of(
    stream: BinaryIO, bad: Quarantine, batch_size: int, *, has_header: bool
) -> Iterator[LineBlock]:
    """Yield the lines of a file in blocks; empty ones at its end are none.

    Each block is counted in `bad`, which is told how to find the text of a line in it.

    Raises
    ------
    ImportRefused
        If there is not one line.
    """
    first, tail, header = 0, b"", None
    is_first = has_header
    began = False
    for chunk in _chunks(stream, batch_size):
        data = tail + (chunk if began else chunk.removeprefix(_BYTE_ORDER_MARK))
        began = began or bool(data.strip())
        if is_first and began:
            header, end, data = data.partition(b"\n")
            header, is_first = header + end, False
        whole = data.rstrip(b"\r\n")
        _, end, blank = data[len(whole) :].partition(b"\n")
        if not whole:
            tail = data
            if len(tail) > MOST_BLANK:
                bad.place.refuse(f"more than {MOST_BLANK:,} empty lines follow each other", first)
            continue
        tail = blank
        block = LineBlock(whole, first, not end, header)
        bad.rows += block.count
        bad.text = block.text
        yield block
        first, header = first + block.count, None
    if not began:
        bad.place.refuse("the file is empty, not even a header; remove it, or copy it again")
    if header is not None:  # and nothing below it
        yield LineBlock(b"", first, is_cut=False, header=header)


def _chunks(stream: BinaryIO, batch_size: int) -> Iterator[bytes]:
    """Yield a stream in pieces of so many lines or so, each of which ends with a line's end.

    Of a line without an end only as much is held as shows that it is too long.
    """
    held, size = b"", _FIRST_BYTES
    while data := stream.read(size):
        end = data.rfind(b"\n") + 1
        if not end:
            held = (held + data)[: LONGEST_LINE + 1]
            continue
        yield held + data[:end]
        held = data[end:]
        size = min(max(batch_size * end // data.count(b"\n"), _FIRST_BYTES), _MOST_BYTES)
    if held:
        yield held


def _names(place: SourceLocation, block: LineBlock, separator: str) -> list[str]:
    header = block.header or b""
    fault = _fault(header[: LONGEST_LINE + 1], separator, is_cut=not header.endswith(b"\n"))
    if fault is not None:
        place.refuse(fault.reason + fault.cure, -1)
    line = header.decode().removesuffix("\n").removesuffix("\r")
    return header_of(place, line, separator)


def _fields(
    block: LineBlock, names: Sequence[str], separator: str, bad: Quarantine
) -> tuple[pl.DataFrame, pl.Series]:
    frame = None if block.is_cut else _quick(block.data, names, separator, block.count)
    if frame is None:
        return _line_by_line(block, names, separator, bad)
    last = block.first + block.count
    return frame, pl.int_range(block.first, last, dtype=pl.Int64, eager=True).alias(ROW)


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
    block: LineBlock, names: Sequence[str], separator: str, bad: Quarantine
) -> tuple[pl.DataFrame, pl.Series]:
    """Return the good lines' fields and places; the others go to quarantine."""
    good, numbers, found = [], [], []
    for row, line in enumerate(block.split, block.first):
        last = block.is_cut and row == block.first + block.count - 1
        fault = _fault(line, separator, len(names), is_cut=last)
        if fault is None:
            good.append(line)
            numbers.append(row)
        else:
            found.append(dataclasses.replace(fault, row=row))
    bad.add(found)
    frame = _quick(b"\n".join(good), names, separator, len(good))
    if frame is None:  # what Polars takes for a line is another thing than what has an end
        bad.place.refuse("its lines cannot be told apart; write it with one kind of line end")
    return frame, pl.Series(ROW, numbers, dtype=pl.Int64)


def read_json(
    stream: BinaryIO, bad: Quarantine, names: Sequence[str], batch_size: int = BATCH_ROWS
) -> Iterator[tuple[pl.DataFrame, pl.Series]]:
    """Yield the values of JSON lines as `read` does, numbers as they are written."""
    for block in lines_of(stream, bad, batch_size, has_header=False):
        rows, numbers, found = [], [], []
        for row, line in enumerate(block.split, block.first):
            try:
                rows.append(json_values(line, names))
                numbers.append(row)
            except (ValueError, RecursionError) as error:
                found.append(BadRow(row, "no object of JSON", f"{error!s:.200}", "; mend it"))
        bad.add(found)
        schema = dict.fromkeys(names, pl.String)
        yield pl.DataFrame(rows, schema, orient="row"), pl.Series(ROW, numbers, dtype=pl.Int64)


def json_values(line: bytes, names: Sequence[str] = ()) -> dict[str, str | None]:
    """Return the values of a line of JSON as text, exactly as they are written.

    Raises
    ------
    ValueError
        If it is no flat object, or has another key than these.
    """
    if len(line) > LONGEST_LINE:
        raise ValueError(f"the line is longer than {LONGEST_LINE:,} bytes")
    made = json.loads(line, parse_float=str, parse_int=str, parse_constant=str)
    if not isinstance(made, dict):
        raise ValueError("the line is no object {...}")  # noqa: TRY004 - as json says it
    odd = [key for key in made if names and key not in names]
    if odd:
        raise ValueError(f"{odd[0]!r:.80} is no key of the first lines")
    for key, value in made.items():
        if isinstance(value, dict | list):
            raise ValueError(f"{key!r:.80} holds values in values")  # noqa: TRY004 - as above
    return {
        key: str(value).lower() if isinstance(value, bool) else value or None
        for key, value in made.items()
    }


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
    if len(names) > MOST_COLUMNS:
        place.refuse(f"the header has {len(names):,} columns, and {MOST_COLUMNS} is the most")
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
