"""The bridge to ccxt: its seams are where they were, and nothing that ccxt parses is lost."""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from functools import partial

import feed_tap
import pytest
from feed_tap import Heard, listen, places, rebuilt, told, tops

ccxt = pytest.importorskip("ccxt.pro")

from fxlab.collect.feed import (  # noqa: E402
    Address,
    BookDelta,
    BookSnapshot,
    Clock,
    Event,
    Instrument,
    Quote,
    Subscription,
)
from fxlab.collect.venues import open_feed  # noqa: E402
from fxlab.collect.venues._ccxt import (  # noqa: E402
    CcxtFeed,
    CcxtRun,
    WatchedBook,
    base_units,
    instrument_of,
    redirect,
)
from fxlab.errors import (  # noqa: E402
    InvalidParameter,
    VenueNotFound,
    VenueRefused,
    VenueUnavailable,
)
from fxlab.mock import Faults, MockVenue  # noqa: E402

SPOT = {"fetchMarkets": {"types": ["spot"]}}
NOW = 1_700_000_000_000_000
TERMS = {"contract_size": 1.0, "inverse": False}
BTC = Instrument("BTC_USDT", "BTC/USDT", 2, detail=TERMS)

venue = partial(feed_tap.venue, "binance")


def hear(mock: MockVenue, enough, **wanted) -> tuple[Heard, CcxtFeed]:
    async def run():
        address = Address.under(mock.url, "binance")
        async with CcxtFeed("binance", address=address, options=SPOT) as feed:
            return await listen(feed, enough, **wanted), feed

    return asyncio.run(run())


def all_trades(mock: MockVenue):
    return feed_tap.all_trades(mock, "binance")


def truth_of(mock: MockVenue, symbol: str) -> list[tuple]:
    return feed_tap.truth_of(mock, "binance", symbol)


# The seams


def test_the_seams_are_where_they_were():
    from ccxt.async_support.base.ws.cache import ArrayCache
    from ccxt.async_support.base.ws.client import Client
    from ccxt.async_support.base.ws.order_book import OrderBook

    assert list(inspect.signature(ArrayCache.append).parameters) == ["self", "item"]
    assert list(inspect.signature(Client.resolve).parameters) == ["self", "result", "message_hash"]
    assert issubclass(OrderBook, dict)
    exchange = ccxt.binance()
    assert exchange.trades == {}
    assert isinstance(exchange.order_book(), OrderBook)


def test_a_burst_and_a_stall_cost_no_trade():
    # More than ccxt's ring of 1,000 holds, while nobody awaits what it hands out.
    mock, market = venue(trades=6_000, book_rate=0, listeners=2)
    stalls: list[int] = []

    def stall(heard: Heard) -> None:
        if len(stalls) < 3:
            stalls.append(len(heard))
            time.sleep(0.2)

    with mock:
        heard, feed = hear(mock, all_trades(mock), book_depth=0, meanwhile=stall)
        for symbol in market.listings:
            assert told(heard.trades(symbol)) == truth_of(mock, symbol)
    assert len(heard.trades()) > 6_000
    assert heard.gaps() == []
    assert feed.lossless


def test_every_state_of_a_book_was_true():
    mock, market = venue(speed=1.0, trades=None, rate=200, book_rate=100)
    with mock:
        heard, feed = hear(
            mock, lambda said: all(len(said.books(one)) > 5 for one in market.listings)
        )
    assert not feed.lossless  # of a book nobody sees what is missing
    for symbol in market.listings:
        seen = places(rebuilt(heard.books(symbol)), tops(mock, symbol))
        assert seen == sorted(set(seen))
        assert [type(one) for one in heard.books(symbol)[:2]] == [BookSnapshot, BookDelta]
        ids = [one.update_id for one in heard.books(symbol)]
        assert ids == sorted(set(ids))


def test_lost_updates_are_gaps_that_end():
    mock, market = venue(faults=Faults(seed=4, drop=0.15), speed=1.0, trades=None)
    with mock:
        heard, _ = hear(mock, lambda said: len(said.events("resync")) > 1, trades=False)
    gaps = heard.gaps()
    assert len([one for one in gaps if one.to_time is not None]) > 1
    for one in gaps:
        assert one.what == "orderbook"
        assert one.to_time is None or one.to_time >= one.from_time
    for symbol in market.listings:
        places(rebuilt(heard.books(symbol)), tops(mock, symbol))


def test_a_cut_is_told_and_ccxt_connects_again():
    mock, _ = venue(speed=1.0, trades=None, rate=200, book_rate=50)
    cuts: list[int] = []

    def cut_once(heard: Heard) -> None:
        if not cuts and len(heard.trades()) > 60:
            cuts.append(len(heard))
            mock.cut()

    def enough(heard: Heard) -> bool:
        return bool(cuts) and len(Heard(heard[cuts[0] :]).trades("BTC_USDT")) > 60

    with mock:
        heard, _ = hear(mock, enough, symbols=["BTC_USDT"], book_depth=0, meanwhile=cut_once)
        assert set(told(heard.trades())) <= set(truth_of(mock, "BTC_USDT"))
    opened, closed = heard.gaps()
    assert (opened.what, opened.to_time) == ("prices", None)
    assert closed == opened._replace(to_time=closed.to_time)
    assert len(heard.events("reconnect")) == 1
    assert "NetworkError" in heard.events("venue_error")[0].detail


