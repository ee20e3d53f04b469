"""What may be the name of a session or of a symbol: the database would take anything.

Ids end up in SQL, in file names and in pages. They are checked here, and quoted there as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from fxlab.errors import InvalidIdentifier

SESSION_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SYMBOL: Final = re.compile(r"[A-Z0-9_./:-]{1,32}")
DOTS: Final = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")
"""What neither may contain: as a part of a path it leads elsewhere."""

_PAIR: Final = re.compile(r"[A-Z0-9.]+[_/-]([A-Z]{2,10})(?:[_/:-].*)?")

# The oldest idea of the project's folders: "session_" in front of an id names the same session.
SESSION_PREFIX: Final = "session_"


def check_session_id(value: str) -> str:
    """Return a session id that matches its pattern, or raise `InvalidIdentifier`."""
    allowed = "letters, digits and _ . - (64 at most) and is not . or .."
    return _check(value, SESSION_ID, "session id", allowed)


def check_symbol(value: str) -> str:
    """Return a symbol that matches its pattern, or raise `InvalidIdentifier`."""
    allowed = "capital letters, digits and _ . / : - (32 at most) and no part that is . or .."
    return _check(value, SYMBOL, "symbol", allowed)


def check_tags(tags: object) -> tuple[str, ...]:
    """Return tags as a tuple, or raise `InvalidIdentifier`.

    One text would be as many tags as it has letters, so it is refused.
    """
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidIdentifier(
            f"tags={tags!r:.80} is no list of texts; give tags=['night'], or leave it out"
        )
    found = tuple(tags)
    for number, tag in enumerate(found):
        if not isinstance(tag, str):
            raise InvalidIdentifier(f"tags[{number}]={tag!r:.80} is not text; give texts")
    return found


def is_symbol(value: str) -> bool:
    """Return whether a text can be a symbol."""
    return bool(SYMBOL.fullmatch(value)) and not DOTS.search(value)


def quote_currency(symbol: str) -> str | None:
    """Return the currency that a symbol's prices are in; None if its name does not say.

    Base and quote stand on both sides of a ``_``, ``/`` or ``-``: ``BTC_USDT``, ``EUR/USD``,
    ``BTC/USDT:USDT``.
    """
    found = _PAIR.fullmatch(symbol)
    return found[1] if found else None


def _check(value: str, pattern: re.Pattern[str], kind: str, allowed: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value) and not DOTS.search(value):
        return value
    shown = repr(value)
    if len(shown) > 80:
        shown = f"{shown[:77]}… ({len(str(value)):,} characters)"
    raise InvalidIdentifier(f"{shown} is not a {kind}: a {kind} has {allowed}")
