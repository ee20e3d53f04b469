"""Streams that a venue ceases to send while their connection answers: noticed, told, made good."""

from __future__ import annotations

import json
import time

import pytest
from feed_tap import number_of
from scripted_feed import NOON, PATIENCE, SYMBOL, Scripted, events, trade, trades

from fxlab.collect._live import events as ages
from fxlab.collect._live import loop
from fxlab.collect._live.events import StreamAge
from fxlab.collect.feed import BookDelta, BookSnapshot
from fxlab.collect.venues import _snapshot_run
from fxlab.errors import VenueUnavailable
from fxlab.mock import Faults, MockVenue, generated

BOOK = BookSnapshot(SYMBOL, 10, [(99.0, 1.0)], [(101.0, 3.0)], NOON, NOON + 7)


@pytest.fixture
def impatient(monkeypatch):
    """Shorten the waits: fractions of a second stand for those of minutes."""
    for name, seconds in {
        "LOOK_SECONDS": 0.05,
        "QUIET_SECONDS": 0.8,
        "QUIET_INTERVALS": 1,
        "QUIET_AFTER_RECONNECT": 0.4,
        "CONFIRM_SECONDS": 0.3,
    }.items():
        monkeypatch.setattr(ages if name.startswith("QUIET") else loop, name, seconds)


# ---- When a venue is asked ----


def test_a_fast_stream_is_asked_about_after_the_least_silence():
    age = StreamAge(0.0, 0.0)
    for second in range(1, 11):
        age.look(second, 100 * second, float(second))
    assert age.due() == 10 + ages.QUIET_SECONDS


def test_a_slow_stream_may_be_silent_for_many_of_its_intervals():
    age = StreamAge(0.0, 0.0)
    age.look(10, 10, 20.0)  # one in two seconds
    assert age.due() == 20 + 2 * ages.QUIET_INTERVALS


def test_each_question_doubles_the_time_until_the_next_up_to_a_limit():
    age = StreamAge(0.0, 0.0)
    waits = []
    for asked in range(7):
        age.asked = asked
        waits.append(age.due())
    assert waits == [20, 40, 80, 160, 320, 600, 600]
    age.look("news", 1, 700.0)
    assert age.asked == 0


def test_after_a_reconnect_it_is_asked_soon():
    age = StreamAge(0.0, 0.0)
    age.suspected = 3.0
    assert age.due() == 3 + ages.QUIET_AFTER_RECONNECT
    age.look(1, 1, 4.0)
    assert age.suspected is None
    assert age.due() >= 4 + ages.QUIET_SECONDS


# ---- What is done about it ----


class Behind(Scripted):
    """A feed whose stream stands still, and whose venue may have gone on."""

    newest = None
    book = None

    def __init__(self, *batches, **options):
        super().__init__(*batches, **options)
        self.broken = []
        self.questions = []

    async def latest(self, instrument, data_type):  # noqa: D102
        del instrument
        self.questions.append(data_type)
        found = self.newest if data_type == "prices" else self.book
        if isinstance(found, Exception):
            raise found
        return found

    def reconnect(self, symbol, data_type, reason):  # noqa: D102
        self.broken.append((symbol, data_type, reason))


@pytest.fixture
def record(lab, unique, impatient):
    """Return a function that records a feed for a while, and returns its session."""
    made = []

    def run(feed, seconds=2.5, **options):
        options = {"session_id": unique("silent"), "settle": 0} | options
        made.append(lab.collect(feed, SYMBOL, duration=seconds, **options))
        return made[-1].wait(PATIENCE)

    yield run
    for one in made:
        one.request_stop()
        one._thread.join(PATIENCE)


def test_trades_that_a_silent_stream_left_out_are_asked_for(lab, db, record):
    feed = Behind(trades(1, 2, 3), history=trades(4, 5, 6))
    feed.newest = trade(7)._replace(origin="backfill")
    session = record(feed)
    assert session.prices(columns=["seq"])["seq"].to_list() == [1, 2, 3, 4, 5, 6, 7]
    (told,) = events(db, session.id, "silent_stream")
    assert told["symbol"] == SYMBOL
    assert "while the venue went on: it is at 7" in told["detail"]
    assert feed.broken[0][:2] == (SYMBOL, "prices")
    (gap,) = events(db, session.id, "gap")
    detail = json.loads(gap["detail"])
    assert (detail["first_id"], detail["last_id"], detail["state"]) == (4, 6, "filled")
    assert lab.verify(session.id).whole


