"""The picker's state: every word must match, the choice outlives the filter, newest first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab.schema import UTC_MICROS
from fxlab.widgets._picker_state import NO_SESSIONS, ORDERS, SHOWN, PickerState

NEWEST = datetime(2024, 8, 9, 12, tzinfo=UTC)
SCHEMA = {
    "session_id": pl.String,
    "status": pl.String,
    "exchange": pl.String,
    "symbols": pl.List(pl.String),
    "records_collected": pl.Int64,
    "started": UTC_MICROS,
    "notes": pl.String,
}


def sessions(rows):
    """Return a list of sessions from (exchange, symbols, notes), newest first."""
    return pl.DataFrame(
        [
            {
                "session_id": f"s{number:05d}",
                "status": "completed",
                "exchange": exchange,
                "symbols": list(symbols),
                "records_collected": 1_000 * number,
                "started": NEWEST - timedelta(hours=number),
                "notes": notes,
            }
            for number, (exchange, symbols, notes) in enumerate(rows)
        ],
        schema=SCHEMA,
    )


FEW = sessions(
    [
        ("binance", ["BTC_USDT"], "calm day"),
        ("binance", ["ETH_USDT", "BTC_USDT"], "Storm"),
        ("kraken", ["EUR/USD"], None),
        (None, [], ""),
    ]
)


def ids(state):
    return state.rows["session_id"].to_list()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["s00000", "s00001", "s00002", "s00003"]),
        ("binance", ["s00000", "s00001"]),
        ("BTC binance", ["s00000", "s00001"]),
        ("btc storm", ["s00001"]),
        ("btc kraken", []),
        ("eur/usd", ["s00002"]),
        ("2024-08-09 09:00", ["s00003"]),
        ("s00003", ["s00003"]),
        (".*", []),
    ],
)
def test_all_words_must_match_anywhere_in_any_case(text, found):
    assert ids(PickerState(FEW).filtered(text)) == found


words = st.text(st.sampled_from("abAB_/. "), max_size=6)


@given(st.lists(st.tuples(words, st.lists(words, max_size=2), words), max_size=12), words)
def test_filtering_equals_the_plain_twin(rows, text):
    state = PickerState(sessions(rows)).filtered(text)
    expected = []
    for row in sessions(rows).rows(named=True):
        parts = [row["session_id"], row["status"], row["exchange"], " ".join(row["symbols"])]
        parts += [str(row["started"]), row["notes"]]
        haystack = "\n".join(parts).lower()
        if all(word.lower() in haystack for word in text.split()):
            expected.append(row["session_id"])
    assert ids(state) == expected


@given(st.lists(words, max_size=5))
def test_a_filter_never_changes_the_choice(texts):
    state = PickerState(FEW).choose("s00002")
    for text in texts:
        state = state.filtered(text)
        assert state.chosen == "s00002"
        assert state.is_listed == ("s00002" in ids(state))


def test_a_choice_that_does_not_exist_is_none():
    assert PickerState(FEW).choose("nope").chosen is None
    assert PickerState(FEW).choose(None).chosen is None


def test_a_refresh_keeps_filter_and_choice_while_the_session_exists():
    state = PickerState(FEW).filtered("btc").choose("s00001")
    assert state.refreshed(FEW.head(2)).chosen == "s00001"
    assert state.refreshed(FEW.head(2)).text == "btc"
    assert state.refreshed(FEW.head(1)).chosen is None


def test_the_newest_is_the_first():
    assert PickerState(FEW).choose_newest().chosen == "s00000"
    assert PickerState(FEW.clear()).choose_newest().chosen is None


@pytest.mark.parametrize(
    ("rows", "text", "line"),
    [
        (0, "", NO_SESSIONS),
        (1, "", "1 of 1 session"),
        (3, "", "3 of 3 sessions"),
        (3, "zzz", "0 of 3 sessions: none has all these words"),
        (SHOWN + 5, "", "2,005 of 2,005 sessions; the first 2,000 are listed, type to narrow"),
    ],
)
def test_the_count_line_says_how_many(rows, text, line):
    assert PickerState(sessions([("x", [], "")] * rows)).filtered(text).count == line


def test_only_the_newest_are_listed_and_the_rest_can_be_found():
    state = PickerState(sessions([("x", [], "")] * (SHOWN + 5)))
    last = f"s{SHOWN + 4:05d}"
    assert state.rows.height == SHOWN
    assert last not in ids(state)
    assert ids(state.filtered(last)) == [last]
    assert not state.choose(last).is_listed


def test_labels_line_up():
    labels = [label for label, _ in PickerState(FEW).options]
    assert labels == [
        "s00000   completed  2024-08-09 12:00      0  BTC_USDT          ",
        "s00001   completed  2024-08-09 11:00  1,000  ETH_USDT, BTC_USDT",
        "s00002   completed  2024-08-09 10:00  2,000  EUR/USD           ",
        "s00003   completed  2024-08-09 09:00  3,000                    ",
    ]
    heads = PickerState(FEW).heads
    assert heads == "Session  Status     Started (UTC)      Rows  Symbols           "


@pytest.mark.parametrize(
    ("order", "found"),
    [
        ("newest first", "0123"),
        ("oldest first", "3210"),
        ("most rows first", "3210"),
        ("id", "0123"),
        ("symbols", "3012"),
        ("status", "0123"),
    ],
)
def test_the_list_can_be_sorted_and_keeps_its_choice(order, found):
    state = PickerState(FEW).choose("s00002").sorted(order)
    assert ids(state) == [f"s0000{digit}" for digit in found]
    assert state.chosen == "s00002"
    assert set(ORDERS) >= {order}


def test_an_id_is_never_cut():
    long = "x" * 120
    state = PickerState(FEW.with_columns(session_id=pl.lit(long) + pl.col("session_id")))
    assert all(label.startswith(f"{long}s0000") for label, _ in state.options)


def test_a_long_list_of_symbols_is_cut_with_its_number():
    (option,) = PickerState(sessions([("x", ["A", "B", "C", "D"], "")])).options
    assert "A, B +2" in option[0]


def test_a_session_without_ticks_has_a_dash_for_its_start():
    frame = FEW.with_columns(pl.lit(None, dtype=UTC_MICROS).alias("started"))
    assert "completed  \u2013 " in PickerState(frame).options[0][0]
