"""A wire delivers everything in order, says what happened to it, and comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import pytest
from small_venue import raw_frame, saying, serving, socket_route

from fxlab.collect.feed import Address, Clock, Damaged, quarantine
from fxlab.collect.venues import _websocket
from fxlab.collect.venues._websocket import (
    ConnectionClosed,
    ConnectionOpened,
    ReconnectingWebSocket,
)
from fxlab.errors import InvalidInput

LIMIT = 1_000


def wire(host, **options):
    return ReconnectingWebSocket(f"ws://{host}/s", clock=Clock(), rng=random.Random(1), **options)


def run(script, until, **options):
    """Return all arrivals until `until` says so, and the connections the server saw."""

    async def story():
        log = []
        async with serving(socket_route("/s", script, log)) as host:
            arrivals = []
            async with contextlib.aclosing(wire(host, **options).arrivals()) as stream:
                async with asyncio.timeout(60):
                    async for arrival in stream:
                        arrivals.append(arrival)
                        if until(arrivals):
                            break
            return arrivals, log

    return asyncio.run(story())


def texts(arrivals):
    return [text for one in arrivals if isinstance(one, list) for text, _ in one]


def reasons(arrivals):
    return [one.reason for one in arrivals if isinstance(one, ConnectionClosed)]


async def idle(socket, _number):
    pass


def test_frames_come_in_order_with_their_arrival():
    async def script(socket, _number):
        for number in range(3_000):
            await socket.send_raw(raw_frame(f"frame {number}"))

    arrivals, _ = run(script, lambda found: len(texts(found)) >= 3_000)
    assert isinstance(arrivals[0], ConnectionOpened)
    assert arrivals[0].number == 1
    assert texts(arrivals) == [f"frame {number}" for number in range(3_000)]
    times = [time for one in arrivals[1:] for _, time in one]
    assert times == sorted(times)
    assert times[0] >= arrivals[0].time - 1_000_000


def test_it_comes_back_and_says_its_opening_again():
    async def script(socket, number):
        while len(socket.heard) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await socket.write_message("hello")
        if number == 1:
            socket.close(1001, "maintenance")
        elif number == 2:
            socket.cut()

    arrivals, log = run(
        script, lambda found: len(texts(found)) == 3, opening=lambda: ["one", "two"]
    )
    assert [socket.heard[:2] for socket in log] == [["one", "two"]] * 3
    assert [one.number for one in arrivals if isinstance(one, ConnectionOpened)] == [1, 2, 3]
    assert reasons(arrivals) == [
        "closed by the venue: code 1001 maintenance",
        "cut by the venue: code 1006",
    ]


def test_silence_is_noticed():
    arrivals, _ = run(idle, lambda found: len(reasons(found)) == 2, silence=0.05)
    assert reasons(arrivals) == ["silent for 0.05 s"] * 2


def test_an_answered_heartbeat_is_not_silence():
    async def script(socket, _number):
        told = 0
        while told < 25:
            await asyncio.sleep(0.01)
            if len(socket.heard) > told:
                told += 1
                await socket.send_raw(raw_frame(b"", opcode=9))
        await socket.write_message("done")

    arrivals, log = run(
        script, lambda found: "done" in texts(found), silence=0.5, heartbeat=("beat", 0.05)
    )
    assert reasons(arrivals) == []
    assert set(log[0].heard) == {"beat"}


def test_damaged_frames_leave_the_others_alone():
    async def script(socket, _number):
        while not socket.heard:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await socket.send_raw(
            raw_frame("a")
            + raw_frame(b"\xff\xfe")
            + raw_frame("b")
            + raw_frame("x" * 1_001)
            + raw_frame(b"\x00\x01", opcode=2)
            + raw_frame("c")
        )
        await socket.send_raw(raw_frame("y" * 3_900) + raw_frame("d"))

    arrivals, _ = run(
        script,
        lambda found: "d" in texts(found),
        max_message_bytes=LIMIT,
        opening=lambda: ["go"],
    )
    found = texts(arrivals)
    assert reasons(arrivals) == []
    assert [one for one in found if isinstance(one, str)] == ["a", "b", "c", "d"]
    causes = [getattr(one, "cause", None) for one in found if isinstance(one, bytes)]
    assert causes == ["not UTF-8", "larger than 1,000 bytes", None, "larger than 1,000 bytes"]


def test_broken_protocol_is_a_reason_to_connect_again():
    async def script(socket, number):
        if number == 1:
            await socket.send_raw(raw_frame("good") + b"\xf1\x01a")
        else:
            await socket.write_message("again")

    arrivals, _ = run(script, lambda found: "again" in texts(found))
    assert texts(arrivals) == ["good", "again"]
    assert reasons(arrivals) == ["cut by the venue: code 1006"]


def test_a_refused_handshake_says_so():
    arrivals, _ = run_elsewhere(b"HTTP/1.1 451 Unavailable\r\nContent-Length: 0\r\n\r\n")
    assert reasons(arrivals) == ["refused with HTTP 451 Unavailable"] * 2
    assert not any(isinstance(one, ConnectionOpened) for one in arrivals)
    arrivals, _ = run_elsewhere(b"HTTP/1.1 200 Fine\r\nContent-Length: 0\r\n\r\n")
    assert all("does not speak WebSocket" in reason for reason in reasons(arrivals))
    arrivals, _ = run_elsewhere(b"")
    assert all("hung up during the handshake" in reason for reason in reasons(arrivals))


def test_tls_failures_are_named():
    arrivals, _ = run_elsewhere(b"HTTP/1.1 400 Bad\r\n\r\n", scheme="wss")
    assert all(reason.startswith("TLS: ") for reason in reasons(arrivals))


def test_nobody_there(free_ports):
    async def story():
        nowhere = ReconnectingWebSocket(f"ws://127.0.0.1:{free_ports(1)[0]}/s", clock=Clock())
        async with contextlib.aclosing(nowhere.arrivals()) as arrivals:
            return [await anext(arrivals) for _ in range(2)]

    arrivals = asyncio.run(story())
    assert all("cannot be reached" in reason for reason in reasons(arrivals))


def run_elsewhere(answer, scheme="ws"):
    """Return two arrivals from a server that only ever says `answer`."""

    async def story():
        async with saying(answer, hang_up=not answer) as (host, _):
            tried = ReconnectingWebSocket(f"{scheme}://{host}/s", clock=Clock(), timeout=5.0)
            async with contextlib.aclosing(tried.arrivals()) as arrivals:
                return [await anext(arrivals) for _ in range(2)], None

    return asyncio.run(story())


def test_a_slow_reader_holds_the_venue_back_and_loses_nothing(monkeypatch):
    monkeypatch.setattr(_websocket, "MOST_WAITING_BYTES", 1 << 20)
    block = raw_frame("z" * 1_000) * 100
    sent = []

    async def script(socket, _number):
        for _ in range(500):
            await socket.send_raw(block)
            sent.append(100)

    async def story():
        log, taken = [], 0
        async with serving(socket_route("/s", script, log)) as host:
            here = wire(host)
            async with contextlib.aclosing(here.arrivals()) as arrivals:
                await anext(arrivals)
                while not here._link.paused:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
                waiting = here._link._waiting_bytes
                assert waiting < 4 << 20
                assert sum(sent) < 50_000
                while taken < 50_000:
                    taken += len(await anext(arrivals))
        return taken

    assert asyncio.run(story()) == 50_000


def test_many_frames_are_handed_over_in_portions():
    async def script(socket, _number):
        await socket.send_raw(raw_frame("n") * 20_000)

    arrivals, _ = run(script, lambda found: len(texts(found)) >= 20_000)
    assert len(texts(arrivals)) == 20_000
    assert max(len(one) for one in arrivals if isinstance(one, list)) <= 4_096


def test_drop_and_send():
    async def story():
        log = []
        async with serving(socket_route("/s", idle, log)) as host:
            here = wire(host)
            await here.send("nobody hears it")
            here.drop("nothing to drop")
            async with contextlib.aclosing(here.arrivals()) as arrivals:
                await anext(arrivals)
                await here.send("heard")
                while not log[0].heard:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
                here.drop("wanted")
                closed = await anext(arrivals)
                opened = await anext(arrivals)
                return log[0].heard, closed.reason, opened.number

    assert asyncio.run(story()) == (["heard"], "wanted", 2)


async def endless(socket, number):
    """Send frames that say of which connection they are, until it is closed."""
    for count in itertools.count():
        await socket.send_raw(raw_frame(f"{number} {count}"))
        await asyncio.sleep(0.005)


def test_a_second_connection_that_fails_is_made_again_while_the_first_lasts(monkeypatch):
    """It is refused, cut, silent, and cut again when it had delivered, before one takes over."""
    monkeypatch.setattr(_websocket, "OVERLAP", 0.1)
    monkeypatch.setattr(_websocket, "FIRST_WAIT", 0.01)

    async def script(socket, number):
        match number:
            case 2:
                socket.cut()
            case 3:
                await idle(socket, number)
            case 4:
                await socket.write_message("4 0")
                socket.cut()
            case _:
                await endless(socket, number)

    arrivals, log = run(
        script,
        lambda found: any(text.startswith("5 ") for text in texts(found)),
        lifetime=0.05, silence=0.5,
    )  # fmt: skip
    assert len(log) == 5
    assert reasons(arrivals) == []
    firsts = [text for text in texts(arrivals) if text.startswith("1 ")]
    assert firsts == [f"1 {count}" for count in range(len(firsts))]
    assert {text[0] for text in texts(arrivals)} == {"1", "5"}


@pytest.mark.parametrize("early", [True, False], ids=["before it delivers", "after"])
def test_the_second_connection_takes_over_at_once_where_the_first_is_cut(early, monkeypatch):
    monkeypatch.setattr(_websocket, "OVERLAP", 600.0)
    ready = asyncio.Event()
    delivers = _websocket.WebSocketConnection.delivers

    async def told(link):
        found = await delivers(link)
        ready.set()
        return found

    monkeypatch.setattr(_websocket.WebSocketConnection, "delivers", told)

    async def script(socket, number):
        if number == 1:
            await socket.write_message("1 0")
            await ready.wait()
            socket.cut()
        elif early and number == 2:
            ready.set()
        else:
            await endless(socket, number)

    arrivals, _ = run(script, lambda found: len(texts(found)) > 10, lifetime=0.05)
    if early:
        assert reasons(arrivals) == ["cut by the venue: code 1006"]
        assert {text[0] for text in texts(arrivals)} == {"1", "3"}
    else:
        assert reasons(arrivals) == []
        assert [one for one in arrivals if isinstance(one, ConnectionOpened)] == arrivals[:1]
        assert texts(arrivals)[:3] == ["1 0", "2 0", "2 1"]


def test_cancelling_closes_the_socket():
    async def story():
        log = []
        async with serving(socket_route("/s", idle, log)) as host:

            async def read():
                async with contextlib.aclosing(wire(host).arrivals()) as arrivals:
                    async for _ in arrivals:
                        pass

            reader = asyncio.ensure_future(read())
            while not log:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
            async with asyncio.timeout(60):
                while not log[0].closed:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

    asyncio.run(story())


def test_cancelling_while_it_connects_leaves_nothing_behind():
    async def story():
        async with saying(b"") as (host, talks):
            arrivals = wire(host, timeout=60.0).arrivals()
            first = asyncio.ensure_future(anext(arrivals))
            while not talks:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            await arrivals.aclose()
            async with asyncio.timeout(10):
                await asyncio.gather(*talks)

    asyncio.run(story())


def test_waits_grow_while_nothing_comes_and_stay_short_while_data_flows():
    here = wire("nowhere")
    waits = [here._wait() for _ in range(12)]
    assert all(0.05 * 2**n <= wait <= 0.1 * 2**n for n, wait in enumerate(waits[:6]))
    assert all(5.0 <= wait <= 10.0 for wait in waits[8:])
    here._delivered = True
    assert here._wait() <= 1.0
    other = ReconnectingWebSocket("ws://nowhere", clock=Clock(), rng=random.Random(1))
    assert [other._wait() for _ in range(12)] == waits


def test_quarantine_keeps_the_cause_and_the_beginning():
    event = quarantine("cut JSON", "x" * 1_000, 5, "BTC_USDT")
    assert event == ("quarantine", "BTC_USDT", 5, 1, "cut JSON: " + "x" * 300)
    assert quarantine("?", Damaged(b"\xffab", "not UTF-8"), 5).detail == "not UTF-8: \\xffab"


def test_addresses():
    address = Address.under("http://127.0.0.1:8765/", "kraken")
    assert address == Address("http://127.0.0.1:8765/kraken", "ws://127.0.0.1:8765/kraken")
    assert Address.under("https://proxy", "mexc").stream == "wss://proxy/mexc"
    for wrong in ("127.0.0.1:8765", "ftp://host", "http://", ""):
        with pytest.raises(InvalidInput, match="http"):
            Address.under(wrong, "kraken")
