"""Where a venue lives, so that a mock or a proxy can stand in for it by one argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from fxlab.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Address:
    """The two doors of a venue.

    Attributes
    ----------
    rest
        Base URL of its REST interface, without a slash at the end.
    stream
        Base URL of its WebSocket streams, without a slash at the end.
    """

    rest: str
    stream: str

    @classmethod
    def under(cls, url: str, venue: str) -> Self:
        """Return the address of a venue served by a mock or a proxy.

        Parameters
        ----------
        url
            Such as ``http://127.0.0.1:8765``.
        venue
            Its name, which becomes the first part of every path.

        Raises
        ------
        InvalidInput
            When `url` is none of http or https with a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise InvalidInput(
                f"url={url!r}, but it is the http:// or https:// address of a mock venue or a "
                "proxy, such as http://127.0.0.1:8765; leave it out to reach the venue itself"
            )
        rest = f"{url.rstrip('/')}/{venue}"
        return cls(rest=rest, stream=f"ws{rest.removeprefix('http')}")
