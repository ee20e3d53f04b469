"""A connection whose end is known beforehand is replaced while it lasts, and nothing is lost."""

from __future__ import annotations

import pytest
import reconcile
import reconcile_books
from collect_processes import PATIENCE, eventually

from fxlab.collect.venues import _binance, _websocket
from fxlab.mock import MockVenue, generated

SYMBOLS = ["BTC_USDT", "ETH_USDT"]


def record(mock, lab, venue, name, until):
    """Record until something is so, and a second longer; return the session."""
    collector = lab.collect(
        venue, SYMBOLS, url=mock.url, settle=0.2, book_depth=10, session_id=name
    )

    def symbols():
        return collector.status().symbols

    eventually(lambda: all(one.books and one.trades for one in symbols()), "books and trades")
    until()
    counted = {one.symbol: one.books for one in symbols()}
    eventually(lambda: all(one.books > counted[one.symbol] + 5 for one in symbols()), "more books")
    collector.stop()
    return collector.wait(PATIENCE)


def unbroken(mock, session, case):
    """Check that nothing is missing, and that the ledger knows of no break."""
    for symbol in SYMBOLS:
        reconcile_books.compare(case, session, mock, symbol)
        assert reconcile.gap_details(session, symbol, "orderbook") == []
        assert reconcile.gap_details(session, symbol, "prices") == []
    assert session.events().filter(event="reconnect").is_empty()
    assert session.events().filter(event="quarantine").is_empty()


@pytest.fixture
def renewed(monkeypatch):
    """Return the reasons for which connections are dropped, as they come."""
    monkeypatch.setattr(_websocket, "OVERLAP", 0.3)
    reasons = []
    drop = _websocket.WebSocketConnection.drop

    def dropped(link, reason):
        reasons.append(reason)
        drop(link, reason)

    monkeypatch.setattr(_websocket.WebSocketConnection, "drop", dropped)
    return reasons


@pytest.mark.parametrize(("venue", "connections"), [("binance", 1), ("binance_futures", 2)])
def test_a_server_that_announces_its_end_costs_nothing(venue, connections, lab, unique, renewed):
    market = generated(SYMBOLS, seed=5, rate=40, book_rate=40)
    with MockVenue(market, venues=[venue]) as mock:

        def end_of_the_server():
            mock.shut_down(PATIENCE)
            eventually(lambda: renewed.count("renewed") == connections, "the end of all")

        session = record(mock, lab, venue, unique("shutdown"), end_of_the_server)
        unbroken(mock, session, "shutdown")
        assert mock.ledger()["counts"]["shutdown"] == 1
    (told,) = set(session.events().filter(event="venue_error")["detail"])
    assert "shuts down" in told
    assert lab.verify(session.id).whole


def test_a_connection_is_renewed_before_its_day_is_over(lab, unique, renewed, monkeypatch):
    monkeypatch.setattr(_binance, "LIFETIME", 1.0)

    def several():
        eventually(lambda: renewed.count("renewed") >= 3, "three renewals")

    market = generated(SYMBOLS, seed=5, rate=40, book_rate=40)
    with MockVenue(market, venues=["binance"]) as mock:
        session = record(mock, lab, "binance", unique("renewed"), several)
        unbroken(mock, session, "renewed")
    assert session.events().filter(event="venue_error").is_empty()
    assert lab.verify(session.id).whole


def test_a_server_that_ends_before_the_second_connection_took_over_costs_nothing(
    lab, unique, monkeypatch
):
    monkeypatch.setattr(_websocket, "OVERLAP", 600.0)
    delivering = []
    delivers = _websocket.WebSocketConnection.delivers

    async def told(link):
        delivering.append(await delivers(link))
        return delivering[-1]

    monkeypatch.setattr(_websocket.WebSocketConnection, "delivers", told)
    market = generated(SYMBOLS, seed=5, rate=40, book_rate=40)
    with MockVenue(market, venues=["binance"]) as mock:

        def sooner():
            publisher = mock._exchange.publishers["binance"]
            first = [*publisher.sockets]
            mock.shut_down(PATIENCE)
            eventually(lambda: delivering == [True], "the second connection delivers")
            mock._ask(lambda: [socket.cut(b"{}") for socket in first])

        session = record(mock, lab, "binance", unique("sooner"), sooner)
        unbroken(mock, session, "sooner")
    assert lab.verify(session.id).whole
