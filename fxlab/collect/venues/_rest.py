"""REST client of a venue, and the base of its feed: retries with back-off, errors in words.

A venue that is busy is asked again, later and at random times, so that a thousand collectors do not
return at once; one that refuses is left alone, because asking on leads to a longer ban.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import ssl
from collections.abc import Callable, Iterable, Iterator
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
    Trade,
    cause_of,
    no_constant,
    quarantine,
)
from fxlab.errors import VenueError, VenueRefused, VenueUnavailable

_log: Final = logging.getLogger(__name__)

ATTEMPTS: Final = 4
LONGEST_WAIT: Final = 60.0
"""Seconds; a venue that asks to wait longer is given up at once, with the number."""

TOO_OFTEN: Final = 429
REFUSALS: Final = {
    TOO_OFTEN: "it was asked too often; wait a minute, and run fewer collectors",
    401: "this needs an account, which fxlab never uses",
    403: "this machine's address or country is blocked; try another network",
    418: "this address is banned for asking too often; wait, and run fewer collectors",
    451: "the venue does not serve this country; choose another venue",
}


class Rest:
    """Reads JSON from one venue.

    Parameters
    ----------
    base_url
        Such as ``https://api.binance.com``.
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

    async def get(self, path: str, **parameters: str | float) -> Any:  # noqa: ANN401 - JSON
        """Return the JSON that a path answers with.

        Raises
        ------
        VenueUnavailable
            No answer, an answer of 5xx that stays, or one that is not JSON.
        VenueRefused
            The venue blocks or bans us, limits the rate for longer than `LONGEST_WAIT`, or calls
            the request wrong.
        """
        for attempt in range(ATTEMPTS):
            wait = self._jittered(attempt)
            try:
                response = await self._open().get(self.base_url + path, params=parameters)
                _log.debug("GET %s%s: status %d", self.host, path, response.status_code)
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
                    wait = self._asked_wait(response, wait)
            if attempt + 1 < ATTEMPTS:
                await asyncio.sleep(wait)
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

    def _asked_wait(self, response: httpx.Response, usual: float) -> float:
        """Return the seconds to wait after a 429."""
        asked = retry_after(response.headers.get("Retry-After", ""), self._clock.now())
        if asked is None:
            return usual
        if asked > LONGEST_WAIT:
            raise VenueRefused(
                f"{self.host} wants no more requests for {asked:,.0f} s (HTTP 429); "
                "wait that long, and run fewer collectors from this address"
            )
        return asked + self._jittered(0)

    def _judged(self, response: httpx.Response, *, last: bool) -> str:
        """Return why an answer is unusable, or raise if asking again cannot help."""
        status = response.status_code
        said = " ".join(response.text[:200].split())
        if status >= 500:
            return f"HTTP {status} to {ATTEMPTS} requests: {said}"
        if status == TOO_OFTEN and not last:
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

    def __init__(self, *, address: Address | None = None, clock: Clock | None = None) -> None:
        self.address = address or self.ADDRESS
        self.clock = clock or Clock()
        self._rest = Rest(self.address.rest, clock=self.clock)

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
