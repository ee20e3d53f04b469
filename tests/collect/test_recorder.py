"""What a recorder stores of a stream of messages, against a slow twin of the same rules."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_recorder import BOOK_NAMES, MemoryJournal, ReadableEncoder, RecorderTwin

from fxlab._ticks import find_decimals
from fxlab.collect._live.checksum import MODULUS, frame_checksum
from fxlab.collect._live.recorder import FOREVER, BackfillResult, Recorder
from fxlab.collect.feed import BookDelta, BookSnapshot, Event, Gap, Quote, Trade
from fxlab.schema import EVENTS, ORDERBOOK, PRICES

NOON = 1_735_732_800_000_000
PAIR = ("AAA_USDT", "BBB_USDT")
STRANGER = "CCC_USDT"


@pytest.fixture(scope="module")
def encoder():
    return ReadableEncoder()


def recorder(journal, encoder, *, counts_trades=True, depth=10, every=0):
    return Recorder(
        journal,
        encoder,
        "one",
        PAIR,
        counts_trades=counts_trades,
        book_depth=depth,
        book_every=every,
    )


def trade(number, symbol=PAIR[0], price=100.5, **changes):
    """Return a trade; three neighbours happen at once."""
    at = NOON + number // 3 * 1_000
    return Trade(symbol, number, "buy", price, 2.0, at, at + 40)._replace(**changes)


def event_rows(journal):
    """Return the ledger as the database has it: the last writing of each number."""
    found = {row["seq"]: row for row in journal.rows(EVENTS)}
    for row in found.values():
        row["detail"] = row["detail"] or ""
    return list(found.values())


def gap_rows(journal):
    """Return gaps with what their details say."""
    return [row | json.loads(row["detail"]) for row in event_rows(journal) if row["event"] == "gap"]


# ---- against the twin ------------------------------------------------------------------------

symbols = st.sampled_from([*PAIR, PAIR[0], PAIR[0], STRANGER])
prices = st.sampled_from([100.0, 100.25, 99.125, 1e-9, math.nan, math.inf, 0.0, -1.0])
quantities = st.sampled_from([0.0, 1.0, 2.5, 0.001, math.nan, -1.0])
good_levels = st.lists(
    st.tuples(st.sampled_from([98.0, 99.0, 99.5, 101.0]), st.sampled_from([0.0, 1.0, 2.0])),
    max_size=4,
)
bad_levels = st.lists(st.tuples(prices, quantities), max_size=2)
levels = st.one_of(good_levels, good_levels, good_levels, bad_levels)


@st.composite
def trades(draw):
    number = draw(st.integers(100, 130))
    side = draw(st.sampled_from(["buy", "sell", None]))
    made = trade(number, draw(symbols), draw(prices), side=side)
    return made._replace(volume=draw(st.sampled_from([0.0, 0.5, 2.0])))


@st.composite
def books(draw):
    symbol, number = draw(symbols), draw(st.integers(0, 40))
    at = NOON + number * 500
    if draw(st.booleans()):
        return BookDelta(symbol, number, number + 1, draw(levels), draw(levels), at, at + 3)
    if draw(st.booleans()):
        return BookSnapshot(symbol, number + 1, draw(levels), draw(levels), at, at + 3)
    best = draw(prices), draw(quantities), draw(prices), draw(quantities)
    return Quote(symbol, *best, number + 1, at, at + 3)


@st.composite
def others(draw):
    symbol, start = draw(st.sampled_from(PAIR)), NOON + draw(st.integers(0, 5)) * 1_000
    if draw(st.booleans()):
        amount = draw(st.none() | st.integers(1, 5))
        return Event(draw(st.sampled_from(["resync", "reconnect"])), symbol, start, amount, "x: y")
    end = draw(st.none() | st.just(start + 700))
    return Gap(symbol, "orderbook", start, end, draw(st.none() | st.integers(1, 9)), "cut")


messages = st.one_of(trades(), trades(), trades(), books(), books(), others())
batches = st.lists(
    st.tuples(st.lists(messages, max_size=12), st.integers(0, 14)), min_size=1, max_size=8
)


@given(batches, st.sampled_from([(10, 0), (1, 0), (3, 1_200)]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_rows_sums_gaps_and_events_are_those_of_the_twin(encoder, found, book, interrupted):
    depth, every = book
    journal, twin = MemoryJournal(), RecorderTwin(PAIR, depth=depth, every=every)
    one = recorder(journal, encoder, depth=depth, every=every)
    for number, (batch, ripe) in enumerate(found):
        before = NOON + ripe * 1_000
        one.record(batch, before)
        twin.take(batch, before)
        if interrupted and number == 2 and not any(isinstance(m, Gap) for m in batch):
            assert_same_facts(one, recorder(journal, encoder, depth=depth, every=every))
    one.end(NOON + 10**9)
    twin.end(NOON + 10**9)
    compare_trades(one, twin, journal)
    compare_books(one, twin, journal)
    compare_events(one, twin, journal)
    sums_are_of_the_rows(one, journal)


def assert_same_facts(one, reread):
    """Compare what a recorder knows with what it has written down."""
    assert reread.tallies == one.tallies
    assert reread.events.to_json() == one.events.to_json()
    for symbol, record in one.symbols.items():
        assert reread.symbols[symbol].to_json() == record.to_json()


def compare_trades(one, twin, journal):
    stored = journal.rows(PRICES)
    assert len(stored) == len({(row["symbol"], row["seq"], row["timestamp"]) for row in stored})
    for symbol in PAIR:
        rows = {row["seq"]: row for row in stored if row["symbol"] == symbol}
        assert rows.keys() == twin.trades[symbol].keys()
        for number, wanted in twin.trades[symbol].items():
            row = rows[number]
            assert row["session_id"] == "one"
            assert (row["trade_id"], row["side"], row["origin"]) == (
                str(number), wanted.side, "live",
            )  # fmt: skip
            assert (row["price"], row["volume"]) == (wanted.price, wanted.volume)
            assert row["quote_volume"] == wanted.price * wanted.volume
            assert (row["timestamp"], row["received_at"]) == (wanted.time, wanted.received)
        track = one.symbols[symbol].trades
        assert track.doubles == twin.doubles[symbol]
        assert track.ids.missing == len(twin.ids[symbol].absent())


def compare_books(one, twin, journal):
    stored = journal.rows(ORDERBOOK)
    assert {row["origin"] for row in stored} <= {"live"}
    for symbol in PAIR:
        rows = [row for row in stored if row["symbol"] == symbol]
        assert [{name: row[name] for name in BOOK_NAMES} for row in rows] == twin.books[symbol].rows
        assert one.symbols[symbol].book.unstored == twin.books[symbol].unstored


def compare_events(one, twin, journal):
    rows = event_rows(journal)
    assert sorted(row["seq"] for row in rows) == list(range(1, one.events.number + 1))
    counted = Counter()
    for row in rows:
        if row["event"] != "gap":
            counted[row["event"], row["symbol"]] += row["count"] or 1
    assert counted == twin.events
    assert one.events.errors == sum(
        number
        for (kind, _), number in twin.events.items()
        if kind in ("quarantine", "crossed_book")
    )
    told = {}
    missing = {symbol: set() for symbol in PAIR}
    for row in gap_rows(journal):
        if row["what"] == "orderbook":
            told[row["symbol"], "orderbook", row["from_time"]] = (row["to_time"], row["count"])
        else:
            assert row["count"] == row["last_id"] - row["first_id"] + 1
            missing[row["symbol"]] |= set(range(row["first_id"], row["last_id"] + 1))
            assert row["state"] == "open"
    assert told.keys() == twin.gaps.keys()
    assert missing == twin.missing
    asked = {symbol: set() for symbol in PAIR}
    for one_missing in one.to_ask:
        lost = one_missing.ids
        asked[one_missing.symbol] |= set(range(lost.first, lost.last + 1))
    assert asked == missing


def sums_are_of_the_rows(one, journal):
    """Each tally is that of the rows in the journal, derived from their own columns."""
    kinds = {"prices": PRICES, "orderbook": ORDERBOOK}
    for kind, table in kinds.items():
        rows = pl.DataFrame(journal.rows(table), schema=physical(table))
        groups = {tuple(map(str, key)): some for key, some in rows.group_by("symbol", "origin")}
        said = {key[::2]: tally for key, tally in one.tallies.items() if key[1] == kind}
        assert said.keys() == groups.keys()
        for key, some in groups.items():
            tally = said[key]
            assert tally.rows == some.height
            assert tally.checksum == frame_checksum(table, some)
            assert (tally.first_seq, tally.last_seq) == (some["seq"].min(), some["seq"].max())
            times = some["timestamp"]
            assert (tally.first_time, tally.last_time) == (times.min(), times.max())


def physical(table):
    """Return the table's types with times as the microseconds that a journal shows."""
    return {
        name: pl.Int64() if isinstance(kind, pl.Datetime) else kind
        for name, kind in table.frame.items()
    }


