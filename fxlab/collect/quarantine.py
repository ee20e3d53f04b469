"""What cannot be understood is kept as a row of the ledger: its cause and its beginning.

Every feed answers damage with the same `Event`, so that one query counts what a venue garbled.
"""

from __future__ import annotations

from typing import Final, Self

from fxlab.collect.feed import Event

SHOWN: Final = 300
"""Characters of a damaged frame that are kept."""


class Damaged(bytes):
    """A frame that is no text: what is left of it, and why.

    Attributes
    ----------
    cause
        In words: "not UTF-8", "larger than 16,777,216 bytes".
    """

    cause: str

    def __new__(cls, content: bytes, cause: str) -> Self:
        """Return the bytes with their cause."""
        made = super().__new__(cls, content)
        made.cause = cause
        return made


def quarantine(cause: str, payload: str | bytes, received: int, symbol: str | None = None) -> Event:
    """Return the event for a frame that is not as documented.

    Parameters
    ----------
    cause
        What is wrong with it, in words.
    payload
        The frame.
    received
        Its arrival, in microseconds.
    symbol
        Which symbol it speaks of, if it says.
    """
    if isinstance(payload, bytes):
        cause = getattr(payload, "cause", cause)
        payload = payload[:SHOWN].decode("utf-8", "backslashreplace")
    return Event("quarantine", symbol, received, 1, f"{cause}: {payload[:SHOWN]}")
