"""A bad entry among the trades that a venue is asked for is told, and costs no other."""

from __future__ import annotations

import pytest
from reconcile import gap_details

from fxlab.mock import Faults, MockVenue, generated

SYMBOL = "BTC_USDT"
PATIENCE = 60.0
QUESTIONS = {"binance": "historicalTrades", "binance_futures": "aggTrades", "kraken": "Trades"}


@pytest.mark.parametrize("venue", QUESTIONS)
def test_only_the_bad_entries_of_a_history_stay_missing(venue, lab, unique):
    market = generated([SYMBOL], seed=5, rate=100)
    faults = Faults(drop=0.3, bad_history=3)
    with MockVenue(market, venues=[venue], faults=faults) as mock:
        collector = lab.collect(
            venue, SYMBOL, url=mock.url, duration=5, settle=0.2, book_depth=0,
            session_id=unique("history"),
        )  # fmt: skip
        session = collector.wait(PATIENCE)
        said = mock.ledger()
    stored = set(session.prices(columns=["seq"])["seq"])
    unsent = {
        number
        for a, b in said["venues"][venue][SYMBOL]["unsent"]
        for number in range(a, b + 1)
        if min(stored) <= number <= max(stored)
    }
    lost = {number for number in unsent if number % 3 == 0}
    assert len(lost) > 20
    assert len(unsent - lost) > 20
    assert stored == set(range(min(stored), max(stored) + 1)) - lost
    assert said["counts"]["bad_history"] > 0
    assert sum(one["count"] for one in gap_details(session, SYMBOL, "prices")) == len(lost)
    rows = session.events().filter(event="quarantine", symbol=SYMBOL)
    told = rows.filter(rows["detail"].str.starts_with(QUESTIONS[venue]))
    assert told["count"].sum() >= len(lost)