def test_the_status_tells_the_age_of_each_stream(lab, unique, impatient):
    feed = Behind(trades(1, 2))
    with lab.collect(feed, SYMBOL, session_id=unique("age")) as collector:
        feed.said.wait(PATIENCE)
        ages = []
        while len(ages) < 2:
            time.sleep(0.3)
            one = collector.status().symbols[0]
            assert one.books_age is None
            ages += [] if one.trades_age is None else [one.trades_age]
        assert ages[1] >= ages[0] + 0.3
        feed.all_said()
    assert collector.status().symbols[0].trades_age is None


def test_a_quiet_market_is_no_silence(db, record):
    feed = Behind(trades(1, 2), [BOOK])
    feed.newest, feed.book = trade(2), BOOK._replace(bids=[], asks=[])
    session = record(feed)
    assert {"prices", "orderbook"} <= set(feed.questions)
    assert feed.broken == []
    assert events(db, session.id, "silent_stream") == []


def test_a_book_that_stands_still_is_taken_anew(db, record):
    feed = Behind(trades(1, 2), [BOOK])
    feed.newest, feed.book = trade(2), BOOK._replace(update_id=999)
    session = record(feed)
    assert (SYMBOL, "orderbook") in {one[:2] for one in feed.broken}
    assert "it is at 999" in events(db, session.id, "silent_stream")[0]["detail"]


def test_books_without_numbers_are_compared_by_their_times(db, record):
    feed = Behind(trades(1, 2), [BOOK])
    feed.book = BOOK._replace(update_id=0, time=NOON + 900_000)  # it tells whole seconds
    assert events(db, record(feed).id, "silent_stream") == []
    feed = Behind(trades(1, 2), [BOOK])
    feed.book = BOOK._replace(update_id=0, time=NOON + 9_000_000)
    assert events(db, record(feed).id, "silent_stream") != []


def test_a_venue_that_cannot_be_asked_is_said(db, record):
    feed = Behind(trades(1, 2))
    feed.newest = VenueUnavailable("it is away; try again later")
    session = record(feed)
    told = events(db, session.id, "venue_error")
    assert "whether prices have ceased is not known: it is away" in told[0]["detail"]
    assert feed.broken == []


def test_an_error_of_a_feed_is_told_at_the_end_too(db, record, monkeypatch):
    monkeypatch.setattr(ages, "QUIET_SECONDS", 600.0)
    feed = Behind(trades(1, 2, 3), history=KeyError("oops"))
    feed.newest = trade(6)._replace(origin="backfill", time=4_000_000_000_000_000)
    told = events(db, record(feed, 1.5).id, "venue_error")
    assert "whether prices have ceased is not known: KeyError: 'oops'" in told[0]["detail"]


def test_trades_of_the_last_moments_are_asked_for_at_the_end(db, record, monkeypatch):
    monkeypatch.setattr(ages, "QUIET_SECONDS", 600.0)
    monkeypatch.setattr(loop, "LAST_INTERVALS", 0)
    feed = Behind(trades(1, 2, 3), history=trades(4, 5))
    feed.newest = trade(6)._replace(origin="backfill")
    session = record(feed, 1.5)
    assert session.prices(columns=["seq"])["seq"].to_list() == [1, 2, 3, 4, 5, 6]
    assert len(events(db, session.id, "silent_stream")) == 1


def test_trades_after_the_end_are_none_of_the_recording(db, record, monkeypatch):
    monkeypatch.setattr(ages, "QUIET_SECONDS", 600.0)
    late = trade(6)._replace(origin="backfill", time=4_000_000_000_000_000)
    feed = Behind(trades(1, 2, 3), history=[*trades(4, 5), late])
    feed.newest = late
    session = record(feed, 1.5)
    assert session.prices(columns=["seq"])["seq"].to_list() == [1, 2, 3, 4, 5]


def test_a_book_that_stood_still_at_the_end_is_a_gap(db, record, monkeypatch):
    monkeypatch.setattr(ages, "QUIET_SECONDS", 600.0)
    change = BookDelta(SYMBOL, 11, 12, [(99.0, 0.0)], [(100.5, 4.0)], NOON + 9, NOON + 12)
    feed = Behind([BOOK], [change])
    feed.book = BOOK._replace(update_id=999)
    session = record(feed, 1.5, trades=False)
    (gap,) = events(db, session.id, "gap")
    detail = json.loads(gap["detail"])
    assert detail["what"] == "orderbook"
    assert "silent" in detail["cause"]
    assert session.gaps_count == 1


def test_without_backfill_nothing_is_asked_for_and_the_silence_is_told(db, record):
    feed = Behind(trades(1, 2, 3), history=trades(4, 5, 6))
    feed.newest = trade(7)._replace(origin="backfill")
    session = record(feed, backfill=False)
    assert feed.asked == []
    assert events(db, session.id, "silent_stream") != []


