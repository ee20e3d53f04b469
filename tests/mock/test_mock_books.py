"""Books as Binance tells them: snapshot and stream join by the documented rule, at any time."""

from __future__ import annotations

import asyncio
import gzip
import json

import httpx
import pytest
from tornado.websocket import websocket_connect

from fxlab.errors import ImportRefused
from fxlab.mock import MockVenue, generated, recorded
from fxlab.mock._market import BookChange, MarketTrade, Truth

PLACES = {
    "binance": ("/binance/stream", "/binance/api/v3/depth"),
    "binance_futures": ("/binance_futures/stream", "/binance_futures/fapi/v1/depth"),
}


def take(venue, count, *, place="binance", at=(0,), followed=0):
    """Return frames of all three streams, and a snapshot after so many frames each.

    It goes on until so many diffs have followed the last snapshot: each frame is looked at once,
    so that the reader is faster than the market.
    """
    stream, depth = PLACES[place]
    path = stream + "?streams=btcusdt@trade/btcusdt@depth@100ms/btcusdt@bookTicker"

    async def run():
        socket = await websocket_connect(venue.url.replace("http", "ws") + path)
        frames, snapshots, newer = [], [], 0
        async with httpx.AsyncClient() as client:
            while len(frames) < count or newer < followed:
                if len(frames) in at:
                    query = {"symbol": "BTCUSDT", "limit": 1_000}
                    snapshots.append((await client.get(venue.url + depth, params=query)).json())
                    newer = 0
                frames.append(await socket.read_message())
                first = json.loads(frames[-1])["data"].get("U", 0) if snapshots else 0
                newer += bool(first) and first > snapshots[-1]["lastUpdateId"]
        socket.close()
        while await socket.read_message() is not None:
            pass
        return frames, snapshots

    return asyncio.run(asyncio.wait_for(run(), 120))


def diffs(frames):
    found = [json.loads(frame)["data"] for frame in frames]
    return [one for one in found if one.get("e") == "depthUpdate"]


def tickers(frames):
    found = (json.loads(frame) for frame in frames)
    return [one["data"] for one in found if one["stream"].endswith("@bookTicker")]


class Kept:
    """A book kept by the rule of the documents, in texts."""

    def __init__(self, snapshot, *, futures):
        self.id, self.futures, self.synced = snapshot["lastUpdateId"], futures, False
        self.sides = {"b": dict(snapshot["bids"]), "a": dict(snapshot["asks"])}

    def follow(self, diff):
        """Apply a diff, or leave it out where the rule says so."""
        if diff["u"] < self.id or (diff["u"] == self.id and not self.futures):
            return
        if not self.synced:
            early = self.id if self.futures else self.id + 1
            assert diff["U"] <= early <= diff["u"]
            self.synced = True
        elif self.futures:
            assert diff["pu"] == self.id
        else:
            assert diff["U"] == self.id + 1
        self.id = diff["u"]
        for name, side in self.sides.items():
            for price, quantity in diff[name]:
                side[price] = quantity
                if float(quantity) == 0:
                    del side[price]

    @property
    def best(self):
        """Return the best bid and ask with their quantities."""
        bid, ask = max(self.sides["b"], key=float), min(self.sides["a"], key=float)
        return bid, self.sides["b"][bid], ask, self.sides["a"][ask]


@pytest.mark.parametrize("place", PLACES)
def test_snapshot_and_diffs_give_the_book_of_the_ticker(place):
    market = generated(["BTC_USDT"], rate=50, book_rate=200)
    with MockVenue(market, speed=20.0) as venue:
        frames, snapshots = take(venue, 2_000, place=place, at=(1, 500, 1_500), followed=10)
    told = {one["u"]: (one["b"], one["B"], one["a"], one["A"]) for one in tickers(frames)}
    for snapshot in snapshots:
        book = Kept(snapshot, futures=place != "binance")
        compared = 0
        for diff in diffs(frames):
            book.follow(diff)
            if book.synced and book.id in told:
                assert book.best == told[book.id]
                compared += 1
        assert compared > 5


def test_an_interval_is_a_tenth_of_a_second():
    with MockVenue(generated(["BTC_USDT"], rate=10, book_rate=500), speed="max") as venue:
        frames, _ = take(venue, 2_000)
    times = [one["E"] for one in diffs(frames)]
    assert times == sorted(set(times))
    assert all(time % 100 == 0 for time in times)


