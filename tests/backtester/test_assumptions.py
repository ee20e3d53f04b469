"""Assumptions, latencies and ranges as people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fxlab
from fxlab import errors
from fxlab.backtester.execution import Execution
from fxlab.backtester.options import execution_of, parse_assumption, read_assumptions
from fxlab.backtester.strategy.strategy import count_between, get, values_between

FAST = get("sma_cross").parameters["fast"]
ENTRY = get("mean_reversion").parameters["entry_bps"]


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("max_leverage=2", ("max_leverage", 2)),
        ("latency=50ms", ("latency", "50ms")),
        ("latency = lognormal:20ms,0.5", ("latency", "lognormal:20ms,0.5")),
        ("queue=true", ("queue", True)),
        ("fill=book", ("fill", "book")),
        ("fill='book'", ("fill", "book")),
        ("lot_size={BTC = 0.1}", ("lot_size", {"BTC": 0.1})),
        ("max_book_age=none", ("max_book_age", "none")),
        ("note=1\nfill=2", ("note", "1\nfill=2")),
    ],
)
def test_a_word_is_a_name_and_a_value(word, found):
    assert parse_assumption(word) == found


def test_a_word_without_a_value_is_refused():
    with pytest.raises(errors.InvalidParameter, match="neither a TOML file nor NAME=VALUE"):
        parse_assumption("book")


def test_plain_values_become_an_execution():
    found = execution_of({"fill": "book", "max_book_age": "none", "maker_bps": -1, "queue": True})
    assert found == Execution(fill="book", max_book_age=None, maker_bps=-1, queue=True)
    assert execution_of({}) == Execution()


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "fill": st.sampled_from(["next_trade", "book"]),
            "taker_bps": st.floats(-100, 1_000),
            "maker_bps": st.none() | st.floats(-100, 1_000),
            "latency": st.sampled_from(["measured", "lognormal:1ms,0.25,seed=9", "2ms"]),
            "lot_size": st.dictionaries(
                st.sampled_from(["A", "B"]), st.just(0.0) | st.floats(1e-22, 9)
            ),
            "shared_cash": st.booleans(),
        },
    )
)
def test_what_an_execution_writes_is_read_again(values):
    made = Execution(**values)
    assert execution_of(made.as_dict()) == made


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"taker_bsp": 1}, "an execution has no 'taker_bsp'; did you mean 'taker_bps'"),
        ({"latency": {"median": "20ms"}}, "write it as text"),
        ({"funding": "rates.txt"}, "is not a CSV or Parquet file"),
        ({"funding": "not-there.csv"}, "is not a CSV or Parquet file"),
        ({"funding": 5}, "is not a frame"),
        ({"max_book_age": "nothing"}, "is not a duration"),
    ],
)
def test_nonsense_is_refused(values, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        execution_of(values)


def test_funding_comes_from_a_file(tmp_path):
    moment = datetime(2025, 1, 1, 8, tzinfo=UTC)
    frame = pl.DataFrame({"timestamp": [moment], "rate": [0.0001], "symbol": ["BTC"]})
    frame.write_csv(tmp_path / "rates.csv")
    frame.with_columns(pl.col("timestamp").dt.cast_time_unit("us")).write_parquet(
        tmp_path / "rates.parquet"
    )
    expected = Execution(funding=frame).rates
    assert len(expected) == 1
    for name in ("rates.csv", "rates.parquet"):
        assert execution_of({"funding": str(tmp_path / name)}).rates == expected


def test_a_file_holds_assumptions_in_a_table_or_at_its_top(tmp_path):
    path = tmp_path / "costs.toml"
    for text in ("taker_bps = 1\n", "[execution]\ntaker_bps = 1\n"):
        path.write_text(text)
        assert read_assumptions(path) == {"taker_bps": 1}
    path.write_text("execution = 3\n")
    with pytest.raises(errors.InvalidParameter, match="execution is not a table"):
        read_assumptions(path)
    path.write_text("taker_bps = \n")
    with pytest.raises(errors.InvalidParameter, match=r"costs\.toml cannot be read"):
        read_assumptions(path)


# ---- latencies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("50ms", fxlab.Latency.fixed("50ms")),
        ("fixed:50ms", fxlab.Latency.fixed("50ms")),
        ("measured", fxlab.Latency.measured()),
        ("measured:2ms", fxlab.Latency.measured("2ms")),
        ("lognormal:20ms,0.5", fxlab.Latency.lognormal("20ms", 0.5)),
        ("lognormal:20ms, 0.5, seed=7", fxlab.Latency.lognormal("20ms", 0.5, seed=7)),
        ("Uniform: 10ms, 40ms", fxlab.Latency.uniform("10ms", "40ms")),
        ("normal:10ms,2ms,seed=1", fxlab.Latency.normal("10ms", "2ms", seed=1)),
        ("samples:1ms,2ms,9ms", fxlab.Latency.samples(["1ms", "2ms", "9ms"])),
    ],
)
def test_a_latency_is_written_as_text(text, made):
    assert fxlab.Latency.of(text) == made
    assert fxlab.Execution(latency=text).delays == made


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("soon", "'soon' is not a duration"),
        ("lognorm:20ms,0.5", "did you mean 'lognormal'"),
        ("lognormal:20ms", "is not a latency; write for example"),
        ("lognormal:", "is not a latency"),
        ("lognormal:20ms,x", "is not a latency"),
        ("uniform:10ms", "is not a latency"),
        ("uniform:9ms,1ms", "swap them"),
        ("fixed:1ms,seed=2", "is not a latency"),
        ("samples:", "delays is empty"),
        ("normal:1ms,2ms,seed=x", "is not a latency"),
    ],
)
def test_a_text_that_is_no_latency_is_refused(text, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        fxlab.Latency.of(text)


# ---- ranges ----------------------------------------------------------------------------------


def test_a_range_is_exact_with_both_ends_inside():
    assert values_between(FAST, 10, 30, 10) == [10, 20, 30]
    assert values_between(FAST, 10.0, 30.0, 10.0) == [10, 20, 30]
    assert values_between(FAST, 10, 35, 10) == [10, 20, 30]
    assert values_between(ENTRY, 0.1, 0.7, 0.1) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert values_between(FAST, 5, 5, 0) == [5]


@given(st.integers(1, 500), st.integers(0, 500), st.integers(1, 50))
def test_a_count_is_that_of_the_values(first, reach, step):
    values = values_between(FAST, first, first + reach, step)
    assert values == list(range(first, first + reach + 1, step))
    assert count_between(first, first + reach, step) == len(values)


@pytest.mark.parametrize(
    "ends",
    [
        (3, 1, 1),
        (1, 3, 0),
        (1, 3, -1),
        (1, 0.5, 1),
        (1, float("nan"), 1),
        (1, float("inf"), 1),
    ],
)
def test_a_range_that_is_none_counts_nothing_and_is_refused(ends):
    assert count_between(*ends) == 0
    with pytest.raises(errors.InvalidParameter, match="has no values, or too many"):
        values_between(FAST, *ends)


def test_values_are_checked_by_their_parameter():
    with pytest.raises(errors.InvalidParameter, match=r"fast='0\.5' is not an int"):
        values_between(FAST, 0.5, 2.5, 1)
    with pytest.raises(errors.InvalidParameter, match="is out of range"):
        values_between(FAST, -1, 2, 1)