# ---- Venues whose connection answers and whose stream is silent ----

STREAMS = {
    "binance": ("@trade", "@depth"),
    "binance_futures": ("@aggTrade", "@depth"),
    "bybit_linear": ("publicTrade", "orderbook"),
    "kraken": ("trade:", "book-"),
    "mexc": ("deal:", "depth:"),
    "okx": ("trades-all:", "books:"),
}


@pytest.mark.parametrize("venue", STREAMS)
def test_no_trade_is_lost_where_a_stream_of_trades_ceases(venue, lab, db, unique, impatient):
    market = generated(["BTC_USDT"], seed=5, rate=60)
    faults = Faults(silence=(STREAMS[venue][0], 1.0))
    with MockVenue(market, venues=[venue], faults=faults) as mock:
        collector = lab.collect(
            venue, SYMBOL, url=mock.url, duration=6, settle=0.2, session_id=unique("mute")
        )
        session = collector.wait(PATIENCE)
        happened = mock.ledger()["venues"][venue][SYMBOL]["happened"]
    assert happened > 100
    assert "prices" in events(db, session.id, "silent_stream")[0]["detail"]
    assert events(db, session.id, "reconnect") != []
    gaps = [row for row in events(db, session.id, "gap") if '"prices"' in row["detail"]]
    missing = [row["count"] for row in gaps if row["count"] != 0]
    seqs = session.prices(columns=["seq"])["seq"]
    if venue == "mexc":  # its trades cannot be asked for: the gap is told
        assert missing == [None]
    else:
        assert missing == []
        if venue == "bybit_linear":  # whose ids are no numbers
            seqs = sorted(map(number_of, session.prices(columns=["trade_id"])["trade_id"]))
        assert [*seqs] == [*range(seqs[0], seqs[0] + len(seqs))]
        assert lab.verify(session.id).whole


@pytest.mark.parametrize("venue", STREAMS)
def test_one_of_two_books_that_ceases_is_a_gap_and_comes_back(venue, lab, db, unique, impatient):
    pair = ("BTC_USDT", "ETH_USDT")
    own = {
        "bybit_linear": ".50.ETHUSDT",
        "kraken": "book-10:ETH/USDT",
        "mexc": "depth:ETH_USDT",
        "okx": "books:ETH-USDT",
    }
    quiet = own.get(venue, "ethusdt@depth")
    market = generated(pair, seed=5, rate=20, book_rate=40)
    with MockVenue(market, venues=[venue], faults=Faults(silence=(quiet, 2.0))) as mock:
        collector = lab.collect(
            venue, pair, url=mock.url, duration=9, settle=0.2, session_id=unique("mute")
        )
        session = collector.wait(PATIENCE)
    told = events(db, session.id, "silent_stream")
    assert "orderbook" in {row["detail"].split()[0] for row in told if row["symbol"] == "ETH_USDT"}
    gaps = [row for row in events(db, session.id, "gap") if row["symbol"] == "ETH_USDT"]
    assert [json.loads(row["detail"])["what"] for row in gaps if "book" in row["detail"]] != []
    books = session.orderbook("ETH_USDT")["timestamp"].to_physical()
    assert books.diff().max() > 800_000  # the gap, and then
    assert books[-1] > gaps[0]["to_time"]  # it came again


@pytest.mark.parametrize("venue", ["binance", "binance_futures", "bybit", "mexc", "okx"])
def test_a_symbol_that_is_traded_no_more_is_told_when_it_falls_silent(
    venue, lab, unique, monkeypatch
):
    monkeypatch.setattr(ages, "QUIET_SECONDS", 1.0)
    monkeypatch.setattr(_snapshot_run, "LEAST_BETWEEN", 0.2)
    market = generated(["BTC_USDT", "ETH_USDT"], seed=5, rate=40, book_rate=40)
    faults = Faults(delist=("ETH_USDT", 2.0))
    with MockVenue(market, venues=[venue], faults=faults) as mock:
        collector = lab.collect(
            venue, list(market.listings), url=mock.url, settle=0.2, session_id=unique("end")
        )
        end, told = time.monotonic() + PATIENCE, []
        while not told:
            assert time.monotonic() < end, "nobody tells it"
            time.sleep(0.1)
            ledger = lab.session(collector.session_id).events()
            told = ledger.filter(event="delisted")["symbol"].to_list()
        collector.stop()
        collector.wait(PATIENCE)
    assert told == ["ETH_USDT"]
