"""Every error that fxlab raises on purpose, as one tree.

Catch `FxlabError` to catch them all. Each message names the value, the rule it broke and the
next step.

FxlabError
├── QuestDBError
│   ├── QuestDBUnavailable        no server answers at the address
│   │   └── ServerExhausted       it has used up the system's memory maps, files or memory
│   ├── QuestDBLoginFailed        a server answers and refuses the user or password
│   ├── ServerStartFailed         the embedded server could not be fetched or started
│   │   ├── JarVerificationFailed the server's jar is not the pinned one
│   │   └── PortTaken             another program listens on a port fxlab needs
│   ├── SchemaError               foreign, newer or damaged tables
│   │   └── TableSuspended        a table takes rows but does not show them
│   ├── QueryFailed               the server refused a query
│   └── WriteFailed               rows were not stored; nothing was written
│       └── BatchRefused          the server refused a batch: a row in it is bad
├── VenueError
│   ├── VenueUnavailable          an exchange does not answer, or not as documented
│   └── VenueRefused              an exchange refuses: blocked, too many requests
├── CollectionFailed              a recording had to end; what was received is kept
├── SessionBusy                   another collector writes this session
├── NotFound                      (LookupError)
│   ├── SessionNotFound
│   ├── SymbolNotFound
│   ├── StrategyNotFound
│   ├── VenueNotFound
│   ├── RunNotFound
│   └── SweepNotFound
├── InvalidInput                  (ValueError)
│   ├── InvalidIdentifier         a session id or symbol breaks its pattern
│   ├── InvalidTimeRange
│   ├── InvalidParameter          a strategy or execution parameter
│   ├── InvalidTicks              rows that are not ticks: unsorted, NaN, negative price
│   ├── InvalidSettings
│   └── ImportRefused             a file that fxlab cannot read without losing something
├── SessionExists                 the id is taken by other data
├── EmptySession                  a session without the rows the call needs
├── StrategyFailed                a strategy's own code raised; the cause is kept
├── WorkerLost                    a process that replayed points has ended
├── LookaheadFound                a strategy's targets depend on later rows
├── RunConflict                   a run came out otherwise than the one it should be
└── Cancelled                     the user stopped the work
    └── SweepCancelled            a sweep; what is done of it is in `sweep`
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Final, Self

_LONG: Final = re.compile(r"(\S{310})\S{90,}")


class FxlabError(Exception):
    """Root of all errors that fxlab raises on purpose.

    Examples
    --------
    >>> try:
    ...     fxlab.backtest(ticks, "sma_crosss")
    ... except fxlab.FxlabError as error:
    ...     print(type(error).__name__)
    StrategyNotFound
    """

    def __str__(self) -> str:
        """Return the message; of a value that nobody would read to its end, the beginning."""
        return _LONG.sub(r"\1...", super().__str__())


class QuestDBError(FxlabError):
    """Something between fxlab and its database went wrong."""


class QuestDBUnavailable(QuestDBError):  # noqa: N818 - named as users say it
    """No QuestDB server answers at the configured address."""

    @classmethod
    def at(cls, host: str, port: int, reason: str) -> Self:
        """Build the error for an address that does not answer."""
        return cls(
            f"QuestDB is required but could not be reached at {host}:{port} ({reason}); "
            "run: fxlab up (in Python: fxlab.up())"
        )


class ServerExhausted(QuestDBUnavailable):
    """The server has used up the memory maps, files or memory that the system lets it have."""


class QuestDBLoginFailed(QuestDBError):  # noqa: N818
    """A server answers but refuses the user name or password."""


class ServerStartFailed(QuestDBError):  # noqa: N818
    """The embedded server could not be fetched, verified or started."""


class JarVerificationFailed(ServerStartFailed):
    """The server's jar does not have the pinned SHA-256."""


class PortTaken(ServerStartFailed):
    """Another program listens on a port that the embedded server needs."""


class SchemaError(QuestDBError):
    """The database's tables are foreign, newer, damaged or suspended."""


class TableSuspended(SchemaError):  # noqa: N818
    """A table takes rows but does not show them, until it is resumed."""


class QueryFailed(QuestDBError):  # noqa: N818
    """The server refused a query."""


class WriteFailed(QuestDBError):  # noqa: N818
    """Rows could not be stored; none of the refused batch was written."""


class BatchRefused(WriteFailed):
    """The server refused a batch for what is in it; sending it again cannot help."""


class VenueError(FxlabError):
    """Something between fxlab and an exchange went wrong."""


class VenueUnavailable(VenueError):  # noqa: N818
    """An exchange does not answer, or answers with something that is not documented."""


class VenueRefused(VenueError):  # noqa: N818
    """An exchange refuses to serve: blocked, forbidden, or asked too often."""


class CollectionFailed(FxlabError):  # noqa: N818
    """A recording had to end; everything received until then is kept."""


class SessionBusy(FxlabError):  # noqa: N818
    """Another collector writes this session."""


