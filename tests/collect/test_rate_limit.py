"""Many books that are lost at once come back within the venue's rate limit, and none is refused."""

from __future__ import annotations

import asyncio

import pytest
from collect_processes import PATIENCE, eventually
from reconcile import gap_details

from fxlab.collect.feed import Clock
from fxlab.collect.venues import _rest, _snapshot_run
from fxlab.collect.venues._binance import Binance, BinanceFutures
from fxlab.collect.venues._mexc import Mexc
from fxlab.collect.venues._rest import Rest
from fxlab.mock import Faults, MockVenue, generated

SYMBOLS = [f"C{number}_USDT" for number in range(12)]
FEEDS = {"binance": Binance, "binance_futures": BinanceFutures, "mexc": Mexc}
LIMIT, SECONDS = {"binance": 100, "binance_futures": 100, "mexc": 20}, 3.0
"""Minutes are seconds here: two cuts of all books are more than the venue allows."""
MARGIN = 0.45
"""On a busy machine what was sent in two such times may arrive in one."""


@pytest.mark.parametrize("venue", FEEDS)
def test_books_come_back_within_the_limit(venue, lab, unique, monkeypatch):
    allowed = LIMIT[venue]
    monkeypatch.setattr(FEEDS[venue], "LIMIT", (MARGIN * allowed, SECONDS))
    monkeypatch.setattr(_snapshot_run, "TOLD_WAIT", 0.2)
    market = generated(SYMBOLS, seed=5, rate=5, book_rate=20)
    with MockVenue(market, venues=[venue], faults=Faults(rate_limit=(allowed, SECONDS))) as mock:
        collector = lab.collect(
            venue, SYMBOLS, url=mock.url, settle=0.2, book_depth=5, session_id=unique("limit")
        )

        def known(rounds):
            """Return whether each book has come back so often, by the ledger of its symbol."""
            session = lab.session(collector.session_id)
            told = session.events().filter(event="resync")["symbol"].to_list()
            return all(told.count(symbol) >= rounds for symbol in SYMBOLS)

        eventually(lambda: all(one.books for one in collector.status().symbols), "all books")
        for cut in (1, 2, 3):
            mock.cut()
            eventually(lambda: known(cut), "all books again")  # noqa: B023 - it is called here only
        refused = mock.ledger()["counts"].get("rest_error", 0)
        collector.stop()
        session = collector.wait(PATIENCE)
    assert refused == 0
    assert len(gap_details(session, SYMBOLS[0], "orderbook")) >= 3
    told = session.events().filter(event="venue_error")["detail"].to_list()
    waited = [one for one in told if "book snapshots wait" in one]
    assert waited
    # At the end there may be nothing left to ask about silent streams with.
    assert all("could not be asked about" in one for one in told if one not in waited)


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
def test_two_recorders_of_a_machine_share_the_limit_by_what_the_venue_says(at_once, monkeypatch):
    """Two processes know nothing of each other's questions; the venue's header counts all."""
    cost, allowed = 5, 100

    def client(mock):
        monkeypatch.setattr(_rest, "_BUDGETS", {})  # as in a process of its own
        monkeypatch.setattr(_rest, "_GATES", {})
        limit = (0.8 * allowed, 60.0)
        return Rest(f"{mock.url}/binance", clock=Clock(), limit=limit, used=Binance.USED)

    async def ask_all(rest):
        asked = 0
        while not rest.wait(cost):
            await rest.get("/api/v3/depth", cost, symbol="BTCUSDT", limit=100)
            asked += 1
        await rest.close()
        return asked

    async def ask_both(clients):
        if at_once:
            return await asyncio.gather(*map(ask_all, clients))
        return [await ask_all(one) for one in clients]

    faults = Faults(rate_limit=(allowed, 600.0))
    with MockVenue(generated(), venues=["binance"], faults=faults) as mock:
        first, second = asyncio.run(ask_both([client(mock), client(mock)]))
        assert mock.ledger()["counts"].get("rest_error", 0) == 0
    # What is on its way is not counted yet: one question of each.
    assert 0.8 * allowed <= (first + second) * cost <= 0.8 * allowed + 2 * cost
    assert second >= 1
    assert first < 16 or not at_once
