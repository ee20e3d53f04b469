"""Funding, mark prices, open interest and liquidations: recorded once each, proved, and read."""

from __future__ import annotations

import json
import time
from collections import Counter

import polars as pl
import pytest
from twin_recorder import MemoryJournal, ReadableEncoder

import fxlab
from fxlab import errors
from fxlab.collect._config import Plan
from fxlab.collect._live.checksum import checksum, frame_checksum
from fxlab.collect._live.recorder import FOREVER, Recorder
from fxlab.collect.feed import ChannelRow, Event, Gap, Instrument, Subscription
from fxlab.collect.venues import _binance, _okx
from fxlab.collect.venues._binance_messages import funding, open_interest, parse
from fxlab.collect.venues._websocket import ConnectionClosed, ConnectionOpened
from fxlab.mock import MockVenue, generated
from fxlab.mock import _protocols as protocol
from fxlab.schema import CHANNELS, EVENTS

NOON = 1_735_732_800_000_000
BTC = "BTC_USDT"
EIGHT = NOON + 8 * 3_600_000_000


def recorder(journal, channels=tuple(CHANNELS)):
    return Recorder(
        journal, ReadableEncoder(), "one", [BTC], counts_trades=True, book_depth=0,
        channels=channels,
    )  # fmt: skip


def mark(at, price=100.0, **values):
    told = {"mark_price": price, "funding_rate": 1e-4, "next_funding": EIGHT, **values}
    return ChannelRow(BTC, "mark", told, NOON + at, NOON + at + 40)


def liquidation(at, price=100.0, side="sell"):
    values = {"side": side, "price": price, "volume": 2.0}
    return ChannelRow(BTC, "liquidations", values, NOON + at, NOON + at + 40)


def test_a_state_is_stored_once_and_only_when_it_is_newer():
    journal = MemoryJournal()
    one = recorder(journal)
    one.record([mark(0), mark(0), mark(1_000, 101.0), mark(500, 99.0)], FOREVER)
    rows = journal.rows(CHANNELS["mark"])
    assert [row["mark_price"] for row in rows] == [100.0, 101.0]
    assert [row["seq"] for row in rows] == [1, 2]
    assert one.symbols[BTC].channels["mark"].doubles == 2
    assert one.row_counts() == Counter({(BTC, "mark"): 2})


def test_liquidations_of_one_moment_are_told_apart_by_what_they_say():
    journal = MemoryJournal()
    recorder(journal).record(
        [liquidation(0), liquidation(0), liquidation(0, 101.0), liquidation(0, side="buy")], FOREVER
    )
    rows = journal.rows(CHANNELS["liquidations"])
    assert [(row["price"], row["side"]) for row in rows] == [
        (100.0, "sell"),
        (101.0, "sell"),
        (100.0, "buy"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        mark(0, float("nan")),
        mark(0, 5),
        mark(0, next_funding=-1),
        mark(0, seq=3.0),
        mark(0, symbol="buy"),
        mark(0)._replace(time=0),
        mark(0)._replace(values={}),
        mark(0)._replace(origin="heaven"),
        mark(0)._replace(channel="weather"),
        mark(0)._replace(symbol="ETH_USDT"),
        liquidation(0, side="both"),
    ],
)
def test_what_cannot_be_stored_is_quarantined_and_told(row):
    journal = MemoryJournal()
    one = recorder(journal)
    one.record([row, mark(1)], FOREVER)
    assert one.row_counts() == Counter({(BTC, "mark"): 1})
    assert [event["event"] for event in journal.rows(EVENTS)] == ["quarantine"]


def test_a_later_collector_goes_on_where_the_one_before_was():
    journal = MemoryJournal()
    recorder(journal).record([mark(0), mark(1_000)], FOREVER)
    again = recorder(journal)
    again.record([mark(1_000), mark(9_000)], FOREVER)
    assert [row["seq"] for row in journal.rows(CHANNELS["mark"])] == [1, 2, 3]
    gaps = [row for row in journal.rows(EVENTS) if row["event"] == "gap"]
    assert {json.loads(row["detail"])["what"] for row in gaps} == {"mark"}