class NotFound(FxlabError, LookupError):  # noqa: N818
    """Something asked for by name does not exist."""

    kind = "item"
    next_step = ""

    @classmethod
    def named(cls, name: str, known: Iterable[str]) -> Self:
        """Build the error from the missing name and the names that exist."""
        shown = repr(name if len(name) <= 80 else name[:77] + "...")
        parts = [f"no {cls.kind} named {shown}", did_you_mean(name, known), cls.next_step]
        return cls("; ".join(part for part in parts if part))


class SessionNotFound(NotFound):
    """No session has this id."""

    kind = "session"
    next_step = "list them with lab.sessions() or: fxlab sessions list"


class SymbolNotFound(NotFound):
    """The session holds no such symbol."""

    kind = "symbol"
    next_step = "the session's symbols are in session.symbols"


class StrategyNotFound(NotFound):
    """No strategy is registered under this name."""

    kind = "strategy"
    next_step = "fxlab.strategies() lists the shipped ones; register yours with @fxlab.strategy"


class VenueNotFound(NotFound):
    """No feed is known under this name."""

    kind = "venue"
    next_step = "list them with: fxlab collect --help; or give a Feed of your own"


class RunNotFound(NotFound):
    """No saved run has this id."""

    kind = "run"
    next_step = "list them with lab.runs()"


class SweepNotFound(NotFound):
    """No kept sweep has this id."""

    kind = "sweep"
    next_step = "list them with lab.sweeps()"


class InvalidInput(FxlabError, ValueError):  # noqa: N818
    """A value given to fxlab breaks a rule; nothing was read or written."""


class InvalidIdentifier(InvalidInput):
    """A session id or symbol does not match its pattern."""


class InvalidTimeRange(InvalidInput):
    """A start and end that select nothing, or that mix naive and aware times."""


class InvalidParameter(InvalidInput):
    """A parameter with an unknown name, a wrong type or a value out of range."""


class InvalidTicks(InvalidInput):
    """Rows that are not ticks: unsorted, not finite, or not positive."""


class InvalidSettings(InvalidInput):
    """A setting that cannot be used, with the place it came from."""


class ImportRefused(InvalidInput):
    """A file that cannot be imported without losing or inventing something.

    Attributes
    ----------
    file
        What the catalogue calls the file; None where several are refused for each other.
    """

    file: str | None = None


class SessionExists(FxlabError):  # noqa: N818
    """The session id is taken by other data."""


class EmptySession(FxlabError):  # noqa: N818
    """The session lacks the rows that the call needs."""


class StrategyFailed(FxlabError):  # noqa: N818
    """A strategy's own code raised an error, which is kept as the cause."""

    @classmethod
    def of(cls, owner: str, error: Exception) -> Self:
        """Build the error from the words for strategy and parameters, and the cause."""
        text = str(error).strip().partition("\n")[0][:300]
        return cls(
            f"{owner} raised {type(error).__name__}: {text}; the traceback above shows where"
        )


class WorkerLost(FxlabError):  # noqa: N818
    """A process that replayed points of a sweep has ended before they were done."""


class LookaheadFound(FxlabError):  # noqa: N818
    """A strategy's target at a row depends on rows that come later."""


class RunConflict(FxlabError):  # noqa: N818
    """A run is not the one it should be: what was saved or swept came out otherwise."""


class Cancelled(FxlabError):  # noqa: N818
    """The user stopped the work; what was finished stays."""


class SweepCancelled(Cancelled):
    """The user stopped a sweep; `sweep` holds the points that were finished."""

    def __init__(self, message: str, sweep: object) -> None:
        super().__init__(message)
        self.sweep = sweep


def did_you_mean(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Return ``did you mean 'a', 'b'?`` for the nearest known names, or an empty string."""
    near = difflib.get_close_matches(name[:128], list(known), n=limit, cutoff=0.5)
    return f"did you mean {', '.join(map(repr, near))}?" if near else ""


def check_choice(name: str, value: object, known: Sequence[str], kind: str) -> None:
    """Raise `InvalidParameter` for a value that is none of the known ones."""
    if value not in known:
        near = did_you_mean(str(value), known)
        words = f"{name}={value!r:.80} is not a {kind}; known: {', '.join(known)}. {near}"
        raise InvalidParameter(words.strip())


def some(names: Iterable[str], most: int = 20) -> str:
    """Return names in one line, of very many the first ones and how many more there are."""
    known = list(names)
    more = f" and {len(known) - most:,} more" if len(known) > most else ""
    return ", ".join(known[:most]) + more


def check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise `InvalidParameter` for the first name that is not known, with those that are near."""
    names = list(known)
    for name in given:
        if name not in names:
            near = did_you_mean(str(name), names)
            parts = [f"{what} has no {name!r:.80}", near, f"it has: {', '.join(names)}"]
            raise InvalidParameter("; ".join(part for part in parts if part))