# ---- gaps that are asked for -----------------------------------------------------------------


def test_a_hole_becomes_a_gap_when_it_is_old_and_is_filled_over_its_own_row(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    one.record([trade(1), trade(6)], NOON + 39)
    assert event_rows(journal) == []
    one.record([], trade(6).received)
    (gap,) = gap_rows(journal)
    assert (gap["first_id"], gap["last_id"], gap["count"], gap["state"]) == (2, 5, 4, "open")
    assert (gap["from_time"], gap["to_time"]) == (trade(1).time, trade(6).time)
    assert one.events.gaps == {1: PAIR[0]}

    (missing,) = one.to_ask
    some = [trade(number, origin="backfill") for number in (2, 3, 5)]
    one.record([*some, BackfillResult(missing, "3 of 4 trades came")], 0)
    (gap,) = gap_rows(journal)
    assert (gap["count"], gap["state"], gap["backfill"]) == (
        1,
        "partly filled",
        "3 of 4 trades came",
    )
    one.record([trade(4, origin="backfill"), BackfillResult(missing, "all")], 0)
    (gap,) = gap_rows(journal)
    assert (gap["seq"], gap["count"], gap["state"]) == (1, 0, "filled")
    assert one.events.gaps == {}
    assert [row["origin"] for row in journal.rows(PRICES)] == ["live"] * 2 + ["backfill"] * 4
    assert one.tallies[PAIR[0], "prices", "backfill"].rows == 4
    sums_are_of_the_rows(one, journal)


def test_nothing_came_and_the_gap_stays(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    one.record([trade(1), trade(6)], FOREVER)
    one.record([BackfillResult(one.to_ask[0], "0 of 4 trades came")], 0)
    (gap,) = gap_rows(journal)
    assert (gap["count"], gap["state"]) == (4, "open")
    assert one.events.gaps == {1: PAIR[0]}


def test_a_trade_and_its_answer_in_one_batch_count_each_once(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    one.record([trade(1), trade(3)], FOREVER)
    both = [trade(2), trade(2, origin="backfill"), BackfillResult(one.to_ask[0], "1 of 1")]
    one.record(both, 0)
    assert gap_rows(journal)[0]["count"] == 0
    assert len(journal.rows(PRICES)) == 3
    assert one.symbols[PAIR[0]].trades.doubles == 1


def test_ids_that_begin_anew_are_told_and_their_old_holes_are_not_asked_for(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    one.record([trade(1_000), trade(1_010)], 0)
    one.record([trade(1, time=NOON + 10**9, received=NOON + 10**9)], FOREVER)
    kinds = {row["event"]: row for row in event_rows(journal)}
    assert kinds["id_restart"]["count"] is None
    assert "restart at 1" in kinds["id_restart"]["detail"]
    assert gap_rows(journal)[0]["count"] == 9
    assert one.to_ask == []
    assert one.symbols[PAIR[0]].trades.ids.missing == 9


MEANWHILE = trade(7).received - 1
"""After trade 1 had come, and before trade 7 came."""


@pytest.mark.parametrize(
    ("told", "cause"),
    [
        ([], "the stream skipped these ids while its connection stood"),
        (
            [Event("reconnect", None, MEANWHILE, 1, "cut by the venue: code 1006")],
            "a connection was made again: cut by the venue: code 1006",
        ),
        (
            [
                Event("reconnect", None, MEANWHILE, 1, "prices were silent"),
                # It is told after the trade that it was found out by.
                Event("silent_stream", PAIR[0], MEANWHILE + 2_000_000, None, "prices were silent "
                      "for 21 s while the venue went on: it is at 7"),
            ],
            "prices were silent for 21 s while the venue went on",
        ),
        (
            [Event("quarantine", PAIR[0], MEANWHILE, 1, "no number: {}")],
            "what came instead was not understood: no number: {}",
        ),
        (
            [trade(3, price=math.nan)],
            "what came instead was not understood: id, side, price, volume or time is invalid: ",
        ),
        # Those of another symbol, and of before, cost nothing here.
        (
            [
                Event("quarantine", PAIR[1], MEANWHILE, 1, "no number: {}"),
                Event("quarantine", None, MEANWHILE, 1, "no number: {}"),
                Event("reconnect", None, trade(1).received - 1, 1, "cut"),
                Event("reconnect", None, "now", 1, "cut"),
            ],
            "the stream skipped these ids while its connection stood",
        ),
    ],
)  # fmt: skip
def test_a_gap_says_why_trades_did_not_come(encoder, told, cause):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    one.record([trade(1)], 0)
    one.record(told, 0)
    one.record([trade(7)], FOREVER)
    (gap,) = gap_rows(journal)
    assert gap["cause"].startswith(cause)
    assert (gap["first_id"], gap["last_id"]) == (2, 6)


def test_trades_that_were_asked_for_do_not_hide_when_the_last_one_came_by_itself(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    one.record([trade(1)], 0)
    one.record([Event("reconnect", None, MEANWHILE, 1, "cut")], 0)
    one.record([trade(2, origin="backfill", received=MEANWHILE + 1)], 0)
    one.record([trade(7)], FOREVER)
    assert gap_rows(journal)[0]["cause"] == "a connection was made again: cut"


def test_a_gap_between_two_recordings_says_that_the_recorder_was_away(encoder):
    journal = MemoryJournal()
    recorder(journal, encoder).record([trade(1), trade(4)], 0)  # killed before that gap was told
    later = recorder(journal, encoder)
    later.record([trade(9), Event("reconnect", None, MEANWHILE, 1, "cut")], 0)
    later.record([trade(12, received=MEANWHILE + 90)], FOREVER)
    found = {gap["first_id"]: gap.get("cause") for gap in gap_rows(journal)}
    assert found == {
        2: None,
        5: "the recorder was away",
        10: "the stream skipped these ids while its connection stood",
    }


# ---- books, events, and what else may come ---------------------------------------------------


def test_a_gap_that_lasts_is_closed_by_the_end_and_never_before_its_start(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    one.record([Gap(PAIR[0], "orderbook", NOON + 50, None, None, "cut")], 0)
    assert gap_rows(journal)[0]["to_time"] is None
    assert len(one.events.open_gaps) == 1
    one.end(NOON)
    assert gap_rows(journal)[0]["to_time"] == NOON + 50
    assert one.events.open_gaps == {}


def test_prices_without_ids_have_the_gaps_that_the_feed_tells(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder, counts_trades=False)
    one.record([trade(1), trade(9), Gap(PAIR[0], "prices", NOON, NOON + 9, None, "cut")], FOREVER)
    (gap,) = gap_rows(journal)
    assert (gap["what"], gap["count"], gap["cause"]) == ("prices", None, "cut")
    assert one.to_ask == []
    assert one.events.gaps == {1: PAIR[0]}


def test_thousands_of_alike_refusals_are_one_row_a_batch(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    bad = [trade(number, price=math.nan) for number in range(500)]
    one.record(bad, 0)
    one.record(bad, 0)
    rows = event_rows(journal)
    assert [(row["event"], row["count"]) for row in rows] == [("quarantine", 500)] * 2
    assert "nan" in rows[0]["detail"]
    assert one.events.errors == 1_000


def test_a_book_that_crosses_is_told_where_it_begins_and_kept_as_it_came(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    sides = [(98.0, 99.0), (98.0, 97.0), (98.0, 98.0), (98.0, 99.0), (99.0, 99.0)]
    books = [
        BookSnapshot(PAIR[0], n, [(bid, 1.0)], [(ask, 1.0)], NOON + n, NOON + n)
        for n, (bid, ask) in enumerate(sides)
    ]
    one.record(books[:4], 0)
    one.record(books[4:], 0)
    events = event_rows(journal)
    assert [(row["event"], row["symbol"], row["timestamp"] - NOON) for row in events] == [
        ("crossed_book", PAIR[0], 1), ("crossed_book", PAIR[0], 4),
    ]  # fmt: skip
    assert one.events.errors == 2
    rows = journal.rows(ORDERBOOK)
    assert [(row["bid_price_1"], row["ask_price_1"]) for row in rows] == sides


@pytest.mark.parametrize(("bid", "told"), [(99.0, 0), (99.5, 1)])
def test_quotes_may_be_equal_and_are_told_where_they_cross(encoder, bid, told):
    journal = MemoryJournal()
    one = recorder(journal, encoder, depth=1)
    one.record([Quote(PAIR[0], bid, 1.0, 99.0, 1.0, 1, NOON, NOON)], 0)
    assert len(event_rows(journal)) == told
    assert len(journal.rows(ORDERBOOK)) == 1


def test_a_book_that_was_not_wanted_is_refused(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder, depth=0)
    one.record([BookSnapshot(PAIR[0], 1, [(1.0, 1.0)], [], NOON, NOON)], 0)
    assert journal.rows(ORDERBOOK) == []
    assert "no book of 'AAA_USDT' was asked for" in event_rows(journal)[0]["detail"]


def test_long_words_are_cut_and_unknown_kinds_are_kept(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    one.record([Event("party", PAIR[0], NOON, None, "x" * 10_000)], 0)
    (row,) = event_rows(journal)
    assert row["event"] == "venue_error"
    assert row["detail"].startswith("unknown event 'party': xxx")
    assert len(row["detail"]) <= 2_000


def test_decimals_are_those_of_all_prices_so_far(encoder):
    one = recorder(MemoryJournal(), encoder)
    seen = []
    for number, price in enumerate((100.0, 100.5, 99.125, 7.0)):
        one.record([trade(number, price=price)], 0)
        seen.append(price)
        wanted = find_decimals(pl.Series(seen))
        assert one.symbols[PAIR[0]].decimals == wanted == min(3, (0, 1, 3, 3)[number])
    one.record([trade(9, price=1 / 3)], 0)
    one.record([trade(10, price=1.0)], 0)
    assert one.symbols[PAIR[0]].decimals is None, "some price needs more than can be kept"


def test_the_decimals_of_a_book_alone_are_those_of_its_mids(encoder):
    one = recorder(MemoryJournal(), encoder)
    one.record([Quote(PAIR[0], 100.0, 1.0, 100.25, 1.0, 1, NOON, NOON)], 0)
    assert one.symbols[PAIR[0]].decimals == 3


def test_the_newest_of_each_symbol_is_there_to_be_looked_at(encoder):
    one = recorder(MemoryJournal(), encoder)
    one.record([trade(1, price=5.0), Quote(PAIR[0], 4.0, 1.0, 6.0, 1.0, 1, NOON, NOON + 9)], 0)
    record = one.symbols[PAIR[0]]
    assert (record.last_price, record.bid, record.ask) == (5.0, 4.0, 6.0)
    one.record([trade(0, price=3.0, origin="backfill")], 0)
    assert record.last_price == 5.0, "a price of the past is no news"


# ---- when the journal has no room ------------------------------------------------------------


def test_what_found_no_room_is_journaled_once_there_is_some(encoder):
    class Full(MemoryJournal):
        full = False

        def append(self, batches, facts):
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
            super().append(batches, facts)

    journal = Full()
    one = recorder(journal, encoder)
    one.record([trade(1)], 0)
    journal.full = True
    for _ in range(2):
        with pytest.raises(sqlite3.OperationalError):
            one.record([trade(2 + _), Event("resync", None, NOON)], 0)
    assert len(journal.rows(PRICES)) == 1
    assert journal.fact(f"tally/{PAIR[0]}|prices|live")["rows"] == 1
    journal.full = False
    one.save()
    assert [row["seq"] for row in journal.rows(PRICES)] == [1, 2, 3]
    assert journal.fact(f"tally/{PAIR[0]}|prices|live")["rows"] == 3
    assert len(event_rows(journal)) == 2
    one.save()
    assert len(journal.rows(PRICES)) == 3
    sums_are_of_the_rows(one, journal)


def test_a_quiet_batch_writes_nothing(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    one.record([], 0)
    assert (journal.batches, journal.kept) == ([], {})
    one.save(ending="completed")
    assert journal.fact("ending") == "completed"


@given(st.lists(st.lists(trades(), max_size=6), min_size=2, max_size=6), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_a_recorder_that_goes_on_stores_what_one_alone_would_have(encoder, found, place):
    """Sums agree at the end as if nobody had died; every id is stored once."""
    whole, parts = MemoryJournal(), MemoryJournal()
    alone, now = recorder(whole, encoder), recorder(parts, encoder)
    for number, batch in enumerate(found):
        if number == place:
            now = recorder(parts, encoder)
        alone.record(batch, 0)
        now.record(batch, 0)
    assert now.tallies == alone.tallies
    assert parts.rows(PRICES) == whole.rows(PRICES)
    for symbol in PAIR:
        assert now.symbols[symbol].trades.to_json() == alone.symbols[symbol].trades.to_json()
    sums_are_of_the_rows(now, parts)


def test_checksums_wrap_and_stay_in_their_range(encoder):
    one = recorder(MemoryJournal(), encoder)
    for number in range(50):
        one.record([trade(number)], 0)
        assert 0 <= one.tallies[PAIR[0], "prices", "live"].checksum < MODULUS


def test_after_a_gap_a_book_has_to_come_anew(encoder):
    journal = MemoryJournal()
    one = recorder(journal, encoder)
    whole = BookSnapshot(PAIR[0], 1, [(99.0, 1.0)], [], NOON, NOON)
    change = BookDelta(PAIR[0], 5, 6, [(98.0, 1.0)], [], NOON + 50, NOON + 50)
    lasting = Gap(PAIR[0], "orderbook", NOON, None, 3, "cut")
    over = lasting._replace(to_time=NOON + 50)
    one.record([whole, lasting, change], 0)
    one.record([over, whole._replace(update_id=9, time=NOON + 50), change], 0)
    assert [row["seq"] for row in journal.rows(ORDERBOOK)] == [1, 9, 6]
    assert [row["detail"] for row in event_rows(journal) if row["event"] == "quarantine"] == [
        "a change of a book came before the book"
    ]
    other = BookSnapshot(PAIR[1], 1, [(99.0, 1.0)], [], NOON, NOON)
    same = change._replace(symbol=PAIR[1])
    one.record([other, lasting._replace(symbol=PAIR[1], what="prices"), same], 0)
    assert one.events.errors == 1, "a hole in trades is none of the book"
