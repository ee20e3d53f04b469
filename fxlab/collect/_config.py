"""Configuration of a recording, checked before anything is opened."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from fxlab._times import Duration, integer, parse_duration
from fxlab.errors import InvalidParameter
from fxlab.schema import BOOK_DEPTH, check_session_id, check_symbol, check_tags

INTERVAL_US: Final = 50_000
"""Between two batches: what a killed process can lose of what it had received."""

SETTLE_US: Final = 6_000_000
"""Frames that overtake each other are given this long before skipped ids are called a gap."""

JOURNAL_LIMIT: Final = 2_000_000_000
"""Bytes that may wait for the server, some 25 million trades."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A recording to be made; `Plan.of` checks what a user typed.

    Attributes
    ----------
    venue, symbols
        Where, and what.
    duration
        Microseconds, or None for until it is stopped.
    trades, book_depth, book_every
        What to store: trades; levels of the book (0 none, 1 best bid and ask, up to 10); least
        microseconds between two stored books of a symbol, 0 for each change.
    backfill
        Whether gaps in trades are asked for at the venue.
    resume
        Whether to go on with a session that ended.
    interval, settle
        Microseconds between batches, and until skipped ids are called a gap.
    journal_limit
        Bytes in the journal at which the recording ends.
    """

    venue: str
    symbols: tuple[str, ...]
    session_id: str
    duration: int | None = None
    trades: bool = True
    book_depth: int = BOOK_DEPTH
    book_every: int = 0
    backfill: bool = True
    resume: bool = False
    interval: int = INTERVAL_US
    settle: int = SETTLE_US
    journal_limit: int = JOURNAL_LIMIT
    notes: str = ""
    tags: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        venue: str,
        symbols: str | Iterable[str],
        *,
        session_id: str | None = None,
        duration: Duration | None = None,
        book_every: Duration = 0,
        settle: Duration = SETTLE_US / 1e6,
        tags: Iterable[str] = (),
        **others: Any,  # noqa: ANN401 - the fields above
    ) -> Plan:
        """Return the plan that a user's words describe.

        Raises
        ------
        InvalidParameter, InvalidIdentifier
            Naming the value and the rule.
        """
        names = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        if not names:
            raise InvalidParameter("no symbol was given; name at least one, such as BTC_USDT")
        if others.get("resume") and not session_id:
            raise InvalidParameter("resume=True needs the session_id to go on with")
        plan = cls(
            venue=venue,
            symbols=tuple(dict.fromkeys(check_symbol(name.upper()) for name in names)),
            session_id=check_session_id(session_id or new_session_id()),
            duration=None if duration is None else parse_duration(duration, "duration"),
            book_every=parse_duration(book_every, "book_every"),
            settle=parse_duration(settle, "settle"),
            tags=check_tags(tags),
            **others,
        )
        plan.check()
        return replace(plan, book_depth=int(plan.book_depth))

    def check(self) -> None:
        """Raise `InvalidParameter` for what cannot be done."""
        depth = integer(self.book_depth, 0, BOOK_DEPTH)
        if depth is None:
            raise InvalidParameter(
                f"book_depth={self.book_depth!r} is not a number of levels; give 0 (no books), 1 "
                f"(best bid and ask) or up to {BOOK_DEPTH}"
            )
        if not self.trades and not depth:
            raise InvalidParameter("trades=False and book_depth=0 leave nothing to record")
        if self.duration == 0:
            raise InvalidParameter("duration is 0; give a length of time such as '10m', or none")
        if not 1_000 <= self.interval <= 100_000:
            raise InvalidParameter(
                f"interval={self.interval} us is out of range; a batch lasts 1 to 100 ms"
            )
        if self.journal_limit < 1_000_000:
            raise InvalidParameter(
                f"journal_limit={self.journal_limit} bytes is too little for an outage; give at "
                "least 1000000"
            )

    @property
    def data_types(self) -> list[str]:
        """Return the kinds of rows that will come."""
        return ["prices"] * self.trades + ["orderbook"] * bool(self.book_depth)

    def options(self) -> dict[str, Any]:
        """Return what the session's row says about how it was recorded."""
        return {
            "trades": self.trades,
            "book_depth": self.book_depth,
            "book_every_us": self.book_every,
            "backfill": self.backfill,
        }


def new_session_id() -> str:
    """Return an id that names the moment: live_YYYYMMDD_HHMMSS_<hex>."""
    return f"live_{datetime.now(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(4)}"
