"""A book is recorded as far as its snapshots reach, and a new one comes before that is too little.

Snapshots have few levels more here than are recorded, and the price leaves them all the time.
"""

from __future__ import annotations

import pytest
import reconcile_books
from collect_processes import PATIENCE, eventually
from reconcile import gap_details

from fxlab.collect.venues import _mexc
from fxlab.collect.venues._binance import Binance
from fxlab.collect.venues._book_sync import SnapshotEdge
from fxlab.mock import MockVenue, generated

SYMBOL = "BTC_USDT"
LEVELS = 16


@pytest.mark.parametrize("venue", ["binance", "mexc"])
def test_a_book_whose_price_leaves_its_snapshot_gets_new_ones(venue, lab, unique, monkeypatch):
    monkeypatch.setattr(Binance, "SNAPSHOT_COSTS", {LEVELS: 1})
    monkeypatch.setattr(_mexc, "SNAPSHOT_LEVELS", LEVELS)
    widened = []
    widen = SnapshotEdge.widen
    monkeypatch.setattr(
        SnapshotEdge, "widen", lambda edge, new: widened.append(1) or widen(edge, new)
    )
    market = generated([SYMBOL], seed=5, rate=40, book_rate=40)
    with MockVenue(market, venues=[venue]) as mock:
        collector = lab.collect(
            venue, SYMBOL, url=mock.url, book_depth=10, settle=0.2, session_id=unique("edge")
        )
        eventually(lambda: len(widened) >= 5, "five new snapshots")
        collector.stop()
        session = collector.wait(PATIENCE)
        if venue != "mexc":  # which counts versions of its own
            reconcile_books.compare("edges", session, mock, SYMBOL)
    causes = {one["cause"] for one in gap_details(session, SYMBOL, "orderbook")}
    assert causes <= {f"the price has left the {LEVELS} levels of the last snapshot"}
    assert session.events().filter(event="venue_error").is_empty()
    assert session.events().filter(event="quarantine").is_empty()
    assert lab.verify(session.id).whole
