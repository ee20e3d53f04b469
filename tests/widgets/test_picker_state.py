"""The picker's state: one page of the list, the choice outlives the filter."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab._html import NOTHING
from fxlab._questdb import sql
from fxlab._ticks import instruments_frame
from fxlab.backtester.strategy.strategy import short
from fxlab.schema import UTC_MICROS
from fxlab.sessions._catalog import SessionPage
from fxlab.widgets._list_state import ALL, NO_SESSIONS, ORDERS, PAGE, SHOWN, PickerState
from fxlab.widgets._session_picker import _sizes

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


def listed(rows, *, total=None, after=None, **state):
    """Return a state that lists these rows, of so many that match."""
    return PickerState(SessionPage(rows, total or rows.height, after), **state)


def many(rows):
    return sessions([("x", [], "")] * rows)


def test_the_query_asks_for_one_page_in_the_order():
    state = listed(FEW, text="btc  storm", order="oldest first")
    assert state.query == {
        "text": "btc  storm",
        "status": None,
        "sort": "started",
        "descending": False,
        "limit": PAGE,
    }
    assert {column for column, _ in ORDERS.values()} <= set(sql.SORTS)


def matches(row, text, status):
    """Return whether a session should be listed."""
    whole = " ".join(map(str, row.values())).lower()
    return status in (ALL, row["status"]) and all(word in whole for word in text.lower().split())


@given(
    text=st.lists(st.sampled_from(["btc", "Storm", "s00002", "completed", "abs"])).map(" ".join),
    status=st.sampled_from(SHOWN),
    chosen=st.sampled_from([None, "s00000", "s00003"]),
    order=st.sampled_from(sorted(ORDERS)),
)
def test_words_and_status_narrow_together_and_leave_the_choice(text, status, chosen, order):
    """What is asked for, and what is said of the answer that a server gives."""
    asked = listed(FEW, text=text, status=status, chosen=chosen, order=order)
    assert (asked.query["text"], asked.query["status"]) == (text, None if status == ALL else status)
    found = [matches(row, text, status) for row in FEW.to_dicts()]
    answer = replace(asked, page=SessionPage(FEW.filter(pl.Series(found)), sum(found), None))
    assert answer.chosen == chosen
    ids = [session_id for _, session_id in answer.options]
    assert (answer.hidden == "") == (chosen is None or chosen in ids)
    if not ids:
        assert ("all these words" in answer.count) == bool(text)
        assert (f"the status {status!r}" in answer.count) == (status != ALL)
    else:
        assert answer.count.startswith(f"{len(ids)} session")
        assert ("match" in answer.count) == (bool(text) or status != ALL)
    for named, wanted in ((short(text), bool(text)), (f"the status {status!r}", status != ALL)):
        assert (named in answer.hidden) == (answer.hidden != "" and wanted)


def test_the_choice_outlives_the_list():
    state = listed(FEW).choose("s00002")
    assert state.is_listed
    assert state.hidden == ""
    hidden = replace(state, page=SessionPage(FEW.head(1), 1, None), text="calm ")
    assert (hidden.chosen, hidden.is_listed) == ("s00002", False)
    assert hidden.hidden == "s00002 runs; the filter 'calm' hides it in the list"
    both = replace(hidden, status="failed")
    words = "the filter 'calm' and the status 'failed' hide it in the list"
    assert both.hidden == f"s00002 runs; {words}"
    late = replace(hidden, text=" ")
    assert late.hidden.endswith("was not there when the list was read, press Refresh")
    beyond = replace(state, page=SessionPage(FEW.head(1), 4, "s00000"))
    assert beyond.hidden == "s00002 runs; it is not among the 1 listed"


def test_the_first_is_chosen_where_there_is_one():
    assert listed(FEW).choose_first().chosen == "s00000"
    assert listed(FEW.clear()).choose_first().chosen is None


def test_more_sessions_stand_below_those_listed():
    state = listed(FEW.head(2), total=4, after="s00001").choose("s00003")
    longer = state.with_more(SessionPage(FEW.tail(2), 4, None))
    assert longer.rows.equals(FEW)
    assert (longer.chosen, longer.is_listed, longer.hidden) == ("s00003", True, "")


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (listed(many(0)), NO_SESSIONS),
        (listed(many(1)), "1 session"),
        (listed(many(3)), "3 sessions"),
        (listed(many(1), text="x"), "1 session matches"),
        (listed(many(3), text="x"), "3 sessions match"),
        (listed(many(0), text="zzz"), "no session has all these words"),
        (listed(many(1), status="failed"), "1 session matches"),
        (listed(many(0), status="failed"), "no session has the status 'failed'"),
        (
            listed(many(0), text="zzz", status="failed"),
            "no session has all these words and the status 'failed'",
        ),
        (
            listed(many(PAGE), total=20_000, after="s00199"),
            "20,000 sessions; the first 200 are listed, type to narrow",
        ),
    ],
)
def test_the_count_line_says_how_many(state, line):
    assert state.count == line


def test_labels_line_up():
    labels = [label for label, _ in listed(FEW).options]
    assert labels == [
        "s00000   completed  2024-08-09 12:00      0  BTC_USDT          ",
        "s00001   completed  2024-08-09 11:00  1,000  ETH_USDT, BTC_USDT",
        "s00002   completed  2024-08-09 10:00  2,000  EUR/USD           ",
        "s00003   completed  2024-08-09 09:00  3,000                    ",
    ]
    heads = listed(FEW).heads
    assert heads == "Session  Status     Started (UTC)      Rows  Symbols           "


def test_an_id_is_never_cut():
    long = "x" * 120
    state = listed(FEW.with_columns(session_id=pl.lit(long) + pl.col("session_id")))
    assert all(label.startswith(f"{long}s0000") for label, _ in state.options)


def test_a_long_list_of_symbols_is_cut_with_its_number():
    (option,) = listed(sessions([("x", ["A", "B", "C", "D"], "")])).options
    assert "A, B +2" in option[0]


def test_a_session_without_ticks_has_a_dash_for_its_start():
    frame = FEW.with_columns(pl.lit(None, dtype=UTC_MICROS).alias("started"))
    assert "completed  \u2013 " in listed(frame).options[0][0]


def test_the_details_tell_the_steps_that_a_venue_listed():
    listed = {"B": {"tick_size": 0.01, "lot_size": 1e-05}, "A": {"lot_size": 1.0}, "C": {}}
    shown = SimpleNamespace(instruments=lambda: instruments_frame(listed))
    assert _sizes(shown) == f"A {NOTHING}, 1, B 0.01, 0.00001"
    assert _sizes(SimpleNamespace(instruments=lambda: instruments_frame({}))) is None
