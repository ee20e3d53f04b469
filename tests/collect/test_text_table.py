"""CSV, strictly: what is not whole is refused with its line."""

from __future__ import annotations

import io
import random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tick_files import PRICES_HEADER, price_lines

from fxlab import errors
from fxlab.collect._files import csv
from fxlab.collect._files.fields import SourceLocation
from fxlab.collect._files.quarantine import STRICT

PLACE = SourceLocation("a.csv", "line", 2)


def read(text):
    data = text if isinstance(text, bytes) else text.encode()
    blocks = csv.read(io.BytesIO(data), STRICT.of(PLACE))
    return pl.concat(frame for frame, _ in blocks)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_fields_come_as_text(end, mark):
    found = read(mark + end.join(["timestamp,a,b", "1,2.50, x ", "3,,4", ""]))
    assert found.to_dicts() == [
        {"timestamp": "1", "a": "2.50", "b": "x"},
        {"timestamp": "3", "a": None, "b": "4"},
    ]


def test_a_header_alone_has_no_rows():
    assert read("timestamp,a\n").to_dict(as_series=False) == {"timestamp": [], "a": []}


def test_empty_lines_at_the_end_hold_nothing():
    assert read("timestamp,a\n1,2\n\n\n").height == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", r"a\.csv: the file is empty"),
        (b"\n\n", "the file is empty"),
        ("timestamp,a\n1,2\n3", r"line 3: the file ends inside '3'.*may be cut"),
        ("timestamp,a", r"line 1: the file ends inside"),
        ("timestamp,a\n1,2\n3\n", r"line 3: '3' has 1 fields and the header has 2"),
        ("timestamp,a\n1,2,3\n", r"line 2: '1,2,3' has 3 fields"),
        ("timestamp,a\n1,2\n\n3,4\n", r"line 3: '' has 1 fields"),
        ("1,2\n3,4\n", "first line must be a header with a column timestamp, not '1,2'"),
        ("timestamp,a,a\n1,2,3\n", "'a' twice or empty"),
        ("timestamp,,a\n1,2,3\n", "twice or empty"),
        ('timestamp,a\n1,"2"\n', "line 2: a quoted field"),
        ("timestamp,a\n1,2\n3,\0\n", "line 3: a NUL character"),
        (b"timestamp,a\n1,2\n3,\xff\n", "line 3: the bytes are not UTF-8"),
        (b"timestamp,\xff\n1,2\n", "line 1: the bytes are not UTF-8"),
    ],
)
def test_what_is_not_whole_is_refused_with_its_line(text, words):
    with pytest.raises(errors.ImportRefused, match=words) as caught:
        read(text)
    assert str(caught.value).endswith("nothing was imported")


WHOLE = "\n".join([PRICES_HEADER, *price_lines(30), ""]).encode()


@given(st.integers(0, len(WHOLE) - 1))
def test_a_file_cut_anywhere_is_refused_or_ends_with_a_line(cut):
    piece = WHOLE[:cut]
    if piece.endswith(b"\n"):
        assert read(piece).height == piece.count(b"\n") - 1
    else:
        with pytest.raises(errors.ImportRefused):
            read(piece)


def test_a_thousand_damaged_files_are_read_whole_or_refused():
    rng = random.Random(20241122)
    refused = 0
    for _ in range(1_000):
        data = bytearray(WHOLE)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data))
            match rng.randrange(3):
                case 0:
                    data[place] = rng.randrange(256)
                case 1:
                    del data[place : place + rng.randint(1, 9)]
                case _:
                    data[place:place] = rng.choice([b",", b"\n", b"nan", b"-", b"\r", b"\0", b"e9"])
        try:
            found = read(bytes(data))
        except errors.ImportRefused:
            refused += 1
        else:
            assert found.height == bytes(data).rstrip(b"\n").count(b"\n")
    assert 100 < refused < 1_000