@pytest.mark.parametrize("row", [mark(0), mark(0, next_funding=None), liquidation(0)])
def test_the_checksum_of_a_row_is_that_of_its_table(row):
    journal = MemoryJournal()
    one = recorder(journal)
    one.record([row], FOREVER)
    table = CHANNELS[row.channel]
    values = {**row.values, "seq": 1, "timestamp": row.time, "received_at": row.received}
    frame = pl.DataFrame([values]).cast({name: table.frame[name] for name in values})
    missing = [
        pl.lit(None, kind).alias(name) for name, kind in table.frame.items() if name not in values
    ]
    [tally] = one.tallies.values()
    assert tally.checksum == frame_checksum(table, frame.with_columns(missing)) != checksum([[0]])


def test_binance_frames_of_marks_and_liquidations():
    symbols = {"BTCUSDT": BTC}
    told = {"e": "markPriceUpdate", "E": 1_723_161_255_000, "s": "BTCUSDT", "p": "61000.5",
            "i": "61001.25", "P": "60999.0", "r": "-0.00010000", "T": 1_723_190_400_000,
            }  # fmt: skip
    found = parse(json.dumps({"stream": "btcusdt@markPrice@1s", "data": told}), 7, symbols)
    assert found.values == {
        "mark_price": 61000.5,
        "index_price": 61001.25,
        "settle_price": 60999.0,
        "funding_rate": -1e-4,
        "next_funding": 1_723_190_400_000_000,
    }
    assert (found.symbol, found.channel, found.time) == (BTC, "mark", 1_723_161_255_000_000)
    bare = parse(json.dumps({"data": {**told, "r": "", "T": 0}}), 7, symbols)
    assert (bare.values["funding_rate"], bare.values["next_funding"]) == (None, None)
    order = {"s": "BTCUSDT", "S": "SELL", "q": "0.014", "p": "9910", "ap": "9911", "z": "0.010",
             "T": 1_568_014_460_893}  # fmt: skip
    data = {"e": "forceOrder", "E": 1_568_014_460_900, "o": order}
    found = parse(json.dumps({"data": data}), 7, symbols)
    assert found.values == {
        "side": "sell", "price": 9910.0, "average_price": 9911.0, "volume": 0.014, "filled": 0.01,
    }  # fmt: skip
    for change in ({"p": "0"}, {"p": "1e999"}, {"p": 5}, {"s": "ETHUSDT"}, {"E": "now"}):
        assert type(parse(json.dumps({"data": {**told, **change}}), 7, symbols)) is Event
    bad = {**data, "o": {**order, "S": "BOTH"}}
    assert type(parse(json.dumps({"data": bad}), 7, symbols)) is Event


def test_binance_answers_of_open_interest_and_funding():
    row = open_interest(
        {"openInterest": "10659.509", "symbol": "BTCUSDT", "time": 1_589_437_530_011}, BTC, 7
    )
    assert (row.values, row.time) == ({"open_interest": 10659.509}, 1_589_437_530_011_000)
    entry = {"fundingRate": "-0.03750000", "fundingTime": 1_570_608_000_000, "markPrice": ""}
    row = funding(entry, BTC, 7)
    assert row.values == {"rate": -0.0375, "mark_price": None}
    assert row.origin == "backfill"
    with pytest.raises(ValueError, match="no rate"):
        funding({**entry, "fundingRate": ""}, BTC, 7)


ETH = Instrument("ETH_USDT", "ETH-USDT-SWAP", 2, detail={"contract_size": 0.1})


def okx(channel, entry, **arg):
    frame = {"arg": {"channel": channel, **(arg or {"instId": ETH.native})}, "data": [entry]}
    return _okx.parse(json.dumps(frame), 7, {ETH.native: ETH})


