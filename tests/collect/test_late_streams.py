"""A snapshot that is ahead of a late stream is stored at a time at which it was true, and once."""

from __future__ import annotations

import time

import polars as pl
import pytest
import reconcile_books
from reconcile import gap_details

from fxlab import schema
from fxlab._questdb import sql
from fxlab.collect.venues import _book_sync
from fxlab.mock import Faults, MockVenue, generated

SYMBOL = "BTC_USDT"
PATIENCE = 120.0
STREAMS = {"binance": "@depth", "binance_futures": "@depth", "mexc": "depth:"}


@pytest.mark.parametrize("late", [10, _book_sync.LATE], ids=["far ahead", "ahead"])
@pytest.mark.parametrize("venue", STREAMS)
def test_a_book_is_never_stored_before_it_was_true(venue, late, lab, db, unique, monkeypatch):
    monkeypatch.setattr(_book_sync, "LATE", late)
    faults = Faults(late=(STREAMS[venue], 2.0))
    market = generated([SYMBOL], seed=5, rate=20, book_rate=100)
    with MockVenue(market, venues=[venue], faults=faults) as mock:
        collector = lab.collect(
            venue, SYMBOL, url=mock.url, book_depth=10, settle=0.2, session_id=unique("late")
        )
        end = time.monotonic() + PATIENCE
        while not any(one.books > 20 for one in collector.status().symbols):
            assert time.monotonic() < end, "no books came"
            time.sleep(0.05)
        collector.stop()
        session = collector.wait(PATIENCE)
        if venue != "mexc":  # which counts versions of its own
            reconcile_books.compare("late stream", session, mock, SYMBOL)
        changes = {one.id: one.time for one in reconcile_books._changes(mock, SYMBOL)}
    rows = session.orderbook(SYMBOL)
    names = list(schema.ORDERBOOK.columns)
    stored = db.execute(sql.raw_rows(schema.ORDERBOOK, session.id))
    assert [row[names.index("is_snapshot")] for row in stored].count(True) == 1
    assert gap_details(session, SYMBOL, "orderbook") == []
    assert session.events().filter(event="venue_error").is_empty()
    if venue != "mexc":
        told = zip(rows["seq"], rows["timestamp"].dt.epoch("us"), strict=True)
        assert all(at >= changes.get(seq, 0) // 1_000 * 1_000 for seq, at in told)
    assert rows["timestamp"].is_sorted()
    assert pl.Series(rows["seq"]).is_sorted()
