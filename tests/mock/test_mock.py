"""The mock venue over real sockets, asked by a plain client: its word against its own ledger."""

from __future__ import annotations

import asyncio
import json
import time
import zlib

import httpx
import numpy as np
import pytest
from tornado.websocket import websocket_connect

from fxlab.errors import InvalidParameter, PortTaken, SymbolNotFound, VenueNotFound
from fxlab.mock import Faults, MockVenue, generated

BINANCE = "/binance/stream?streams=btcusdt@trade"


def market(**settings):
    return generated(["BTC_USDT"], **{"rate": 5_000, "trades": 3_000, "books": False} | settings)


def listen(venue, path=BINANCE, *, messages=None, send=(), until=None):
    """Return the frames of one connection, until it has so many, or ends."""

    async def run():
        socket = await websocket_connect(venue.url.replace("http", "ws") + path)
        for text in send:
            await socket.write_message(text)
        frames = []
        while messages is None or len(frames) < messages:
            frame = await socket.read_message()
            if frame is None:
                break
            frames.append(frame)
            if frame == until:
                break
        socket.close()
        while await socket.read_message() is not None:
            pass
        return frames

    return asyncio.run(asyncio.wait_for(run(), 120))


def get(venue, path, **query):
    return httpx.get(venue.url + path, params=query)


def trades(frames):
    return [json.loads(frame)["data"] for frame in frames]


def test_every_trade_is_sent_once_and_in_order():
    with MockVenue(market(), speed="max") as venue:
        heard = trades(listen(venue, messages=3_000))
        assert venue.wait(120)
        said = venue.ledger()
    told = said["symbols"]["BTC_USDT"]
    assert [one["t"] for one in heard] == list(range(told["first_id"], told["last_id"] + 1))
    assert told["trades"] == 3_000
    assert sum(round(float(one["q"]) * 1e5) for one in heard) == round(float(told["sum_qty"]) * 1e5)
    assert said["venues"]["binance"]["BTC_USDT"] == {
        "sent_first_id": told["first_id"],
        "happened": 3_000,
        "sent": 3_000,
        "unsent": [],
    }
    assert said["frames"]["binance"] == {"btcusdt@trade": 3_000}
    assert said["faults"] == []


def test_checksum_can_be_computed_from_what_was_heard():
    with MockVenue(market(), speed="max") as venue:
        heard = trades(listen(venue, messages=3_000))
        told = venue.ledger()["symbols"]["BTC_USDT"]
    columns = [
        [one["t"] for one in heard],
        [one["T"] * 1_000 for one in heard],
        [round(float(one["p"]) * 10 ** told["price_decimals"]) for one in heard],
        [round(float(one["q"]) * 10 ** told["quantity_decimals"]) for one in heard],
        [not one["m"] for one in heard],
    ]
    value = 0
    for column in columns:
        value = zlib.crc32(np.array(column, dtype="<i8").tobytes(), value)
    assert told["checksum"] == f"{value:08x}"


def test_same_seed_same_bytes_and_another_seed_others():
    def bytes_of(seed):
        with MockVenue(market(seed=seed, start=1_700_000_000_000_000), speed="max") as venue:
            return listen(venue, messages=3_000)

    assert bytes_of(3) == bytes_of(3)
    assert bytes_of(3) != bytes_of(4)


def test_streams_are_subscribed_by_message_too_and_acknowledged():
    ask = json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": 7})
    with MockVenue(market(), speed="max") as venue:
        frames = listen(venue, "/binance/ws", messages=11, send=[ask])
    assert json.loads(frames[0]) == {"result": None, "id": 7}
    raw = json.loads(frames[1])
    assert list(raw) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]
    assert (raw["e"], raw["s"], len(raw["p"].partition(".")[2])) == ("trade", "BTCUSDT", 8)


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"method":"DANCE","id":1}', "null"])
def test_nonsense_gets_an_error_and_no_end(text):
    listed = json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 2})
    with MockVenue(market()) as venue:
        error, answer = listen(venue, "/binance/stream", messages=2, send=[text, listed])
    assert "error" in json.loads(error)
    assert json.loads(answer) == {"result": [], "id": 2}


def test_unsubscribed_streams_fall_silent():
    off = json.dumps({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 1})
    listed = json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 2})
    with MockVenue(market(trades=None)) as venue:
        frames = listen(venue, send=[off, listed], until='{"result":[],"id":2}')
        quiet = [number for number, frame in enumerate(frames) if '"id":1' in frame]
        assert frames[quiet[0] + 1 :] == ['{"result":[],"id":2}']