def test_okx_frames_of_marks_interest_and_liquidations():
    told = {"instType": "SWAP", "instId": ETH.native, "markPx": "42310.6", "ts": "1630049139746"}
    assert okx("mark-price", told) == [
        ChannelRow("ETH_USDT", "mark", {"mark_price": 42310.6}, 1_630_049_139_746_000, 7)
    ]
    due = {"fundingRate": "-0.0001875", "fundingTime": "1700726400000", "settState": "settled"}
    (announced,) = okx("funding-rate", due)
    assert announced.values == {
        "funding_rate": -0.0001875, "next_funding": 1_700_726_400_000_000,
    }  # fmt: skip
    interest = {"oi": "1741921", "oiCcy": "174192.1", "ts": "1640757489143"}
    (row,) = okx("open-interest", interest)
    assert (row.channel, row.values) == ("open_interest", {"open_interest": 174192.1})
    detail = {
        "bkPx": "2000.5",
        "posSide": "short",
        "side": "buy",
        "sz": "13",
        "ts": "1692266434010",
    }
    orders = {"details": [detail, {**detail, "side": "sell"}], "instId": ETH.native}
    rows = okx("liquidation-orders", orders, instType="SWAP")
    assert [one.values["side"] for one in rows] == ["buy", "sell"]
    assert rows[0].values == {"side": "buy", "price": 2000.5, "volume": 1.3}
    assert okx("liquidation-orders", {**orders, "instId": "XYZ-USDT-SWAP"}, instType="SWAP") == []
    for channel, entry in (
        ("mark-price", {**told, "markPx": "0"}),
        ("mark-price", {**told, "ts": 5}),
        ("funding-rate", {**due, "fundingRate": ""}),
        ("funding-rate", {**due, "fundingRate": "nan"}),
        ("open-interest", {**interest, "oi": "-1"}),
        ("liquidation-orders", {**orders, "details": [{**detail, "side": "both"}]}),
    ):
        (event,) = okx(channel, entry)
        assert type(event) is Event


def test_an_okx_mark_price_has_the_funding_that_was_announced_last():
    run = _okx.OkxRun(_okx.OkxSwap(), Subscription((ETH,), trades=False, channels=("mark",)))
    ((group, _),) = run.connections()
    assert [one["channel"] for one in group.topics] == ["mark-price", "funding-rate"]

    def frame(channel, **entry):
        arg = {"channel": channel, "instId": ETH.native}
        return json.dumps({"arg": arg, "data": [entry]}), 7

    marks = [frame("mark-price", markPx="100", ts=str(1_630_049_139_746 + n)) for n in range(2)]
    due = frame("funding-rate", fundingRate="0.0001", fundingTime="1700726400000")
    first, second = run.frames([marks[0], due, marks[1]])
    assert first.values == {"mark_price": 100.0}
    assert second.values == {
        "mark_price": 100.0, "funding_rate": 1e-4, "next_funding": 1_700_726_400_000_000,
    }  # fmt: skip


def test_a_connection_that_is_lost_is_a_gap_of_what_it_carries():
    wanted = Subscription((ETH,), trades=False, channels=("liquidations", "funding"))
    run = _okx.OkxRun(_okx.OkxSwap(), wanted)
    ((group, _),) = run.connections()
    run._start = lambda _: None
    assert run.closed(group, ConnectionClosed("refused", 4)) == []  # it was never open
    assert run.opened(group, ConnectionOpened(1, 5)) == []
    (gap,) = run.closed(group, ConnectionClosed("cut", 9))
    assert gap == Gap("ETH_USDT", "liquidations", 9, None, None, "cut")
    again, ended = run.opened(group, ConnectionOpened(2, 12))
    assert (again.kind, ended) == ("reconnect", gap._replace(to_time=12))


def test_channels_are_checked_before_anything_is_written(lab):
    with pytest.raises(errors.InvalidParameter, match=r"channels='marks' is no channel.*mark"):
        Plan.of("binance_futures", BTC, channels=["marks"])
    plan = Plan.of("binance_futures", BTC, channels=["liquidations", "mark", "mark"])
    assert plan.channels == ("mark", "liquidations")
    assert plan.data_types == ["prices", "orderbook", "mark", "liquidations"]
    with (
        MockVenue(generated([BTC], seed=1, rate=100, trades=20)) as venue,
        pytest.raises(errors.InvalidParameter, match="binance gives no mark to record"),
    ):
        lab.collect("binance", BTC, url=venue.url, channels="mark")


