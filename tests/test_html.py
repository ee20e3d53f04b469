"""Text from outside never becomes markup, and columns of numbers line up."""

from __future__ import annotations

import html
import re
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab._html import (
    NOTHING,
    escape,
    facts,
    heading,
    plain,
    show,
    show_number,
    show_time,
    table,
)

HOSTILE = '<img src=x onerror="alert(1)">&\'</td>'


@given(st.text())
def test_escaped_text_reads_back_and_holds_no_markup(text):
    escaped = escape(text)
    assert html.unescape(escaped) == html.unescape(html.escape(text))
    assert not set(escaped) & set("<>\"'")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, NOTHING),
        (True, "yes"),
        (False, "no"),
        (1234567, "1,234,567"),
        (61837.63, "61,837.63"),
        (1.08543, "1.08543"),
        (0.1 + 0.2, "0.3"),
        (-0.00001234, "-0.00001234"),
        (1.5e-9, "1.5e-09"),
        (1e300, "1e+300"),
        (float("nan"), NOTHING),
        (float("inf"), "\u221e"),
        (-float("inf"), "-\u221e"),
        (0.0, "0"),
        (["a", 1], "a, 1"),
        (pl.Series(["x", "y"]), "x, y"),
        ("text", "text"),
    ],
)
def test_values_read_as_people_write_them(value, shown):
    assert show(value) == shown


def test_given_decimals_are_kept_and_zero_has_no_sign():
    assert show_number(12.5, 2) == "12.50"
    assert show_number(-0.0001, 2) == "0.00"


@given(st.floats(-1e300, 1e300))
def test_a_number_keeps_the_digits_that_matter(value):
    shown = float(show_number(value).replace(",", ""))
    usual = 1e-5 <= abs(value) < 1e15
    assert shown == pytest.approx(value, rel=1e-5 if usual else 1e-3, abs=0)


def test_a_time_loses_its_trailing_zeros_only():
    assert show_time(datetime(2024, 8, 8, 23, 54, 10, tzinfo=UTC)) == "2024-08-08 23:54:10"
    assert show_time(datetime(2024, 8, 8, 0, 0, 0, 120_000, tzinfo=UTC)) == "2024-08-08 00:00:00.12"


def test_headings_are_words():
    assert heading("entry_price") == "entry price"


def test_nothing_hostile_survives_in_a_table():
    made = table(pl.DataFrame({HOSTILE: [HOSTILE]}), caption=HOSTILE)
    assert "<img" not in made
    assert made.count("&lt;img") == 3


def test_nothing_hostile_survives_in_facts():
    assert "<img" not in facts([(HOSTILE, HOSTILE)])


def test_a_column_has_one_number_of_digits():
    frame = pl.DataFrame(
        {
            "price": [61760.0, 61764.01, None],
            "at": [datetime(2024, 1, 1, 0, 0, s, us, tzinfo=UTC) for s, us in ((1, 0), (2, 5000))]
            + [None],
        }
    )
    cells = re.findall(r"<td[^>]*>([^<]*)</td>", table(frame))
    assert cells[0::2] == ["61,760.00", "61,764.01", NOTHING]
    assert cells[1::2] == ["2024-01-01 00:00:01.000", "2024-01-01 00:00:02.005", NOTHING]


def test_a_long_table_says_how_many_rows_it_hides():
    frame = pl.DataFrame({"n": range(500)})
    made = table(frame, limit=200)
    assert made.count("<tr>") == 201
    assert "200 of 500 rows shown" in made
    assert "shown" not in table(frame.head(200), limit=200)


def test_a_column_that_is_called_by_an_id_keeps_its_name():
    frame = pl.DataFrame({"max_drawdown": [1.0], "run_a<b": [2.0]})
    heads = re.findall(r"<th [^>]*>(.*?)</th>", table(frame, literal=["run_a<b"]))
    assert heads == ["max drawdown", "run_a&lt;b"]
    assert "run_a<b" in plain(frame, ["run_a<b"])
    assert "run a<b" in plain(frame)
