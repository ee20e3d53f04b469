"""Network rules of every client: the proxy for an address, and the back-off between retries.

What is on this machine never goes through a proxy. Clients disagree about the variables, about
``NO_PROXY`` and about what they do with a proxy that they cannot use; so the address is looked up
here and each client is given the answer.

A retry waits longer each time, and a random part of it, so that many clients do not return at once.
Questions that are under way are `answered` as long as something comes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from fxlab.errors import InvalidSettings

_PLAIN: Final = {"ws": "http", "wss": "https"}


def proxy_for(url: str) -> str | None:
    """Return the address of the HTTP proxy through which a URL is reached; None is without one.

    Raises
    ------
    InvalidSettings
        If the environment names a proxy that fxlab cannot use, with the variable.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    known = getproxies_environment()
    scheme = _PLAIN.get(parts.scheme, parts.scheme)
    kind = scheme if scheme in known else "all"
    if kind not in known or _is_loopback(host) or proxy_bypass(parts.netloc):
        return None
    return _usable(known[kind], f"{kind}_proxy", host)


def _usable(proxy: str, name: str, host: str) -> str:
    """Return a proxy's address as all clients take it."""
    variable = name if name in os.environ else name.upper()
    whole = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(whole)
        fits = parts.scheme == "http" and parts.hostname and (parts.port or 80)
    except ValueError:
        fits = False
    if not fits:
        raise InvalidSettings(
            f"{variable}={shown(proxy)!r} is no proxy that fxlab can use: only HTTP proxies, such "
            f"as http://proxy.example:3128; set it to one, or reach {host} without a proxy: "
            f"NO_PROXY={host}"
        )
    return whole


def through(url: str) -> str:
    """Return words for the proxy through which a URL is reached; nothing without one."""
    proxy = proxy_for(url)
    return "" if proxy is None else f" through the proxy {shown(proxy)}"


def shown(proxy: str) -> str:
    """Return a proxy's address without its password."""
    head, at, tail = proxy.rpartition("@")
    if not at:
        return proxy
    scheme, colon, _ = head.rpartition("://")
    return f"{scheme}{colon}********@{tail}"


def variables() -> dict[str, str]:
    """Return the variables that name proxies or exceptions, passwords masked."""
    return {
        name: shown(text)
        for name, text in sorted(os.environ.items())
        if text and name.lower() in {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
    }


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_SHARED = random.Random()  # noqa: S311 - jitter, no secret


def wait_before(attempt: int, first: float, longest: float, rng: random.Random = _SHARED) -> float:
    """Return the seconds to wait after a failed attempt, the first of which is number 0.

    They double up to `longest`; at random up to half of them is taken off, so that those who
    failed together do not come back together.
    """
    return min(longest, first * 2.0 ** min(attempt, 64)) * rng.uniform(0.5, 1.0)


def waits(attempts: int, first: float, longest: float) -> Iterator[float]:
    """Yield the seconds to wait before each further attempt."""
    return (wait_before(attempt, first, longest) for attempt in range(attempts))


_LOOK_SECONDS: Final = 0.1


async def answered(
    tasks: Iterable[asyncio.Task[Any]], hanging: float, most: float, answers: Callable[[], int]
) -> int:
    """Wait for questions as long as something is answered; cancel the rest, and return how many.

    Parameters
    ----------
    tasks
        One for each question.
    hanging, most
        Seconds without an answer after which the rest is given up; seconds for all of it.
    answers
        Returns how many answers have come to parts of the questions.
    """
    loop = asyncio.get_running_loop()
    left, known, since, end = set(tasks), answers(), loop.time(), loop.time() + most
    while left and loop.time() < min(since + hanging, end):
        done, left = await asyncio.wait(
            left, timeout=min(_LOOK_SECONDS, hanging), return_when=asyncio.FIRST_COMPLETED
        )
        if done or answers() != known:
            known, since = answers(), loop.time()
    for task in left:
        task.cancel()
    if left:  # one that cannot be cancelled is left alone
        await asyncio.wait(left, timeout=_LOOK_SECONDS)
    return len(left)
