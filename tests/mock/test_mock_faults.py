"""Each fault does what it says, to the frames the ledger names, and the same for the same seed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import struct
from collections import Counter
from itertools import pairwise

import httpx
import pytest
from tornado.websocket import websocket_connect

from fxlab.errors import InvalidParameter
from fxlab.mock import Faults, MockVenue, _faults, generated

TRADES = "/binance/stream?streams=btcusdt@trade"
COUNT = 2_000


def market(**settings):
    wanted = {"rate": 5_000, "trades": COUNT, "books": False, "start": 1_700_000_000_000_000}
    return generated(["BTC_USDT"], **wanted | settings)


async def connection(venue, path=TRADES):
    """Return the text frames of one connection until it is lost, whatever bytes they are."""
    host, port = venue.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = await reader.readuntil(b"\r\n\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
    frames = []
    with contextlib.suppress(asyncio.IncompleteReadError):
        while True:
            frames.append(await _frame(reader))
    writer.close()
    await writer.wait_closed()
    return frames


async def _frame(reader):
    head, length = await reader.readexactly(2)
    assert head == 0x81
    if length == 126:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", await reader.readexactly(8))
    return await reader.readexactly(length)


def record(faults, *, speed="max", path=TRADES, **settings):
    """Return all frames of as many connections as it takes, and the ledger."""

    async def run(venue):
        over = asyncio.ensure_future(asyncio.to_thread(venue.wait, 60))
        frames = []
        while not over.done():
            reading = asyncio.ensure_future(connection(venue, path))
            await asyncio.wait([reading, over], return_when=asyncio.FIRST_COMPLETED)
            while not reading.done() and over.done():
                # Everything was written before the tape was over; the end is a cut.
                await asyncio.to_thread(venue.cut)
                await asyncio.wait([reading], timeout=0.05)
            frames += await reading
        assert over.result()
        return frames

    with MockVenue(market(**settings), speed=speed, faults=faults) as venue:
        frames = asyncio.run(run(venue))
        return frames, venue.ledger()


def ids(frames):
    return [json.loads(frame)["data"]["t"] for frame in frames]


def happened(said):
    told = said["symbols"]["BTC_USDT"]
    return list(range(told["first_id"], told["last_id"] + 1))


def missing(said):
    unsent = said["venues"]["binance"]["BTC_USDT"]["unsent"]
    return [one for first, last in unsent for one in range(first, last + 1)]


def named(said, fault):
    return [line["id"] for line in said["faults"] if line["fault"] == fault]


def test_dropped_frames_are_those_of_the_ledger():
    frames, said = record(Faults(seed=5, drop=0.05))
    dropped = named(said, "drop")
    assert 50 < len(dropped) < 160
    assert ids(frames) == [one for one in happened(said) if one not in set(dropped)]
    assert missing(said) == dropped
    assert [line["t"] for line in said["faults"] if line["fault"] == "drop"] == dropped


def test_duplicated_frames_come_two_or_three_times():
    frames, said = record(Faults(seed=5, duplicate=0.5))
    times = {line["id"]: line["copies"] for line in said["faults"] if line["fault"] == "duplicate"}
    assert set(times.values()) == {2, 3}
    assert Counter(ids(frames)) == {one: times.get(one, 1) for one in happened(said)}
    assert missing(said) == []


def test_swapped_frames_change_places_with_the_next():
    frames, said = record(Faults(seed=5, swap=0.1))
    heard, expected = ids(frames), happened(said)
    assert sorted(heard) == expected
    wrong = [place for place, one in enumerate(heard) if one != expected[place]]
    assert len(wrong) > 100
    assert all(abs(heard[place] - expected[place]) <= 1 for place in wrong)
    assert missing(said) == []


def test_delayed_frames_come_late_but_come():
    frames, said = record(Faults(seed=5, delay=1.0, delay_seconds=0.05))
    heard = [json.loads(frame)["data"] for frame in frames]
    assert sorted(one["t"] for one in heard) == happened(said)
    assert [one["t"] for one in heard] != happened(said)
    newest = 0
    for one in heard:
        newest = max(newest, one["T"])
        assert newest - one["T"] <= 50
    assert missing(said) == []


def test_garbage_stands_beside_the_good_frame_or_in_its_place():
    frames, said = record(Faults(seed=5, garbage=0.1))
    spoilt = named(said, "garbage")
    assert len(frames) == COUNT + len(spoilt)
    assert missing(said) == []
    frames, said = record(Faults(seed=5, garbage=0.1, garbage_replaces=True))
    assert len(frames) == COUNT
    assert missing(said) == named(said, "garbage") == spoilt


def test_all_at_once_is_the_same_for_the_same_seed():
    def run(seed):
        everything = {"drop": 0.02, "duplicate": 0.3, "swap": 0.1, "delay": 0.2, "garbage": 0.05}
        frames, said = record(Faults(seed=seed, **everything))
        return Counter(frames), [line for line in said["faults"] if line["fault"] != "cut"]

    assert run(1) == run(1)
    assert run(1)[1] != run(2)[1]


def test_a_cut_loses_nothing_that_was_sent_before_and_half_of_the_next():
    frames, said = record(Faults(cut_every=300))
    heard = ids(frames)
    assert len([line for line in said["faults"] if line["fault"] == "cut"]) >= 4
    assert heard == [one for one in happened(said) if one not in set(missing(said))]
    assert len(heard) < COUNT
    assert said["venues"]["binance"]["BTC_USDT"]["sent"] == len(heard)


def test_ids_restart_and_history_has_both_runs():
    frames, said = record(Faults(id_restart_at=1_500))
    heard = ids(frames)
    assert heard[:1_500] == list(range(heard[0], heard[0] + 1_500))
    assert heard[1_500:] == list(range(1, 501))
    restart = [line for line in said["faults"] if line["fault"] == "id_restart"]
    assert [(line["id"], line["previous"]) for line in restart] == [(1, heard[1_499])]
    assert said["symbols"]["BTC_USDT"]["trades"] == COUNT


def test_delisted_symbols_trade_no_more_and_the_venue_says_so():
    with MockVenue(
        generated(["BTC_USDT", "ETH_USDT"], rate=2_000, trades=COUNT),
        speed="max",
        faults=Faults(delist=("ETH_USDT", 0.2)),
    ) as venue:

        async def run():
            path = TRADES + "/ethusdt@trade"
            reading = asyncio.ensure_future(connection(venue, path))
            assert await asyncio.to_thread(venue.wait, 60)
            await asyncio.to_thread(venue.cut)
            return await reading

        frames = asyncio.run(run())
        shown = httpx.get(venue.url + "/binance/api/v3/exchangeInfo").json()["symbols"]
        said = venue.ledger()
    assert [(one["symbol"], one["status"]) for one in shown] == [
        ("BTCUSDT", "TRADING"),
        ("ETHUSDT", "BREAK"),
    ]
    heard = Counter(json.loads(frame)["data"]["s"] for frame in frames)
    assert heard["BTCUSDT"] == COUNT
    assert 0 < heard["ETHUSDT"] == said["symbols"]["ETH_USDT"]["trades"] < COUNT
    assert named_symbols(said, "delist") == ["ETH_USDT"]


def named_symbols(said, fault):
    return [line["symbol"] for line in said["faults"] if line["fault"] == fault]


def test_a_stall_keeps_the_connection_and_sends_nothing():
    async def run(venue):
        socket = await websocket_connect(venue.url.replace("http", "ws") + TRADES)
        before = json.loads(await socket.read_message())["data"]["t"]
        await asyncio.to_thread(venue.stall)
        last = await asyncio.to_thread(lambda: venue.truth.deals["BTC_USDT"].last(1)[0].id)
        while venue.truth.deals["BTC_USDT"].last(1)[0].id < last + 300:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.to_thread(venue.stall, False)
        heard = [before]
        while heard[-1] < last + 300:
            heard.append(json.loads(await socket.read_message())["data"]["t"])
        socket.close()
        while await socket.read_message() is not None:
            pass
        return heard

    with MockVenue(market(rate=3_000, trades=None, start=None)) as venue:
        heard = asyncio.run(asyncio.wait_for(run(venue), 120))
        said = venue.ledger()
    holes = [(one, two) for one, two in pairwise(heard) if two != one + 1]
    assert len(holes) == 1
    assert [holes[0][0] + 1, holes[0][1] - 1] in said["venues"]["binance"]["BTC_USDT"]["unsent"]
    assert [line["fault"] for line in said["faults"]] == ["stall", "speaks"]


def test_a_planned_stall_begins_and_ends_by_itself():
    frames, said = record(Faults(stall_at=0.1, stall_seconds=0.05))
    assert [line["fault"] for line in said["faults"]][:2] == ["stall", "speaks"]
    assert len(frames) + len(missing(said)) == COUNT


def test_rest_errors_come_as_often_as_asked_and_where():
    wrong = Faults(rest_errors={"429 depth": 2, "503": 1, "malformed trades": 1})
    with MockVenue(market(), faults=wrong) as venue, httpx.Client() as client:

        def ask(name):
            return client.get(
                f"{venue.url}/binance/api/v3/{name}",
                params={} if name == "time" else {"symbol": "BTCUSDT"},
            )

        depth = [ask("depth") for _ in range(4)]
        trades = [ask("trades") for _ in range(2)]
        clock = ask("time")
    assert [one.status_code for one in depth] == [429, 429, 503, 200]
    assert depth[0].headers["Retry-After"] == "1"
    with pytest.raises(ValueError, match="Expecting"):
        trades[0].json()
    assert trades[1].json() == []
    assert clock.status_code == 200


@pytest.mark.parametrize(("told", "header"), [(True, "600"), (False, None)])
def test_a_ban_refuses_everything_until_it_is_over(told, header):
    with MockVenue(market()) as venue, httpx.Client() as client:
        url = f"{venue.url}/binance/api/v3/time"
        before = client.get(url)
        venue.ban(418, 600.0, told)
        banned = client.get(url)
        venue.ban(418, 0.0)
        after = client.get(url)
        counts = venue.ledger()["counts"]
    assert [one.status_code for one in (before, banned, after)] == [200, 418, 200]
    assert banned.headers.get("Retry-After") == header
    assert (counts["ban"], counts["rest_error"]) == (2, 1)


def test_a_ban_may_begin_at_a_second():
    frames, said = record(Faults(ban=(429, 0.0, 600.0)))
    assert frames
    assert next(line for line in said["faults"] if line["fault"] == "ban")["status"] == 429


def test_stale_snapshots_are_older_than_anything_streamed():
    with MockVenue(generated(["BTC_USDT"]), faults=Faults(stale_snapshots=2)) as venue:
        found = [
            httpx.get(f"{venue.url}/binance/api/v3/depth?symbol=BTCUSDT").json()["lastUpdateId"]
            for _ in range(3)
        ]
    assert found[0] == found[1] == found[2] - 1_000


def test_the_clock_is_ahead_of_ours():
    with (
        MockVenue(market(start=None)) as right,
        MockVenue(market(start=None), faults=Faults(clock_skew_ms=90_000)) as wrong,
    ):
        times = [
            httpx.get(f"{one.url}/binance/api/v3/time").json()["serverTime"]
            for one in (right, wrong)
        ]
    assert 90_000 <= times[1] - times[0] < 120_000


def test_the_ledger_file_has_every_fault_and_the_totals(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with MockVenue(market(), speed="max", faults=Faults(drop=0.05), ledger=path) as venue:

        async def run():
            reading = asyncio.ensure_future(connection(venue))
            assert await asyncio.to_thread(venue.wait, 60)
            await asyncio.to_thread(venue.cut)
            await reading

        asyncio.run(run())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"ledger": {"seed": 1, "drop": 0.05}}
    assert [line for line in lines if "fault" in line] == venue.ledger()["faults"]
    assert lines[-2]["symbol"] == "BTC_USDT"
    assert lines[-2]["trades"] == COUNT
    assert lines[-1]["closed"]["venues"]["binance"]["BTC_USDT"]["happened"] == COUNT


def test_mutations_are_never_the_frame_and_always_the_same():
    frame = b'{"e":"trade","E":1,"s":"BTCUSDT","t":2,"p":"1.5","q":"2.0","T":1,"m":true}'

    def first(seed):
        source = _faults.mutations(random.Random(seed), frame)
        return [next(source) for _ in range(200)]

    assert first(1) == first(1)
    assert first(1) != first(2)
    assert frame not in first(1)
    assert len(set(first(1))) > 50
    assert max(map(len, first(1))) >= 900_000


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"drop": 1.5}, "drop=1.5 is a share"),
        ({"cut_every": 0}, "cut_every=0"),
        ({"bad_history": 0}, "bad_history=0"),
        ({"rest_errors": {"200": 1}}, "'200' begins with no status"),
    ],
)
def test_impossible_faults_are_refused(wrong, match):
    with pytest.raises(InvalidParameter, match=match):
        Faults(**wrong)


def test_a_client_that_takes_nothing_does_not_hold_the_venue_up():
    async def run(venue):
        host, port = venue.url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), limit=1 << 10)
        writer.write(
            f"GET {TRADES} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        while not any(socket.backlog > 100_000 for socket in everyone(venue)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.to_thread(venue.cut)
        await asyncio.to_thread(venue.stop)
        writer.close()

    venue = MockVenue(market(trades=None), speed="max").start()
    asyncio.run(asyncio.wait_for(run(venue), 120))
    assert not venue._thread.is_alive()


def everyone(venue):
    return list(venue._exchange.publishers["binance"].sockets)