def test_history_is_served_by_id():
    with MockVenue(market(), speed="max") as venue:
        heard = trades(listen(venue, messages=3_000))
        first = heard[100]["t"]
        rows = get(
            venue, "/binance/api/v3/historicalTrades", symbol="BTCUSDT", fromId=first, limit=1_000
        ).json()
        newest = get(venue, "/binance/api/v3/trades", symbol="BTCUSDT", limit=10).json()
        truth = get(venue, "/truth/BTC_USDT", from_id=first, limit=3).json()
        early = get(venue, "/binance/api/v3/aggTrades", symbol="BTCUSDT", fromId=0, limit=2).json()
    assert [(one["id"], one["price"], one["qty"], one["time"]) for one in rows] == [
        (one["t"], one["p"], one["q"], one["T"]) for one in heard[100:1_100]
    ]
    assert [one["id"] for one in newest] == [one["t"] for one in heard[-10:]]
    assert [one["id"] for one in truth] == [first, first + 1, first + 2]
    assert [one["a"] for one in early] == [heard[0]["t"], heard[1]["t"]]


def test_wrong_questions_get_the_venues_errors():
    with MockVenue(market()) as venue:
        unknown = get(venue, "/binance/api/v3/depth", symbol="NOPE")
        illegal = get(venue, "/binance/api/v3/trades", symbol="BTCUSDT", limit="many")
        nowhere = get(venue, "/binance/api/v9/depth", symbol="BTCUSDT")
        nobody = get(venue, "/bitmex/api")
        keyless = get(venue, "/binance_futures/fapi/v1/historicalTrades", symbol="BTCUSDT")
    assert (unknown.status_code, unknown.json()["code"]) == (400, -1121)
    assert (illegal.status_code, illegal.json()["code"]) == (400, -1100)
    assert nowhere.status_code == 404
    assert nobody.status_code == 404
    assert "binance" in nobody.json()["error"]
    assert keyless.status_code == 401


def test_instruments_name_decimals_and_status():
    with MockVenue(generated(["BTC_USDT", "ETH_USDT"])) as venue:
        both = get(venue, "/binance/api/v3/exchangeInfo").json()["symbols"]
        one = get(venue, "/binance/api/v3/exchangeInfo", symbol="ETHUSDT").json()["symbols"]
        futures = get(venue, "/binance_futures/fapi/v1/exchangeInfo").json()["symbols"]
    assert [(sym["symbol"], sym["status"]) for sym in both] == [
        ("BTCUSDT", "TRADING"),
        ("ETHUSDT", "TRADING"),
    ]
    assert one[0]["baseAsset"] == "ETH"
    assert one[0]["filters"][0]["tickSize"] == "0.01000000"
    assert futures[0]["contractType"] == "PERPETUAL"
    assert futures[0]["filters"][0]["tickSize"] == "0.01"


def test_a_paced_market_goes_on_while_nobody_listens():
    with MockVenue(market(rate=2_000, trades=None)) as venue:
        first = trades(listen(venue, messages=20))
        before = venue.ledger()["symbols"]["BTC_USDT"]["last_id"]
        while venue.ledger()["symbols"]["BTC_USDT"]["last_id"] < before + 200:
            time.sleep(0.01)
        second = trades(listen(venue, messages=20))
        unsent = venue.ledger()["venues"]["binance"]["BTC_USDT"]["unsent"]
    last, again = first[-1]["t"], second[0]["t"]
    assert again > before
    assert any(low <= again - 1 <= high for low, high in unsent)
    assert all(low > last for low, _ in unsent)


def test_times_are_now_unless_the_market_says_otherwise():
    begun = time.time_ns() // 1_000_000
    with MockVenue(market(rate=1_000)) as venue:
        heard = trades(listen(venue, messages=10))
        clock = get(venue, "/binance/api/v3/time").json()["serverTime"]
    assert begun - 1 <= heard[0]["T"] <= clock <= time.time_ns() // 1_000_000
    with MockVenue(market(start=1_700_000_000_000_000), speed="max") as venue:
        assert trades(listen(venue, messages=1))[0]["T"] // 1_000 == 1_700_000_000


