"""A venue that bans is left alone by everybody until it is over; then what waited is asked."""

from __future__ import annotations

import time

import pytest
from collect_processes import PATIENCE, eventually
from reconcile import gap_details

from fxlab.collect._live import loop
from fxlab.collect.venues import _rest, _snapshot_run
from fxlab.errors import VenueRefused
from fxlab.mock import Faults, MockVenue, generated

SYMBOLS = ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
UNDER_WAY = 8
"""Questions on their way when a ban begins: four snapshots, and two of each other kind."""
CASES = [
    ("binance", 418, True),
    ("binance", 403, False),
    ("binance_futures", 429, True),
    ("kraken", 418, True),
    ("mexc", 403, True),
]


@pytest.fixture
def short(monkeypatch):
    """Shorten the waits: seconds stand for minutes."""
    monkeypatch.setattr(_rest, "LONGEST_WAIT", 1.0)
    monkeypatch.setitem(_rest.PAUSES, 403, (4.0, 4.0))
    monkeypatch.setattr(_snapshot_run, "STATUS_EVERY", 1.0)


def refused(mock):
    """Return how many questions came during the ban."""
    return mock.ledger()["counts"].get("rest_error", 0)


def told_of_bans(session):
    """Return what the ledger says of times without questions."""
    rows = session.events().filter(event="venue_error")
    return [one for one in rows["detail"] if one.endswith("stay as they are")]


@pytest.mark.parametrize(("venue", "status", "told"), CASES)
def test_a_ban_is_waited_out_by_all_and_then_made_good(venue, status, told, lab, unique, short):
    market = generated(SYMBOLS, seed=5, rate=40, book_rate=40)
    with MockVenue(market, venues=[venue], faults=Faults(drop=0.02)) as mock:
        collector = lab.collect(
            venue, SYMBOLS, url=mock.url, settle=0.2, book_depth=5, session_id=unique("ban")
        )

        def books():
            return {one.symbol: one.books for one in collector.status().symbols}

        eventually(lambda: len(books()) == 3 and min(books().values()) > 5, "books came")
        mock.ban(status, 4.0, told)
        mock.cut()
        eventually(lambda: mock._exchange.banned.end < time.monotonic(), "the ban is over")
        during, before = refused(mock), books()
        eventually(lambda: all(books()[one] > before[one] + 20 for one in SYMBOLS), "books join")
        collector.stop()
        session = collector.wait(PATIENCE)
        after = refused(mock)
    assert 1 <= during <= UNDER_WAY
    assert after == during
    (ban,) = told_of_bans(session)
    assert f"(HTTP {status}: " in ban
    assert "UTC" in ban
    assert " is asked nothing for " in ban
    if venue != "mexc":  # its trades cannot be asked for
        gaps = [one for symbol in SYMBOLS for one in gap_details(session, symbol, "prices")]
        assert len(gaps) > 3
        assert {one["count"] for one in gaps} == {0}
    assert lab.verify(session.id).whole


def test_nobody_waits_for_a_ban_at_the_end(lab, unique, monkeypatch):
    monkeypatch.setattr(loop, "LAST_ASKING_SECONDS", 1e6)
    monkeypatch.setattr(loop, "LAST_LOOK_SECONDS", 1e3)
    monkeypatch.setattr(loop, "LAST_INTERVALS", 0)
    market = generated(SYMBOLS, seed=5, rate=40, book_rate=40)
    with MockVenue(market, venues=["binance"], faults=Faults(drop=0.05)) as mock:
        collector = lab.collect(
            "binance", SYMBOLS, url=mock.url, settle=0.2, book_depth=5, session_id=unique("ban")
        )
        eventually(lambda: min((one.books for one in collector.status().symbols), default=0), "")
        mock.ban(418, 86_400.0)
        mock.cut()
        eventually(lambda: refused(mock), "a question was refused")
        seen = sum(one.trades for one in collector.status().symbols)
        eventually(
            lambda: sum(one.trades for one in collector.status().symbols) > seen + 300, "gaps"
        )
        mock.stall()
        time.sleep(1.5)  # the streams are silent for longer than a second: doubtful at the end
        collector.stop()
        session = collector.wait(PATIENCE)
        with pytest.raises(VenueRefused, match="is asked nothing for"):
            lab.collect("binance", SYMBOLS, url=mock.url, session_id=unique("ban"))
        during = refused(mock)
    assert 1 <= during <= UNDER_WAY
    assert len(told_of_bans(session)) == 1
    gaps = [one for symbol in SYMBOLS for one in gap_details(session, symbol, "prices")]
    waiting = [one for one in gaps if one["count"]]
    assert waiting != []
    assert {one["state"] for one in waiting} == {"open"}
    assert all("is asked nothing" in one["backfill"] for one in waiting)
    details = session.events().filter(event="venue_error")["detail"].to_list()
    assert any("streams could not be asked about" in one for one in details)
