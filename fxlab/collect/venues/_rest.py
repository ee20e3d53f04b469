"""REST client of a venue, and the base of its feed: retries with back-off, errors in words.

A venue that is busy is asked again, later and at random times, so that a thousand collectors do not
return at once; one that refuses is left alone, because asking on leads to a longer ban. Whoever
asks a host passes its one `Gate`, which is closed for as long as the host wants no questions, and
spends its rate limit, a `Budget`: what does not fit waits here instead of being refused there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final, NamedTuple
from urllib.parse import urlsplit

import httpx

from fxlab._network import proxy_for, through, wait_before
from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    Address,
    Clock,
    Event,
    Feed,
    Instrument,
    Refusal,
    Trade,
    cause_of,
    no_constant,
    quarantine,
)
from fxlab.errors import VenueError, VenueRefused, VenueUnavailable

_log: Final = logging.getLogger(__name__)

ATTEMPTS: Final = 4
LONGEST_WAIT: Final = 10.0
"""Seconds; a venue that asks to wait longer is given up at once, with the number."""

NEWEST: Final = 10
"""Trades that are asked for where the newest one is wanted: it may be bad."""

TOO_OFTEN, BANNED, FORBIDDEN = 429, 418, 403
PAUSES: Final[dict[int, tuple[float, float]]] = {
    TOO_OFTEN: (0.5, 60.0),
    FORBIDDEN: (30.0, 1_800.0),
    BANNED: (120.0, 3 * 86_400.0),
}
"""Seconds without questions after a refusal that says none: at first, doubled up to the last.

