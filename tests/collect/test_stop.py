"""A recording stops whatever hangs, venue or server, and says what is left.

What hangs here hangs until the recording has ended, and would do so for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading

import pytest
from collect_processes import eventually
from forwarder import Forwarder
from scripted_feed import PATIENCE, SYMBOL, Scripted, trades

from fxlab._questdb.client import QuestDB
from fxlab.collect._config import Plan
from fxlab.collect._live import loop
from fxlab.collect._live.journal import PROBE_SECONDS, left_behind
from fxlab.collect._live.lifecycle import recover
from fxlab.collect.collector import Collector
from fxlab.collect.feed import Clock
from fxlab.errors import CollectionFailed
from fxlab.mock import MockVenue, generated

MOST_SECONDS = 2.0


def test_what_hangs_is_not_waited_for_longer_than_two_seconds():
    """The venue may hang, or the server; the two together are no case of their own."""
    assert loop.HANGING_SECONDS + loop.PROBE_SECONDS <= MOST_SECONDS
    assert loop.HANGING_SERVER + PROBE_SECONDS + loop.PROBE_SECONDS <= MOST_SECONDS


class Hanging(Scripted):
    """A venue whose history, or whose newest trade, never comes."""

    def __init__(self, *batches, hangs):
        super().__init__(*batches)
        self.hangs, self.hanging = hangs, 0

    async def _hang(self, what):
        if what in self.hangs:
            self.hanging += 1
            await asyncio.Event().wait()

    async def trades(self, *_):
        """Hang, or return nothing."""
        await self._hang("trades")
        return []

    async def latest(self, *_):
        """Hang, or return nothing."""
        await self._hang("latest")


@pytest.mark.parametrize("hangs", [("trades",), ("latest",), ("trades", "latest")])
def test_a_venue_that_never_answers_is_given_up(hangs, lab, unique, monkeypatch):
    monkeypatch.setattr(loop, "LAST_INTERVALS", 0)  # each stream is doubtful at the end
    feed = Hanging(trades(1, 2, 5), hangs=hangs)
    collector = lab.collect(feed, SYMBOL, session_id=unique("stop"), settle=0, book_depth=0)
    feed.all_said()
    eventually(lambda: collector.status().gaps == 1, "the gap is known")
    age = collector._work.silence.ages[SYMBOL, "prices"]
    age.heard -= 600.0  # a stream that has been silent for long
    session = collector.stop(PATIENCE)
    assert session.status == "completed"
    assert feed.hanging >= 1
    (gap,) = session.gap_list().rows(named=True)
    assert (gap["state"], gap["missing"]) == ("open", 2)
    assert gap["answer"] == "given up" or "trades" not in hangs
    told = session.events().filter(event="venue_error")["detail"].to_list()
    assert [one for one in told if "1 streams could not be asked about" in one] == told[-1:]
    assert bool(told) == ("latest" in hangs)


@pytest.fixture
def frozen():
    """Return a function that has a mock venue take connections and bytes, and answer nothing."""
    thaw = threading.Event()

    def freeze(mock):
        mock._loop.call_soon_threadsafe(thaw.wait)

    yield freeze, thaw
    thaw.set()


@pytest.mark.parametrize("venue", ["binance", "binance_futures", "bybit", "kraken", "mexc", "okx"])
@pytest.mark.parametrize("known", [True, False], ids=["recording", "before a snapshot"])
def test_a_venue_that_freezes_is_left(venue, known, lab, unique, frozen):
    """Sockets, snapshots, history, and the closing of connections hang."""
    freeze, thaw = frozen
    with MockVenue(generated([SYMBOL], rate=50, book_rate=50), venues=[venue]) as mock:
        collector = lab.collect(
            venue, SYMBOL, url=mock.url, session_id=unique("frozen"), book_depth=10, settle=0.1
        )
        wanted = "books" if known else "trades"
        eventually(lambda: getattr(collector.status(), wanted), "something is recorded")
        freeze(mock)
        session = collector.stop(PATIENCE)
        assert not thaw.is_set()
        thaw.set()
    assert session.status == "completed"
    assert lab.verify(session.id).whole


@pytest.mark.parametrize("stalled", [True, False], ids=["frozen", "gone"])
def test_a_server_that_hangs_is_left_and_the_rows_wait(stalled, db, lab, unique, tmp_path):
    feed, name = Scripted(trades(1, 2, 3)), unique("server")
    plan = Plan("private", (SYMBOL,), session_id=name, book_depth=0, settle=0)
    with contextlib.ExitStack() as stack:
        network = Forwarder(db.endpoint.http_port)
        gone = stack.push(network)
        through = QuestDB(dataclasses.replace(db.endpoint, http_port=network.port))
        stack.callback(through.close)
        collector = Collector(through, feed, plan, tmp_path, Clock()).start()
        feed.all_said()
        eventually(lambda: collector.status().trades == 3, "trades are journaled")
        eventually(lambda: collector.status().waiting_rows == 0, "and stored")
        if stalled:
            network.stalled = True
        else:
            gone.__exit__(None, None, None)
        collector._work._inbox.extend(trades(4, 5))
        with pytest.raises(CollectionFailed, match="rows could not be brought to the database"):
            collector.stop(PATIENCE)
    assert [path.stem for path in left_behind(tmp_path)] == [name]
    assert recover(db, tmp_path) == [name]
    session = lab.session(name)
    assert (session.status, session.prices_count) == ("completed", 5)
    assert lab.verify(name).whole