def test_generated_books_never_cross_and_stay_deep():
    market = generated(["BTC_USDT"], seed=9, rate=200, book_rate=300, trades=5_000)
    truth = Truth(market)
    book, deals, time, following = truth.books["BTC_USDT"], [], 0, book_id(market)
    for event in market.events(1_000_000):
        truth.add(event)
        assert event.time >= time
        time = event.time
        if isinstance(event, BookChange):
            assert event.first_id == following + 1 <= event.id
            following = event.id
            bids, asks = book.top()
            assert bids[0][0] < asks[0][0]
            assert min(len(bids), len(asks)) >= 20
            assert all(quantity > 0 for _, quantity in bids + asks)
        else:
            deals.append(event)
    assert [one.id for one in deals] == list(range(deals[0].id, deals[0].id + 5_000))
    assert len({one.time for one in deals}) < 4_000
    assert {one.bought for one in deals} == {True, False}


def book_id(market):
    return market.opening("BTC_USDT").id


def test_symbols_are_merged_by_time_and_independent_of_each_other():
    def of(symbols):
        market = generated(symbols, seed=3, trades=300)
        return [one for one in market.events(0) if one.symbol == "BTC_USDT"]

    both = list(generated(["BTC_USDT", "ETH_USDT"], seed=3, trades=300).events(0))
    assert [one.time for one in both] == sorted(one.time for one in both)
    assert [one for one in of(["BTC_USDT", "ETH_USDT"]) if isinstance(one, MarketTrade)] == [
        one for one in of(["BTC_USDT"]) if isinstance(one, MarketTrade)
    ]


@pytest.fixture(scope="module")
def frames_file(shared_data):
    return shared_data / "binance_spot_btcusdt_20240808" / "frames.jsonl.gz"


def texts(path):
    return [line.partition(b" ")[2] for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_recorded_frames_are_sent_byte_for_byte_with_fitting_snapshots(frames_file):
    lines = [text.decode() for text in texts(frames_file)]
    streamed = [line for line in lines if line.startswith('{"stream"')]
    with MockVenue(recorded(frames_file), speed="max") as venue:
        frames, snapshots = take(venue, len(streamed), at=(1, 20_000))
        said = venue.ledger()
    assert frames == streamed
    deals = [json.loads(line)["data"] for line in streamed if '"e":"trade"' in line]
    told = said["symbols"]["BTC_USDT"]
    assert (told["trades"], told["first_id"]) == (len(deals), deals[0]["t"])
    books = [Kept(snapshot, futures=False) for snapshot in snapshots]
    for diff in diffs(frames):
        for book in books:
            book.follow(diff)
    assert books[0].best == books[1].best


def test_the_recorded_snapshot_is_served_as_it_was(frames_file):
    wanted = next(
        json.loads(text) for text in texts(frames_file) if text.startswith(b'{"lastUpdateId"')
    )
    with MockVenue(recorded(frames_file)) as venue:
        query = {"symbol": "BTCUSDT", "limit": 5_000}
        found = httpx.get(venue.url + "/binance/api/v3/depth", params=query).json()
    assert found == wanted


def test_made_frames_say_what_recorded_ones_say(frames_file):
    """The mock's own wording against the venue's, for every trade and diff of the recording."""
    from fxlab.mock._protocols.binance import Frames

    market = recorded(frames_file)
    made = Frames(market.listings["BTC_USDT"], futures=False)
    for event in market.events(market.start):
        if isinstance(event, MarketTrade):
            recorded_data = json.loads(event.frame[1])["data"]
            made_data = json.loads(made.trade(event))
            assert list(made_data) == list(recorded_data)
            assert made_data | {"E": 0} == recorded_data | {"E": 0}
        elif isinstance(event, BookChange):
            recorded_data = json.loads(event.frame[1])["data"]
            assert json.loads(made.levels(event.bids)) == recorded_data["b"]
            assert json.loads(made.levels(event.asks)) == recorded_data["a"]


def test_a_tape_can_be_moved_to_now(frames_file):
    market = recorded(frames_file, retime=True)
    start = 1_800_000_000_123_000
    still = recorded(frames_file)
    pairs = zip(market.events(start), still.events(still.start), strict=True)
    shift = start - still.start
    for number, (moved, one) in enumerate(pairs):
        assert moved.time - one.time == shift
        if isinstance(moved, MarketTrade):
            assert json.loads(moved.frame[1])["data"]["T"] * 1_000 == moved.time
            assert moved.id == one.id
        if number > 200:
            break


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("1 {}\n", "line 1 is not a recorded frame"),
        ("nonsense\n", "line 1 is not a recorded frame"),
        ("", "frames of 0 symbols"),
        ('1 {"stream":"a@trade","data":[1]}', "line 1"),
    ],
)
def test_files_that_are_no_tape_are_refused(tmp_path, text, match):
    path = tmp_path / "tape.jsonl"
    path.write_text(text)
    with pytest.raises(ImportRefused, match=match):
        recorded(path)
    path.write_bytes(gzip.compress(b"1 {}")[:-6])
    with pytest.raises(ImportRefused, match="cut or damaged"):
        recorded(path)
    with pytest.raises(ImportRefused, match="cannot be read"):
        recorded(tmp_path / "nowhere.gz")
