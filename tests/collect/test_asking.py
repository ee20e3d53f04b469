"""Questions to a venue's history: few of them, and each gap gets an answer whatever happens."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_feed import SYMBOL, Scripted, trades

from fxlab.collect._live import loop
from fxlab.collect._live.events import (
    MOST_IDS,
    BackfillRequest,
    BackfillResult,
    GapRow,
    neighbours,
    pieces,
)
from fxlab.collect._live.loop import Backfiller
from fxlab.collect._live.trades import IdGap
from fxlab.collect.feed import Event, Instrument, Refusal, Trade
from fxlab.errors import VenueRefused, VenueUnavailable


def missing(first, last, symbol=SYMBOL):
    gap = GapRow(1, symbol, "prices", 0, 1, last - first + 1)
    return BackfillRequest(symbol, IdGap(first, last, 0, 1, 2), gap)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(loop, "PAUSES", (0.0, 0.0))


def ask(feed, *found, silent=False, seconds=60.0, still_open=lambda _: []):
    """Return all that was answered."""

    async def run():
        heard = []
        questions = Backfiller(
            feed, [Instrument(SYMBOL, "btc"), Instrument("B", "b")], heard.extend,
            still_open, silent=silent,
        )  # fmt: skip
        questions.ask(found)
        await questions.finish(seconds, seconds)
        return heard

    return asyncio.run(run())


gaps = st.lists(
    st.tuples(st.sampled_from("AB"), st.integers(0, 5_000), st.integers(0, 2_500)), max_size=12
)


@given(gaps)
@settings(max_examples=150, deadline=None)
def test_every_gap_is_in_one_group_whose_pieces_cover_it(found):
    wanted = [missing(first, first + length, symbol) for symbol, first, length in found]
    groups = neighbours(wanted)
    assert sorted(map(id, wanted)) == sorted(id(one) for group in groups for one in group)
    for group in groups:
        assert len({one.symbol for one in group}) == 1
        parts = list(pieces(group))
        assert all(last - first < MOST_IDS for first, last in parts)
        covered = {one for first, last in parts for one in range(first, last + 1)}
        inside = [one for one in group if one.ids.last <= group[-1].ids.last]
        for one in inside:
            assert set(range(one.ids.first, one.ids.last + 1)) <= covered


def test_gaps_close_together_are_one_question():
    feed = Scripted(history=trades(*range(1, 100)))
    first, second = missing(10, 12), missing(20, 21)
    heard = ask(feed, second, first)
    assert feed.asked == [(SYMBOL, 10, 21)]
    assert [one.id for one in heard if isinstance(one, Trade)] == [10, 11, 12, 20, 21]
    assert [one for one in heard if isinstance(one, BackfillResult)] == [
        BackfillResult(first, "5 of 5 trades came"), BackfillResult(second, "5 of 5 trades came"),
    ]  # fmt: skip


def test_a_great_gap_is_asked_for_in_pieces_until_nothing_comes():
    feed = Scripted(history=trades(*range(1, 1_500)))
    heard = ask(feed, missing(1, 10**15))
    assert [one[1:] for one in feed.asked[:2]] == [(1, 1_000), (1_001, 2_000)]
    assert len(feed.asked) == 4, "two of them for what is not there"
    assert heard[-1].outcome == f"1499 of {10**15} trades came"


@pytest.mark.parametrize("error", [VenueUnavailable("no route"), ValueError("a bug")])
def test_an_error_is_an_answer_too(error):
    (answer,) = ask(Scripted(history=error), missing(1, 3))
    assert answer.outcome.startswith("0 of 3 trades came: ")
    assert str(error) in answer.outcome


def test_what_is_no_trade_in_an_answer_is_told_and_costs_nothing():
    bad = Event("quarantine", SYMBOL, 5, 1, "aggTrades: a price of 0")

    class Spoiled(Scripted):
        async def trades(self, _, first_id, last_id):
            self.asked.append((first_id, last_id))
            return [bad] if first_id == 1 else [*trades(first_id, first_id), bad]

    feed = Spoiled()
    heard = ask(feed, missing(1, 1_500))
    assert feed.asked == [(1, 1_000), (1_001, 1_500)], "an answer of bad entries is an answer"
    assert heard.count(bad) == 2
    assert heard[-1].outcome == "1 of 1500 trades came"


def test_what_was_not_asked_for_is_not_taken():
    class Generous(Scripted):
        async def trades(self, _, first_id, last_id):
            return [*trades(*range(first_id - 5, last_id + 5)), *trades(2, id="x")]

    heard = ask(Generous(), missing(10, 11))
    assert [one.id for one in heard if isinstance(one, Trade)] == [10, 11]


def test_an_answer_that_never_comes_is_given_up():
    class Silent(Scripted):
        async def trades(self, *_):
            await asyncio.Event().wait()

    some = [missing(n * 10_000, n * 10_000 + 1) for n in range(5)]
    heard = ask(Silent(), *some, seconds=0.05)
    assert sorted(one.request.ids.first for one in heard) == [n * 10_000 for n in range(5)]
    assert {one.outcome for one in heard} == {"given up"}


def test_silent_asks_nothing():
    feed = Scripted(history=trades(1, 2))
    (answer,) = ask(feed, missing(1, 2), silent=True)
    assert (answer.outcome, feed.asked) == ("not asked", [])


class Refusing(Scripted):
    """A venue that bans at the first question for a while."""

    def __init__(self, seconds, **options):
        super().__init__(**options)
        self.ban_seconds, self.end = seconds, None

    def refusal(self):
        """Return the ban."""
        if self.end is None:
            return None
        return Refusal(max(0.0, self.end - time.monotonic()), 1, "banned for a while")

    async def trades(self, instrument, first_id, last_id):
        """Refuse the first question."""
        if self.end is None:
            self.asked.append("refused")
            self.end = time.monotonic() + self.ban_seconds
            raise VenueRefused("HTTP 418")
        return await super().trades(instrument, first_id, last_id)


def test_the_end_waits_for_the_question_that_finds_out_whether_a_ban_is_over():
    class Probing(Scripted):
        looks = 0

        def refusal(self):
            self.looks += 1
            return Refusal(0.1 if self.looks < 4 else 0.0, 1, "a question is under way")

    heard = ask(Probing(history=trades(1, 2)), missing(1, 2))
    assert heard[-1].outcome == "2 of 2 trades came"


def test_questions_wait_for_the_end_of_a_ban_and_are_asked_then():
    async def run():
        feed = Refusing(0.3, history=trades(1, 2, 50_001))
        answers = []
        instruments = [Instrument(SYMBOL, "btc")]
        questions = Backfiller(feed, instruments, answers.extend, lambda _: [], silent=False)
        questions.ask([missing(1, 2), missing(50_001, 50_001)])
        while sum(isinstance(one, BackfillResult) for one in answers) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return feed, answers

    feed, answers = asyncio.run(run())
    assert sorted(one.id for one in answers if isinstance(one, Trade)) == [1, 2, 50_001]
    assert feed.asked.count("refused") == 1
    assert len(feed.asked) == 3
    outcomes = [one.outcome for one in answers if isinstance(one, BackfillResult)]
    assert sorted(outcomes) == ["1 of 1 trades came", "2 of 2 trades came"]


def test_nobody_waits_for_a_ban_at_the_end():
    feed = Refusing(1e6, history=trades(1, 2))
    some = [missing(n * 10_000, n * 10_000 + 1) for n in range(5)]
    heard = ask(feed, *some, seconds=1e6)
    assert feed.asked == ["refused"]
    assert {one.outcome for one in heard} == {"0 of 2 trades came: banned for a while"}
    assert len(heard) == 5


def test_what_stays_open_is_asked_for_again_when_it_is_due_and_at_the_end():
    """With times of the test's own: a look at a moment asks for what is due by then."""
    feed = Scripted(history=trades(1))
    open_ones = [missing(1, 3), missing(5_000, 5_001)]

    async def run():
        heard = []
        questions = Backfiller(
            feed, [Instrument(SYMBOL, "btc")], heard.extend, lambda one: [one] * (one in open_ones),
            silent=False,
        )  # fmt: skip

        async def answered(count):
            while sum(isinstance(one, BackfillResult) for one in heard) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        questions.ask(open_ones)
        await answered(2)
        began = time.monotonic()
        asked = len(feed.asked)
        questions.ask_again(questions.due(began))
        await asyncio.sleep(0)
        assert len(feed.asked) == asked, "nothing is due"
        questions.ask_again(questions.due(began + loop.AGAIN[0]))
        await answered(4)
        assert feed.asked[asked:] == [(SYMBOL, 1, 3), (SYMBOL, 5_000, 5_001)], "one try each"
        del open_ones[0]  # it is filled
        questions.ask_again(questions.due(began + loop.AGAIN[0]))
        await asyncio.sleep(0)
        assert len(feed.asked) == asked + 2, "the second wait is longer"
        questions.ask_again(questions.due(time.monotonic(), ending=True))
        await questions.finish(60, 60)
        assert feed.asked[asked + 2 :] == [(SYMBOL, 5_000, 5_001)]
        return heard

    assert len([one for one in asyncio.run(run()) if isinstance(one, BackfillResult)]) == 5
