"""Each query for ticks names both ends of the session's times: it opens no other's partitions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from scripted_feed import NOON, PATIENCE, SYMBOL, Scripted, trades

import fxlab
from fxlab._times import to_micros
from fxlab.collect._live import lifecycle
from fxlab.collect.feed import BookSnapshot
from fxlab.schema import ORDERBOOK, PRICES, RECEIPTS
from fxlab.sessions import _archive, _catalog

WEEK = 7 * 86_400_000_000
BOOK = BookSnapshot(SYMBOL, 10, [(99.0, 1.0)], [(101.0, 3.0)], NOON, NOON + 7)
START = datetime(2024, 8, 8, tzinfo=UTC)
TICKS = re.compile(rf"\b({PRICES.name}|{ORDERBOOK.name})\"?\s+where\b")
MOMENTS = re.compile(r'"?timestamp"? in \(([\d, ]+)\)')
FROM, UNTIL = re.compile(r'"?timestamp"? >= (\d+)'), re.compile(r'"?timestamp"? < (\d+)')


@pytest.fixture
def statements(lab, monkeypatch):
    """Return a list that gets the text of each query for ticks."""
    found: list[str] = []
    client = type(lab._db)
    for road in ("execute", "catalogue", "export"):
        ask = getattr(client, road)

        def kept(db, statement, *, ask=ask):
            if TICKS.search(statement):
                found.append(statement)
            return ask(db, statement)

        monkeypatch.setattr(client, road, kept)
    return found


def check(statements, first, last):
    assert statements
    for each in statements:
        moments = MOMENTS.search(each)
        if moments:
            named = [int(moment) for moment in moments[1].split(", ")]
            low, high = min(named), max(named)
        else:
            ends = FROM.search(each), UNTIL.search(each)
            assert None not in ends, each
            low, high = (int(end[1]) for end in ends)
        assert low >= first - WEEK, each
        assert high <= last + 1 + WEEK, each
    statements.clear()


@pytest.fixture(scope="module")
def imported(lab, unique):
    rows = 300
    at = [START + timedelta(seconds=n) for n in range(rows)]
    prices = pl.DataFrame(
        {"timestamp": at, "seq": range(rows), "price": [100.0 + n % 7 for n in range(rows)]}
    ).with_columns(volume=pl.lit(1.0), symbol=pl.Series(["A_USD", "B_USD"] * (rows // 2)))
    books = prices.select(
        "timestamp", "symbol", "seq",
        bid_price_1=pl.col("price") - 1, bid_qty_1=pl.lit(1.0),
        ask_price_1=pl.col("price") + 1, ask_qty_1=pl.lit(1.0),
    )  # fmt: skip
    name = unique("bounded")
    lab.import_frames({"prices": prices, "orderbook": books}, session_id=name)
    return name


READERS = {
    "prices": lambda one, _: one.prices("A_USD"),
    "a page": lambda one, _: one.prices("A_USD", limit=5, offset=3),
    "a scan": lambda one, _: list(one.scan_prices("A_USD")),
    "books": lambda one, _: one.orderbook("A_USD"),
    "a scan of books": lambda one, _: list(one.scan_orderbook("A_USD")),
    "ticks": lambda one, _: list(one.scan_ticks("A_USD")),
    "ticks of many": lambda one, _: [list(each) for each in one.scan_many(one.symbols).values()],
    "a part": lambda one, _: one.prices("A_USD", start=START, end=START + timedelta(minutes=1)),
    "how many": lambda one, _: one.count_ticks("A_USD"),
    "kinds": lambda one, _: (one.has_trades("A_USD"), one.has_books("B_USD")),
    "candles": lambda one, _: one.ohlcv("1m", "A_USD"),
    "chart data": lambda one, _: one.chart_data("A_USD"),
    "charts": lambda one, _: one.charts("A_USD"),
    "statistics": lambda one, _: one.statistics(),
    "quality": lambda one, _: one.quality(),
    "counts": lambda one, _: one.counts(),
    "an export": lambda one, folder: one.export(folder),
    "a backtest": lambda one, _: fxlab.backtest(one, "buy_and_hold"),
    "books in a backtest": lambda one, _: fxlab.backtest(
        one, "buy_and_hold", execution=fxlab.Execution(fill="book")
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_readers_ask_within_the_times_of_the_session(lab, imported, statements, reader, tmp_path):
    session = lab.session(imported)
    READERS[reader](session, tmp_path)
    check(statements, to_micros(session.started), to_micros(session.ended))


def test_so_do_a_receipt_a_recording_that_goes_on_and_one_in_a_backup(lab, db, unique, statements):
    feed = Scripted([*trades(1, 2, 3), BOOK], after=None)
    session = lab.collect(feed, SYMBOL, session_id=unique("live"), settle=0).wait(PATIENCE)
    statements.clear()
    assert lab.verify(session.id).whole
    times = to_micros(session.started), to_micros(session.ended)
    check(statements, *times)

    row = _catalog.find(db, session.id)
    (receipt, *_) = _catalog.raw_rows(db, RECEIPTS, session.id)
    ids, _ = lifecycle._recent(db, receipt, row)
    assert ids == ["1", "2", "3"]
    check(statements, *times)

    ended = _archive._ended(db, row)
    assert (ended["started"], ended["ended"]) == (session.started, session.ended)
    assert ended["records_collected"] == 4
    check(statements, *times)
