"""Listeners beside a recording: they hear all or are told what they missed, and hold nothing up."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from scripted_feed import trades

from fxlab.collect import collector as module
from fxlab.collect.collector import Subscribers


def test_all_messages_in_their_order_from_another_thread():
    async def run():
        subscribers = Subscribers()
        listener, other = subscribers.add(None), subscribers.add(["B"])

        def work():
            for first in range(0, 3_000, 10):
                subscribers.publish(trades(*range(first, first + 10)))
            subscribers.publish(trades(1, symbol="B"))
            subscribers.end()

        thread = threading.Thread(target=work)
        thread.start()
        heard = [message async for message in listener]
        assert [message async for message in other] == trades(1, symbol="B")
        thread.join()
        return heard, listener.missed

    heard, missed = asyncio.run(run())
    assert heard == [*trades(*range(3_000)), *trades(1, symbol="B")]
    assert missed == 0


def test_a_slow_listener_loses_the_oldest_and_is_told(monkeypatch):
    monkeypatch.setattr(module, "MOST_WAITING", 5)

    async def run():
        subscribers = Subscribers()
        listener = subscribers.add(None)
        subscribers.publish(trades(1, 2, 3))
        subscribers.publish(trades(4, 5, 6, 7))
        subscribers.end()
        return [message.id async for message in listener], listener.missed

    assert asyncio.run(run()) == ([3, 4, 5, 6, 7], 2)


def test_who_leaves_gets_nothing_more():
    async def run():
        subscribers = Subscribers()
        listener = subscribers.add(None)
        subscribers.publish(trades(1))
        async with contextlib.aclosing(aiter(listener)) as messages:
            assert (await anext(messages)).id == 1
        assert subscribers._all == []
        subscribers.publish(trades(2))
        assert len(listener._waiting) == 0

    asyncio.run(run())


def test_after_the_end_there_is_nothing_to_wait_for():
    async def run():
        subscribers = Subscribers()
        subscribers.end()
        return [message async for message in subscribers.add(None)]

    assert asyncio.run(run()) == []


def test_a_listener_whose_loop_is_gone_holds_nobody_up():
    subscribers = Subscribers()

    async def come():
        return subscribers.add(None)

    asyncio.run(come())
    subscribers.publish(trades(1))
    subscribers.end()