Binance documents bans from two minutes up to three days.
"""
PROBE_LOOK: Final = 0.1
"""Seconds between two looks whether the first question after a refusal was answered."""
REFUSALS: Final = {
    TOO_OFTEN: "it was asked too often; wait a minute, and run fewer collectors",
    401: "this needs an account, which fxlab never uses",
    403: "this machine's address or country is blocked; wait, or try another network",
    418: "this address is banned for asking too often; wait, and run fewer collectors",
    451: "the venue does not serve this country; choose another venue",
}


class Budget:
    """Rate limit of a host, spent by all who ask it in this process: so much in so many seconds.

    What other processes of this address spend counts as far as the host says it (`learn`).
    The seconds slide, so that no window of the host's own sees more than it allows.

    Parameters
    ----------
    limit
        What all questions together may cost.
    seconds
        Within which time.
    """

    def __init__(self, limit: float, seconds: float) -> None:
        self.limit, self.seconds = limit, seconds
        self._spent: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    @property
    def left(self) -> float:
        """Return what may be spent now."""
        until = time.monotonic() - self.seconds
        while self._spent and self._spent[0][0] <= until:
            self._sum -= self._spent.popleft()[1]
        return self.limit - self._sum

    def wait(self, cost: float) -> float:
        """Return the seconds until a question fits; one that never does is asked alone."""
        missing = min(cost, self.limit) - self.left
        for moment, spent in self._spent if missing > 0 else ():
            missing -= spent
            if missing <= 0:
                return max(0.0, moment + self.seconds - time.monotonic())
        return 0.0

    def spend(self, cost: float) -> None:
        """Take note of a question."""
        self._spent.append((time.monotonic(), cost))
        self._sum += cost

    def learn(self, used: float) -> None:
        """Take note of what the host says was spent: other programs of this address ask, too."""
        others = used - (self.limit - self.left)
        if others > 0:
            self.spend(others)


class Gate:
    """Whether a host may be asked, for all who ask it in this process.

    After a refusal one question goes first; the others follow when it was answered.

    Parameters
    ----------
    host
        For messages.

    Attributes
    ----------
    closings
        How often it was closed.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._opens = self._ban_over = 0.0
        self.closings = 0
        self._strikes = 0
        self._probing = False
        self._ban: Refusal | None = None

    @property
    def seconds(self) -> float:
        """Return how long nobody may ask; 0.0 if the gate is open."""
        left = self._opens - time.monotonic()
        return left if left > 0 else PROBE_LOOK * self._probing

    @property
    def ban(self) -> Refusal | None:
        """Return the last refusal that is too long to be waited for by who asks."""
        if self._ban is None:
            return None
        left = max(0.0, self._ban_over - time.monotonic())
        return self._ban._replace(seconds=left or PROBE_LOOK * self._probing)

    @property
    def banned(self) -> bool:
        """Return whether that refusal lasts."""
        return self._ban_over > time.monotonic()

    @contextlib.contextmanager
    def passage(self) -> Iterator[int]:
        """Let one question through; yields what `open` and `close` want to know of it."""
        probe = self._strikes > 0
        self._probing = self._probing or probe
        try:
            yield self.closings
        finally:
            if probe:
                self._probing = False

    def open(self, passage: int) -> None:
        """Take note of an answer; one to a question from before the last refusal proves nothing."""
        if passage == self.closings:
            self._strikes = 0

    def close(self, passage: int, status: int, asked: float | None, now: int, said: str) -> None:
        """Take note of a refusal.

        Parameters
        ----------
        passage
            Of the question: those that were under way together are refused once.
        status
            Of HTTP.
        asked
            Seconds that the host wants to be left alone; None if it does not say.
        now
            Microseconds since the epoch.
        said
            The host's words.
        """
        if passage == self.closings:
            self.closings += 1
            self._strikes += 1
        elif asked is None:
            return
        first, longest = PAUSES[status]
        if asked is None or (asked <= 0 and status != TOO_OFTEN):
            asked = first * 2.0 ** min(self._strikes - 1, 32)
            asked = min(asked, longest)
        seconds = min(asked, PAUSES[BANNED][1])
        self._opens = max(self._opens, time.monotonic() + seconds)
        is_ban = status != TOO_OFTEN or seconds > LONGEST_WAIT
        if is_ban:
            self._ban_over = self._opens
        until = now + int(seconds * 1e6)
        known = self._ban.until + 1_000_000 if self._ban is not None else 0
        if is_ban and until > known:
            end = datetime.fromtimestamp(until / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            told = f"{self._host} is asked nothing for {seconds:,.0f} s, until {end}"
            self._ban = Refusal(seconds, until, f"{told} (HTTP {status}{said})")


_GATES: Final[dict[str, Gate]] = {}
"""By address. They stay: a ban outlives the recording that met it."""
_BUDGETS: Final[dict[str, Budget]] = {}
"""By address, for the same reason."""


class Rest:
    """Reads JSON from one venue.

    Parameters
    ----------
    base_url
        Such as ``https://api.binance.com``.
    limit
        What the venue allows: the cost of questions, and the seconds for it; None if it is unknown.
    used
        Name of the header that says how much of it was spent.
    clock
        Tells how long a date in ``Retry-After`` is away.
    timeout
        Seconds for connecting, and for each wait for bytes.
    patience
        Seconds before the second attempt; it doubles with each one.
    rng
        Draws the jitter.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clock: Clock,
        limit: tuple[float, float] | None = None,
        used: str = "",
        timeout: float = 10.0,
        patience: float = 0.5,
        rng: random.Random | None = None,
    ) -> None:
        self.base_url = base_url
        self._clock = clock
        self._timeout = timeout
        self._patience = patience
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._client: httpx.AsyncClient | None = None
        self.gate = _GATES.setdefault(base_url, Gate(self.host))
        self.budget = _BUDGETS.setdefault(base_url, Budget(*limit)) if limit is not None else None
        self._used = used
        self.answers = 0

    async def get(self, path: str, cost: float = 1, /, **parameters: str | float) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON that a path answers with; what it costs waits until it fits the limit.

        Raises
        ------
        VenueUnavailable
            No answer, an answer of 5xx that stays, or one that is not JSON.
        VenueRefused
            The venue blocks or bans us, limits the rate for longer than `LONGEST_WAIT`, or calls
            the request wrong. While a ban lasts, the venue is not asked.
        """
        for attempt in range(ATTEMPTS):
            try:
                response = await self._pass(path, cost, parameters)
                if response.is_success:
                    return json.loads(response.content, parse_constant=no_constant)
            except httpx.TimeoutException:
                reason = f"no answer within {self._timeout:g} s"
            except httpx.TransportError as error:
                raise self._unavailable(reason_of(error)) from error
            except (ValueError, RecursionError) as error:
                start = " ".join(response.text[:80].split())
                reason = f"its answer is not JSON ({error}): {start!r}"
                raise self._unavailable(reason) from error
            else:
                reason = self._judged(response, last=attempt + 1 == ATTEMPTS)
                if response.status_code == TOO_OFTEN:
                    continue  # the gate knows how long
            if attempt + 1 < ATTEMPTS:
                await asyncio.sleep(self._jittered(attempt))
        raise self._unavailable(reason)

    async def close(self) -> None:
        """Close the connections; the next `get` opens them again."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                timeout=self._timeout,
                proxy=proxy_for(self.base_url),
                trust_env=False,  # its own reading of the variables differs from all others
                verify=httpx.create_ssl_context(),
            )
        return self._client

    def _jittered(self, attempt: int) -> float:
        return wait_before(attempt, self._patience, LONGEST_WAIT, self._rng)

    async def _pass(
        self, path: str, cost: float, parameters: dict[str, str | float]
    ) -> httpx.Response:
        """Ask once, when the gate is open and the limit allows it; a ban is not waited for."""
        while (seconds := self.wait(cost)) > 0:
            self._refuse_if_banned()
            await asyncio.sleep(seconds)
        if self.budget is not None:
            self.budget.spend(cost)
        with self.gate.passage() as passage:
            response = await self._open().get(self.base_url + path, params=parameters)
            status, self.answers = response.status_code, self.answers + 1
            if self.budget is not None and (said := response.headers.get(self._used, "")).isdigit():
                self.budget.learn(float(said))
            _log.debug("GET %s%s: status %d", self.host, path, status)
            if status in PAUSES:
                self._close_gate(passage, response)
            elif status < 500:
                self.gate.open(passage)
        return response

    def wait(self, cost: float = 1) -> float:
        """Return the seconds until a question may be asked, as far as is known now."""
        spent = self.budget.wait(cost) if self.budget is not None else 0.0
        return max(self.gate.seconds, spent)

    def _close_gate(self, passage: int, response: httpx.Response) -> None:
        now = self._clock.now()
        asked = retry_after(response.headers.get("Retry-After", ""), now)
        if response.status_code == TOO_OFTEN and asked is not None:
            asked += self._jittered(0)
        said = " ".join(response.text[:100].split())
        self.gate.close(passage, response.status_code, asked, now, f": {said}" if said else "")

    def slow_down(self, said: str) -> None:
        """Take note of an answer that says in its own words that it was asked too often."""
        if self.gate.seconds > 0:
            return  # questions under way together are refused once
        self.gate.close(self.gate.closings, TOO_OFTEN, None, self._clock.now(), f": {said}")

    def _refuse_if_banned(self) -> None:
        ban = self.gate.ban
        if ban is not None and self.gate.banned:
            raise VenueRefused(f"{ban.reason}; wait until then, and run fewer collectors")

    def _judged(self, response: httpx.Response, *, last: bool) -> str:
        """Return why an answer is unusable, or raise if asking again cannot help."""
        status = response.status_code
        said = " ".join(response.text[:200].split())
        if status >= 500:
            return f"HTTP {status} to {ATTEMPTS} requests: {said}"
        if status == TOO_OFTEN:
            self._refuse_if_banned()
            if not last:
                return "asked too often"
        next_step = REFUSALS.get(status, "the request is not what the venue expects; report this")
        raise VenueRefused(f"{self.host} refuses with HTTP {status}: {said}; {next_step}")

    @property
    def host(self) -> str:
        """Return the host, for messages."""
        return urlsplit(self.base_url).netloc

    def _unavailable(self, reason: str) -> VenueUnavailable:
        return VenueUnavailable(
            f"{self.host} is not available ({reason}){through(self.base_url)}; check the "
            "connection, or try again later"
        )


class HistoryPage(NamedTuple):
    """One answer with past trades: those that were understood, and what became of the others.

    Attributes
    ----------
    trades
        In the order of the answer.
    bad
        For each entry that is no trade its id, if it has one, and the event that tells of it.
    """

    trades: list[Trade]
    bad: list[tuple[int | None, Event]]

    @classmethod
    def read(
        cls,
        what: str,
        entries: Iterable[Any],
        read: Callable[[Any], Trade],
        id_of: Callable[[Any], Any],
    ) -> HistoryPage:
        """Read all entries of an answer; a bad one costs no other.

        Parameters
        ----------
        what
            The question, for the event.
        read, id_of
            Return an entry's trade, and its id; raise what is in `NOT_AS_DOCUMENTED`.
        """
        page = cls([], [])
        for entry in entries:
            try:
                page.trades.append(read(entry))
            except NOT_AS_DOCUMENTED as error:
                page.bad.append(_set_aside(f"{what}: {cause_of(error)}", entry, id_of))
        return page


def _set_aside(cause: str, entry: object, id_of: Callable[[Any], Any]) -> tuple[int | None, Event]:
    number = None
    with contextlib.suppress(*NOT_AS_DOCUMENTED):  # then nobody can say which trade it was
        number = id_of(entry)
    event = quarantine(cause, json.dumps(entry), 0)
    return number if type(number) is int else None, event


class History:
    """Past trades of one symbol, gathered from pages that may overlap.

    Parameters
    ----------
    symbol, first_id, last_id
        What is asked for, both ids included.
    clock
        Stamps events.
    """

    def __init__(self, symbol: str, first_id: int, last_id: int, clock: Clock) -> None:
        self._symbol, self._first, self._last = symbol, first_id, last_id
        self._clock = clock
        self._trades: dict[tuple[object, ...], Trade] = {}
        self._bad: dict[str, Event] = {}

    def add(self, page: HistoryPage) -> bool:
        """Take what was asked for of a page, and return whether any of it was new.

        A bad entry without an id may be any of those that are asked for.
        """
        before = len(self._trades) + len(self._bad)
        for trade in page.trades:
            if self._wants(trade.id):
                # All but the arrival: another trade with the same id is the recorder's to judge.
                self._trades.setdefault(trade[:6], trade)
        for number, event in page.bad:
            if number is None or self._wants(number):
                told = event._replace(symbol=self._symbol, time=self._clock.now())
                self._bad.setdefault(event.detail, told)
        return len(self._trades) + len(self._bad) > before

    @property
    def found(self) -> list[Trade | Event]:
        """Return the trades, and then an event for each entry that was none."""
        return [*self._trades.values(), *self._bad.values()]

    def _wants(self, number: int | str | None) -> bool:
        return isinstance(number, int) and self._first <= number <= self._last


ODD_LISTING: Final = "its listing is not as documented"
"""Begins the status of an instrument that cannot be recorded for that reason."""


class RestFeed(Feed):
    """A feed whose venue is asked by REST, too.

    Parameters
    ----------
    address
        Where the venue is; its public hosts by default.
    clock
        Stamps arrivals.
    """

    ADDRESS: ClassVar[Address]
    LIMIT: ClassVar[tuple[float, float] | None] = None
    """What questions may cost, and the seconds for it; None where the venue says nothing."""
    USED: ClassVar[str] = ""
    """Name of the header that says how much of it was spent."""

    def __init__(self, *, address: Address | None = None, clock: Clock | None = None) -> None:
        self.address = address or self.ADDRESS
        self.clock = clock or Clock()
        self._rest = Rest(self.address.rest, clock=self.clock, limit=self.LIMIT, used=self.USED)
        self.doubted = asyncio.Event()
        """Set when a stream is so silent that its symbol may be traded no more."""

    def refusal(self) -> Refusal | None:
        """Return the last time for which the host is asked nothing."""
        return self._rest.gate.ban

    def waits(self, cost: float) -> float:
        """Return the seconds until a question of this cost may be asked, as far as is known."""
        return self._rest.wait(cost)

    def answers(self) -> int:
        """Return how many questions were answered."""
        return self._rest.answers

    def allowance(self) -> float:
        """Return what is left of the rate limit; infinity where none is known."""
        return self._rest.budget.left if self._rest.budget is not None else math.inf

    async def close(self) -> None:
        """Close the connections of REST; a stream closes with its `messages`."""
        await self._rest.close()

    @contextlib.contextmanager
    def _documented(self, what: str) -> Iterator[None]:
        """Turn what reading an odd answer raises into an error that names the question."""
        try:
            yield
        except NOT_AS_DOCUMENTED as error:
            raise VenueUnavailable(
                f"{self._rest.host} answers {what} not as documented ({cause_of(error)}); "
                "try again later, and report it if it stays"
            ) from error

    def _listings(
        self,
        what: str,
        entries: Iterable[Any],
        read: Callable[[Any], Instrument | None],
        names: Callable[[Any], tuple[str, str]],
    ) -> dict[str, Instrument]:
        """Return what a venue lists, by fxlab's symbol; an odd entry costs no other.

        Parameters
        ----------
        what
            The question.
        read
            Returns an entry's instrument, None for one that is none of this feed's.
        names
            Returns fxlab's and the venue's name of an odd one: its status says why it cannot be
            recorded.

        Raises
        ------
        VenueUnavailable
            If all of them are odd.
        """
        good: dict[str, Instrument] = {}
        odd: dict[str, Instrument] = {}
        errors: list[Exception] = []
        for entry in entries:
            try:
                one = read(entry)
            except NOT_AS_DOCUMENTED as error:
                errors.append(error)
                with contextlib.suppress(*NOT_AS_DOCUMENTED):  # nobody can ask for it without one
                    symbol, native = names(entry)
                    status = f"{ODD_LISTING}: {cause_of(error)}"
                    odd[symbol] = Instrument(symbol, native, status=status)
            else:
                good |= {} if one is None else {one.symbol: one}
        if errors and not good:
            with self._documented(what):
                raise errors[0]
        if errors:
            _log.warning("%s: %d listings are not as documented", self._rest.host, len(errors))
        return odd | good

    def _newest(self, what: str, page: HistoryPage, *, first: bool = False) -> Trade | None:
        """Return the newest trade of a page, which is its first or its last one, if it has any."""
        if page.bad and not page.trades:
            with self._documented(what):
                raise ValueError(page.bad[-1][1].detail)
        return page.trades[0 if first else -1] if page.trades else None

    def _refusal(self, what: str, answer: object, *, too_often: bool) -> VenueError:
        """Return the error for an answer that is a refusal."""
        said = f"{self._rest.host} answers {what} with {answer!r:.200}"
        if too_often:
            self._rest.slow_down(f"{answer!r:.100}")
            return VenueRefused(f"{said}; wait a minute, and run fewer collectors")
        return VenueUnavailable(f"{said}; try again later")


def reason_of(error: BaseException) -> str:
    """Return why a connection failed, in words; TLS failures are named as such."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {getattr(cause, 'verify_message', '') or cause.reason or cause}"
        cause = getattr(cause, "real_error", None) or cause.__cause__ or cause.__context__
    error = getattr(error, "real_error", None) or error
    return str(error) or type(error).__name__


def retry_after(header: str, now: int) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for, given as a number or as a date."""
    if header.strip().isdigit():
        return float(header)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - now / 1e6)