def test_what_cannot_be_served_is_refused_by_name():
    with pytest.raises(VenueNotFound, match="did you mean 'binance'"):
        MockVenue(venues=["binanse"])
    with pytest.raises(InvalidParameter, match="speed=0"):
        MockVenue(speed=0)
    with pytest.raises(SymbolNotFound, match="BTC_USDT"):
        MockVenue(faults=Faults(delist=("BTC_USD", 1.0)))
    with MockVenue() as venue, pytest.raises(PortTaken, match="choose another"):
        MockVenue(port=int(venue.url.rpartition(":")[2])).start()


def test_futures_speak_their_own_dialect_and_are_counted_too():
    path = "/binance_futures/stream?streams=btcusdt@trade/btcusdt@aggTrade"
    with MockVenue(market(trades=100), speed="max") as venue:
        heard = trades(listen(venue, path, messages=200))
        assert venue.wait(120)
        told = venue.ledger()["venues"]["binance_futures"]["BTC_USDT"]
        depth = get(venue, "/binance_futures/fapi/v1/depth", symbol="BTCUSDT").json()
    plain, aggregates = heard[::2], heard[1::2]
    assert [(one["t"], one["p"], one["q"]) for one in plain] == [
        (one["a"], one["p"], one["q"]) for one in aggregates
    ]
    assert {one["X"] for one in plain} == {"MARKET"}
    assert len(plain[0]["p"].partition(".")[2]) == 2
    assert (told["happened"], told["sent"], told["unsent"]) == (100, 100, [])
    assert depth["E"] > 0


def test_trouble_by_hand_from_another_process():
    with MockVenue(market(rate=1_000, trades=None)) as venue:

        async def run():
            socket = await websocket_connect(venue.url.replace("http", "ws") + BINANCE)
            await socket.read_message()
            async with httpx.AsyncClient() as client:
                assert (await client.post(venue.url + "/stall")).status_code == 200
                assert (await client.post(venue.url + "/speak")).status_code == 200
                assert (await client.post(venue.url + "/cut")).status_code == 200
            while await socket.read_message() is not None:
                pass
            socket.close()

        asyncio.run(asyncio.wait_for(run(), 120))
        assert httpx.get(venue.url + "/cut").status_code == 404
        assert httpx.get(venue.url + "/truth/BTC_USDT?limit=x").status_code == 400
        said = venue.ledger()
    assert [line["fault"] for line in said["faults"]] == ["stall", "speaks", "cut"]


@pytest.mark.parametrize("speed", [1.0, "max"])
def test_a_market_stands_still_where_it_is_told_to(speed):
    endless = market(trades=None, rate=1_000, start=1_700_000_000_000_000)

    def still():
        while venue.ledger()["running"]:
            time.sleep(0.005)
        return venue.ledger()["symbols"]["BTC_USDT"]

    async def story():
        socket = await websocket_connect(venue.url.replace("http", "ws") + BINANCE)
        first = await asyncio.to_thread(still)
        clock = get(venue, "/binance/api/v3/time").json()["serverTime"]
        again = await asyncio.to_thread(still)
        venue.go_on(0.2)
        second = await asyncio.to_thread(still)
        heard = [await socket.read_message() for _ in range(second["trades"])]
        venue.go_on()
        heard.append(await socket.read_message())
        venue.stand_still()
        third = await asyncio.to_thread(still)
        heard += [await socket.read_message() for _ in range(third["trades"] - len(heard))]
        socket.close()
        while await socket.read_message() is not None:
            pass
        return first, clock, again, second, third, trades(heard)

    with MockVenue(endless, speed=speed, until=0.1) as venue:
        told = asyncio.run(asyncio.wait_for(story(), 120))
    first, clock, again, second, third, heard = told
    assert clock == 1_700_000_000_100
    assert first == again
    assert 0 < first["trades"] < second["trades"] < third["trades"]
    assert [one["t"] for one in heard] == list(range(first["first_id"], third["last_id"] + 1))
    ends = [heard[one["trades"] - 1]["T"] - 1_700_000_000_000 for one in (first, second)]
    assert ends[0] <= 100 < heard[first["trades"]]["T"] - 1_700_000_000_000
    assert ends[1] <= 200


def test_a_market_begins_when_all_its_listeners_are_there():
    with MockVenue(market(trades=50), speed="max", listeners=2) as venue:
        ask = json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 1})
        heard = [json.loads(one) for one in listen(venue, messages=101, send=[ask])]
    assert heard[0]["id"] == 1
    for place, stream in enumerate(("btcusdt@trade", "btcusdt@aggTrade")):
        assert [one["stream"] for one in heard[1 + place :: 2]] == [stream] * 50