# What keeps ccxt going


class Exchange:
    """Stands in for ccxt with the trouble that a test wants."""

    id = "strange"

    def __init__(self, *errors: Exception, keeps_tap: bool = True):
        self.errors = list(errors)
        self.keeps_tap = keeps_tap
        self.taps = 0
        self.run: CcxtRun | None = None

    def tap_trades(self, symbol):  # noqa: D102
        del symbol
        self.taps += 1

    def holds_tap(self, symbol):  # noqa: D102
        del symbol
        return self.keeps_tap

    async def watch_trades(self, symbol):  # noqa: D102
        if self.errors:
            raise self.errors.pop(0)
        self.run.on_trade(raw(symbol))
        await asyncio.sleep(0.01)


def raw(symbol="BTC/USDT", **changes):
    trade = {"symbol": symbol, "id": "7", "price": 10.0, "amount": 2.0, "side": "buy"}
    return trade | {"timestamp": NOW // 1_000, "info": {}} | changes


def run_with(exchange: Exchange, batches: int) -> tuple[Heard, CcxtRun]:
    async def collect():
        run = CcxtRun(exchange, Clock(), Subscription((BTC,)))
        exchange.run, heard = run, Heard()
        stream = run.batches()
        try:
            async for batch in stream:
                heard.extend(batch)
                if len(heard) >= batches:
                    break
        finally:
            await stream.aclose()
            await run.close()
        return heard, run

    return asyncio.run(collect())


def test_errors_that_pass_are_tried_again():
    exchange = Exchange(ccxt.NetworkError("gone"), ccxt.RequestTimeout("slow"))
    heard, run = run_with(exchange, 3)
    assert [one.kind for one in heard.of(Event)] == ["venue_error", "reconnect"]
    assert heard.events("reconnect")[0].amount == 2
    assert heard.trades()[0].id == 7
    assert run.lossless


@pytest.mark.parametrize("error", [ccxt.BadSymbol("no such"), ccxt.AuthenticationError("key")])
def test_errors_that_stay_end_the_run(error):
    with pytest.raises(VenueRefused, match="gives nothing"):
        run_with(Exchange(error), 99)


def test_an_error_of_the_bridge_itself_is_raised():
    with pytest.raises(ZeroDivisionError):
        run_with(Exchange(ZeroDivisionError()), 99)


def test_a_tap_that_was_left_aside_is_best_effort_and_said():
    exchange = Exchange(keeps_tap=False)
    heard, run = run_with(exchange, 4)
    assert not run.lossless
    assert exchange.taps > 1
    assert any("best effort" in one.detail for one in heard.events("venue_error"))
    assert heard.gaps()


@pytest.mark.parametrize(
    "changes",
    [
        {"price": None},
        {"price": float("nan")},
        {"amount": 0.0},
        {"amount": "much"},
        {"timestamp": "today"},
    ],
)
def test_what_is_no_trade_is_set_aside(changes):
    run = CcxtRun(Exchange(), Clock(), Subscription((BTC,)))
    run.on_trade(raw(**changes))
    (event,) = run._waiting
    assert (event.kind, event.symbol) == ("quarantine", "BTC_USDT")


def test_what_was_not_asked_for_is_left_out():
    run = CcxtRun(Exchange(), Clock(), Subscription((BTC,)))
    run.on_trade(raw("ETH/USDT"))
    run.on_book({"symbol": "BTC/USDT", "bids": [[1.0, 1.0]], "asks": []})
    assert run._waiting == []


@pytest.mark.parametrize(("told_id", "kept"), [("7", 7), ("a-7", "a-7"), (None, None)])
def test_ids_are_numbers_where_they_are(told_id, kept):
    run = CcxtRun(Exchange(), Clock(), Subscription((BTC,)))
    run.on_trade(raw(id=told_id, timestamp=None))
    (trade,) = run._waiting
    assert trade.id == kept
    assert trade.time == trade.received


# Books


def state(bids, asks, nonce=None, timestamp=None):
    return {"bids": bids, "asks": asks, "nonce": nonce, "timestamp": timestamp}


def test_states_become_a_snapshot_and_changes():
    book = WatchedBook(BTC, quotes=False)
    (first,) = book.take(state([[10.0, 1.0]], [[11.0, 1.0]], 5, 1_000), NOW)
    assert first == BookSnapshot("BTC_USDT", 5, [(10.0, 1.0)], [(11.0, 1.0)], 1_000_000, NOW)
    assert book.take(state([[10.0, 1.0]], [[11.0, 1.0]], 6, 1_001), NOW) == []
    (change,) = book.take(state([[9.0, 3.0]], [[11.0, 2.0]], 8, 1_002), NOW)
    assert change == BookDelta(
        "BTC_USDT", 6, 8, [(10.0, 0.0), (9.0, 3.0)], [(11.0, 2.0)], 1_002_000, NOW
    )
    (gap,) = book.lose("cut")
    closed, resync, again = book.take(state([[9.0, 3.0]], [[11.0, 2.0]]), 1_005_000)
    assert closed == gap._replace(to_time=1_005_000)
    assert resync.kind == "resync"
    assert (again.update_id, again.time) == (9, 1_005_000)


def test_quotes_are_the_best_level():
    book = WatchedBook(BTC, quotes=True)
    levels = [[10.0, 1.0], [9.0, 5.0]], [[11.0, 1.0]]
    assert book.take(state(*levels, 5, 1_000), NOW) == [
        Quote("BTC_USDT", 10.0, 1.0, 11.0, 1.0, 5, 1_000_000, NOW)
    ]
    assert book.take(state([[10.0, 1.0], [9.0, 6.0]], [[11.0, 1.0]], 6, 1_001), NOW) == []


# Markets and addresses


def test_addresses_are_pointed_elsewhere_with_their_paths():
    urls = {"public": "https://api.x.com/v1", "ws": {"spot": "wss://s.x.com:9443/ws"}, "n": None}
    redirect(urls, Address("http://127.0.0.1:1/x", "ws://127.0.0.1:1/x"))
    assert urls == {
        "public": "http://127.0.0.1:1/x/v1",
        "ws": {"spot": "ws://127.0.0.1:1/x/ws"},
        "n": None,
    }


@pytest.mark.parametrize(
    ("symbol", "name"),
    [("BTC/USDT", "BTC_USDT"), ("BTC/USDT:USDT", "BTC_USDT:USDT"), ("?/USDT", None)],
)
def test_names_of_markets(symbol, name):
    found = instrument_of({"symbol": symbol, "precision": {"price": 0.01}}, True)
    assert (found.symbol if found else None) == name


@pytest.mark.parametrize(
    ("precision", "ticks", "decimals"),
    [(0.01, True, 2), (1e-05, True, 5), (1.0, True, 0), (10.0, True, 0), (4, False, 4)],
)
def test_decimals_of_prices(precision, ticks, decimals):
    market = {"symbol": "BTC/USDT", "precision": {"price": precision}, "active": False}
    found = instrument_of(market, ticks)
    assert (found.price_decimals, found.status) == (decimals, "inactive")
    assert instrument_of({"symbol": "BTC/USDT"}, ticks).price_decimals is None


@pytest.mark.parametrize("ticks", [True, False])
def test_sizes_of_a_market(ticks):
    contract = {
        "symbol": "BTC/USDT:USDT-261225", "base": "BTC", "quote": "USDT", "settle": "USDT",
        "type": "future", "contract": True, "contractSize": 0.1, "taker": 0.0005,
        "precision": {"price": 0.01, "amount": 1} if ticks else {"price": 2, "amount": 0},
        "limits": {"amount": {"min": 2}, "cost": {"min": None}}, "expiry": 1_798_185_600_000,
    }  # fmt: skip
    assert instrument_of(contract, ticks).terms == {
        "kind": "future", "base": "BTC", "quote": "USDT", "settle": "USDT", "contract_size": 0.1,
        "tick_size": 0.01, "lot_size": 0.1, "min_qty": 0.2, "expiry": 1_798_185_600_000_000,
    }  # fmt: skip
    inverse = instrument_of(contract | {"inverse": True}, ticks).terms
    assert not {"lot_size", "min_qty"} & inverse.keys()


def test_contracts_become_base_units():
    linear = Instrument("A_B:B", "A/B:B", detail={"contract_size": 0.001, "inverse": False})
    inverse = Instrument("A_B:A", "A/B:A", detail={"contract_size": 100.0, "inverse": True})
    assert base_units(3.0, 5.0, linear) == 0.003
    assert base_units(3.0, 50.0, inverse) == 6.0


def test_the_bridge_is_opened_by_name():
    feed = open_feed("ccxt:kraken")
    assert isinstance(feed, CcxtFeed)
    assert (feed.venue, feed.exchange) == ("ccxt:kraken", "kraken")


def test_an_unknown_exchange_is_named_with_near_ones():
    with pytest.raises(VenueNotFound, match="did you mean 'ccxt:binance'"):
        CcxtFeed("binanse")


def test_without_ccxt_the_next_step_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ccxt.pro", None)
    with pytest.raises(InvalidParameter, match=r"pip install 'fxlab\[ccxt\]'"):
        CcxtFeed("okx")


def test_an_exchange_that_does_not_answer_is_unavailable():
    async def ask():
        nobody = Address("http://127.0.0.1:9/binance", "ws://127.0.0.1:9/binance")
        async with CcxtFeed("binance", address=nobody, options=SPOT) as feed:
            await feed.instruments()

    with pytest.raises(VenueUnavailable, match="ccxt:binance is not available"):
        asyncio.run(ask())


def test_the_exchanges_clock_is_asked():
    mock, _ = venue()

    async def ask():
        address = Address.under(mock.url, "binance")
        async with CcxtFeed("binance", address=address, options=SPOT) as feed:
            return await feed.server_time()

    with mock:
        assert abs(asyncio.run(ask()) - Clock().now()) < 60_000_000
