"""Every way in which a venue's REST interface can fail ends in words, and none in a hammering."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_venue import page_route, saying, serving

from fxlab.collect.feed import Clock
from fxlab.collect.venues import _rest
from fxlab.collect.venues._rest import ATTEMPTS, Budget, Gate, Rest, retry_after
from fxlab.errors import VenueRefused, VenueUnavailable


def ask(answers, **options):
    """Return what a client gets from a server that answers these in turn, and the requests."""
    requests = []

    def answer(request):
        requests.append(request)
        return answers[min(len(requests), len(answers)) - 1]

    async def story():
        async with serving(page_route("/api/depth", answer)) as host:
            rest = client(f"http://{host}", **options)
            try:
                return await rest.get("/api/depth", symbol="BTCUSDT", limit=5)
            finally:
                await rest.close()

    return asyncio.run(story()), requests


def client(url, **options):
    return Rest(url, clock=Clock(), rng=random.Random(1), **{"patience": 0.001, **options})


def failure(answers, kind, **options):
    counted = []

    class Counting(list):
        def __getitem__(self, place):
            counted.append(place)
            return super().__getitem__(place)

    with pytest.raises(kind) as caught:
        ask(Counting(answers), **options)
    return str(caught.value), len(counted)


def test_json_comes_back_and_parameters_arrive():
    found, requests = ask([(200, {}, '{"bids": [1.5]}')])
    assert found == {"bids": [1.5]}
    assert requests[0].query == "symbol=BTCUSDT&limit=5"


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_busy_venue_is_asked_again(status):
    found, requests = ask([(status, {}, "busy"), (status, {}, "busy"), (200, {}, "[]")])
    assert (found, len(requests)) == ([], 3)


def test_a_venue_that_stays_busy_is_unavailable():
    text, asked = failure([(503, {}, "Service\nUnavailable")], VenueUnavailable)
    assert "HTTP 503" in text
    assert "Service Unavailable" in text
    assert asked == ATTEMPTS


def test_too_often_waits_as_long_as_asked():
    found, requests = ask([(429, {"Retry-After": "0"}, "slow down"), (200, {}, "7")])
    assert (found, len(requests)) == (7, 2)
    text, asked = failure([(429, {}, "slow down")], VenueRefused)
    assert "HTTP 429" in text
    assert asked == ATTEMPTS


BAN = {"Retry-After": "3600"}


@pytest.mark.parametrize("status", [418, 429, 403])
def test_during_a_ban_nobody_asks(status):
    async def story():
        asked = []

        def answer(request):
            asked.append(request)
            return status, BAN, "banned"

        async with serving(page_route("/x", answer)) as host:
            first, other = client(f"http://{host}"), client(f"http://{host}")
            for rest in (first, first, other):
                with pytest.raises(VenueRefused, match=f"HTTP {status}"):
                    await rest.get("/x")
            with pytest.raises(VenueRefused, match=r"is asked nothing for 3,600 s, until 2.* UTC"):
                await other.get("/x")
            await first.close()
            await other.close()
        return len(asked), other.gate.ban

    asked, ban = asyncio.run(story())
    assert asked == 1
    assert 3_500 < ban.seconds < 3_601  # of a 429, a little longer than was asked for
    assert abs(ban.until - Clock().now() - 3_600_000_000) < 60_000_000


@pytest.fixture
def now(monkeypatch):
    """Return a clock that a test sets."""
    now = SimpleNamespace(value=1_000.0)
    monkeypatch.setattr(_rest, "time", SimpleNamespace(monotonic=lambda: now.value))
    return now


def refuse(gate, status, asked=None, passage=None):
    with gate.passage() as mine:
        gate.close(mine if passage is None else passage, status, asked, 0, "")
    return gate.seconds


def test_bans_without_a_length_double_up_to_three_days(now):
    gate = Gate("host")
    pauses = []
    for _ in range(14):
        pauses.append(refuse(gate, 418))
        now.value += pauses[-1]
    assert pauses[:3] == [120, 240, 480]
    assert max(pauses) == pauses[-1] == 3 * 86_400
    with gate.passage() as passage:
        gate.open(passage)
    assert refuse(gate, 418) == 120
    forbidden = [
        refuse(Gate("host"), 403),
        refuse(Gate("host"), 403, 0.0),
        refuse(Gate("host"), 418, -1.0),
    ]
    assert forbidden == [30, 30, 120]


def test_questions_that_were_under_way_are_one_refusal(now):
    gate = Gate("host")
    assert refuse(gate, 418) == 120
    assert refuse(gate, 418, passage=0) == 120
    told = gate.ban.until
    assert refuse(gate, 418, 120.5, passage=0) == 120.5
    assert gate.ban.until == told, "a second more is no other ban"
    assert refuse(gate, 418, 600.0, passage=0) == 600
    assert gate.ban.until > told
    gate.open(0)  # an answer to a question from before the ban
    now.value += 600
    assert refuse(gate, 418) == 240


def test_a_short_pause_is_no_ban(now):
    gate = Gate("host")
    assert refuse(gate, 429, 3.0) == 3
    assert gate.ban is None
    assert refuse(gate, 429, 30.0) == 30
    assert gate.ban.reason.startswith("host is asked nothing for 30 s, until 1970-01-01 00:00:30")
    assert gate.banned
    now.value += 30
    assert (gate.banned, gate.ban.seconds) == (False, 0)
    assert refuse(gate, 429, 3.0) == 3
    assert (gate.banned, gate.ban.seconds) == (False, 0), "a pause after a ban is no ban"


def test_after_a_refusal_one_question_goes_first(now):
    gate = Gate("host")
    refuse(gate, 418, 5.0)
    now.value += 5
    assert gate.seconds == 0
    with gate.passage() as passage:
        assert gate.seconds == _rest.PROBE_LOOK
        assert not gate.banned
        gate.open(passage)
    with gate.passage():
        assert gate.seconds == 0


def test_an_answer_in_words_that_it_is_too_often_closes_the_gate_once(now):
    rest = client("http://api.example")
    rest.slow_down("510")
    rest.slow_down("510")
    assert rest.gate.seconds == _rest.PAUSES[429][0]
    assert rest.gate.ban is None


def test_who_waits_at_the_gate_can_be_cancelled():
    async def story():
        async with serving(page_route("/x", lambda _: (429, {"Retry-After": "9"}, "slow"))) as host:
            rest = client(f"http://{host}")
            waiting = [asyncio.ensure_future(rest.get("/x")) for _ in range(3)]
            while not rest.gate.seconds:  # noqa: ASYNC110 - of a clock, not of an event
                await asyncio.sleep(0.01)
            for task in waiting:
                task.cancel()
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            left = rest.gate.seconds
            await rest.close()
        return ended, left

    ended, left = asyncio.run(story())
    assert [type(one) for one in ended] == [asyncio.CancelledError] * 3
    assert left > 0, "nobody waited for the gate"


def test_a_long_ban_ends_at_once_with_its_length():
    text, asked = failure([(429, {"Retry-After": "3600"}, "banned")], VenueRefused)
    assert "3,600 s" in text
    assert asked == 1


@pytest.mark.parametrize(
    ("status", "step"), [(403, "blocked"), (418, "banned"), (451, "country"), (400, "report")]
)
def test_a_refusal_is_not_asked_again(status, step):
    text, asked = failure([(status, {}, '{"code":-1121,"msg":"no"}')], VenueRefused)
    assert f"HTTP {status}" in text
    assert '"msg":"no"' in text
    assert step in text
    assert asked == 1


@pytest.mark.parametrize(
    "body", ["", "<html>", '{"a":', '{"a": NaN}', "\xff", "[" * 200_000, '"\ud800'[:1]]
)
def test_what_is_not_json_is_unavailable(body):
    text, asked = failure([(200, {}, body.encode("latin-1"))], VenueUnavailable)
    assert "not JSON" in text
    assert len(text) < 500
    assert asked == 1


def test_silence_is_a_timeout_with_its_seconds():
    async def story():
        async with saying(b"") as (host, talks):
            rest = client(f"http://{host}", timeout=0.3)
            with pytest.raises(VenueUnavailable, match=r"127.0.0.1.*no answer within 0.3 s"):
                await rest.get("/x")
            await rest.close()
        return len(talks)

    assert asyncio.run(story()) == ATTEMPTS


def test_nobody_there_and_no_tls(free_ports):
    async def story():
        gone = client(f"http://127.0.0.1:{free_ports(1)[0]}")
        with pytest.raises(VenueUnavailable, match=r"127.0.0.1:\d+ is not available"):
            await gone.get("/x")
        await gone.close()
        async with saying(b"HTTP/1.1 400 Bad\r\n\r\n") as (host, _):
            plain = client(f"https://{host}")
            with pytest.raises(VenueUnavailable, match="TLS"):
                await plain.get("/x")
            await plain.close()

    asyncio.run(story())


def test_it_opens_again_after_close():
    async def story():
        async with serving(page_route("/x", lambda _: (200, {}, "1"))) as host:
            rest = client(f"http://{host}")
            await rest.get("/x")
            await rest.close()
            await rest.close()
            found = await rest.get("/x")
            await rest.close()
            return found

    assert asyncio.run(story()) == 1


def test_retry_after_may_be_a_date():
    now = 1_700_000_000_000_000
    assert retry_after("17", now) == 17.0
    assert retry_after("Tue, 14 Nov 2023 22:13:50 GMT", now) == 30.0
    assert retry_after("Tue, 14 Nov 2000 22:13:50 GMT", now) == 0.0
    assert retry_after("soon", now) is None
    assert retry_after("", now) is None


@pytest.fixture
def clock(monkeypatch):
    """Return a monotonic clock that stands still; its value may be set."""
    now = SimpleNamespace(value=100.0)
    monkeypatch.setattr(_rest.time, "monotonic", lambda: now.value)
    return now


def test_a_budget_is_spent_and_comes_back_with_time(clock):
    budget = Budget(10, 60.0)
    budget.spend(4)
    clock.value += 20
    budget.spend(5)
    assert (budget.left, budget.wait(1)) == (1, 0.0)
    assert budget.wait(2) == budget.wait(5) == 40.0  # when the 4 are over
    assert budget.wait(6) == 60.0
    clock.value += 40
    assert (budget.left, budget.wait(5)) == (5, 0.0)


def test_a_question_that_costs_more_than_all_is_asked_alone(clock):
    budget = Budget(10, 60.0)
    assert budget.wait(25) == 0.0
    budget.spend(25)
    assert budget.wait(1) == 60.0


def test_what_others_of_this_address_spent_counts(clock):
    budget = Budget(10, 60.0)
    budget.spend(2)
    budget.learn(1)  # a minute of the venue's own began: it has forgotten what we have not
    assert budget.left == 8
    budget.learn(9)
    assert (budget.left, budget.wait(2)) == (1, 60.0)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 7)), max_size=60))
def test_no_window_of_time_sees_more_than_the_limit(asked):
    now, budget, spent = [0.0], Budget(10, 20.0), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rest.time, "monotonic", lambda: now[0])
        for pause, cost in asked:
            now[0] += pause
            now[0] += budget.wait(cost)
            assert budget.wait(cost) == 0.0  # it was as long as needed
            budget.spend(cost)
            spent.append((now[0], cost))
    for begin, _ in spent:
        assert sum(cost for at, cost in spent if begin <= at < begin + 20.0 - 1e-9) <= 10


def test_a_client_waits_for_its_limit_and_hears_what_was_spent():
    slept = []

    async def sleep(seconds):
        slept.extend([seconds] if seconds else [])  # its libraries give way by a sleep of 0
        budget._spent.clear()
        budget._sum = 0.0

    async def story():
        nonlocal budget
        answers = page_route("/api/depth", lambda _: (200, {"Used": "9"}, "[]"))
        async with serving(answers) as host:
            rest = client(f"http://{host}", limit=(10, 60.0), used="Used")
            budget = rest.budget
            with pytest.MonkeyPatch.context() as patch:
                await rest.get("/api/depth", 5)
                assert budget.left == 1
                patch.setattr(_rest.asyncio, "sleep", sleep)
                await rest.get("/api/depth", 5)
            await rest.close()

    budget = None
    asyncio.run(story())
    assert len(slept) == 1
    assert 50 < slept[0] <= 60