def told(venue, channel, name):
    """Return what the mock said of a channel: time and one value, as a number."""
    truth = venue.truth.channels.get(channel, [])
    return [(at, float(values[name])) for _, at, values in truth]


def read(frame, name):
    return list(zip(frame["timestamp"].to_physical().to_list(), frame[name].to_list(), strict=True))


@pytest.mark.parametrize("name", ["binance_futures", "okx_swap"])
def test_what_a_venue_says_is_recorded_proved_and_read(name, lab, unique, monkeypatch, tmp_path):
    monkeypatch.setattr(protocol, "FUNDING_US", 1_000_000)
    monkeypatch.setattr(_binance, "ASKED_EVERY", {"open_interest": 0.2, "funding": 0.3})
    monkeypatch.setattr(_okx, "FUNDING_EVERY", 0.3)
    with MockVenue(generated([BTC], seed=1, rate=200, trades=800)) as venue:
        collector = lab.collect(
            name, BTC, url=venue.url, channels=list(CHANNELS), book_depth=0,
            session_id=unique("live"), settle=0,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while len(told(venue, "mark", "mark_price")) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        session = collector.stop()
        assert session.data_types == ("prices", *CHANNELS)
        for channel, column, frame in (
            ("mark", "mark_price", session.mark_prices()),
            ("liquidations", "price", session.liquidations()),
            ("liquidations", "volume", session.liquidations()),
            ("open_interest", "open_interest", session.open_interest()),
        ):
            truth = told(venue, channel, column)
            found = read(frame, column)
            assert found == truth[: len(found)]
            assert len(truth) - len(found) <= 2  # what came while it was stopped
            assert found, channel
            assert collector.status().channels[channel] == len(found)
    paid = session.funding().filter("paid")
    assert paid.height >= 1
    for at, rate in read(paid, "rate"):
        assert rate == float(protocol.funding_rate(at))
    due = session.funding()
    result = fxlab.backtest(session, "buy_and_hold")
    assert 0 < result.run.recorded_funding == len(result.execution.rates) <= due.height
    assert {rate[2] for rate in result.execution.rates} <= {*due["rate"]}
    assert fxlab.backtest(session, "buy_and_hold").fingerprint == result.fingerprint
    swept = fxlab.sweep(session, "buy_and_hold", {"exposure": [1.0]}, check_lookahead=False)
    assert swept.table["fingerprint"].to_list() == [result.fingerprint]
    written = session.export(tmp_path / "out")
    assert {*CHANNELS, "prices"} == {*written["data_type"]}
    marks = next(path for path in written["file"] if path.endswith("_mark.parquet"))
    assert pl.read_parquet(marks)["mark_price"].equals(session.mark_prices()["mark_price"])
    report = lab.import_files(tmp_path / "out", session_id=unique("again"))
    assert len(report.skipped) == len(CHANNELS)
    assert report.rows == session.prices_count
    receipt = lab.verify(session.id)
    assert receipt.whole, receipt.problems
    assert {*CHANNELS} <= {*receipt.lines["data_type"]}
    assert {*CHANNELS} <= {*session.counts()["data_type"]}
    assert session.events().is_empty(), session.events()


def test_a_gap_of_mark_prices_is_no_gap_of_the_ticks(lab, unique):
    from scripted_feed import SYMBOL, Scripted, trade

    class Marks(Scripted):
        channels = ("mark",)

    gap = Gap(SYMBOL, "mark", NOON, NOON + 1_000_000, None, "the connection was lost")
    rows = [mark(1)._replace(symbol=SYMBOL), gap, trade(1), mark(2_000_000)._replace(symbol=SYMBOL)]
    collector = lab.collect(
        Marks(rows, after=None), SYMBOL, session_id=unique("live"), settle=0, channels="mark"
    )
    session = collector.wait(60)
    assert session.gap_list()["data_type"].to_list() == ["mark"]
    assert session.gaps().is_empty()
    assert session.gaps(data_type="mark").height == 1
    assert session.mark_prices().height == 2
    assert lab.verify(session.id).whole
