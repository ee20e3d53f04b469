"""What the server says when it is in trouble itself, as errors that say what helps."""

from __future__ import annotations

from typing import Final

from fxlab.errors import QueryFailed, QuestDBError, ServerExhausted, TableSuspended

MEND: Final = "run: fxlab doctor --mend (in Python: fxlab.mend())"
_EXHAUSTED: Final = (
    "could not mmap",
    "could not mremap",
    "could not map",
    "too many open files",
    "errno=24",
    "cannot allocate memory",
    "errno=12",
)


def is_exhausted(words: str) -> bool:
    """Return whether the server says that the system gives it no more maps, files or memory."""
    return any(mark in words.lower() for mark in _EXHAUSTED)


def exhausted(words: str) -> ServerExhausted:
    """Return the error for a server that has used up what the system lets it have."""
    return ServerExhausted(
        f"the server has used up the memory maps, open files or memory that the system lets it "
        f"have ({words:.200}); run: fxlab down && fxlab up, or let fxlab do it: fxlab doctor "
        "--mend (in Python: fxlab.mend()); fxlab doctor tells the limits and how to raise them"
    )


def suspended(table: str, reason: str) -> TableSuspended:
    """Return the error for a table that takes rows but does not show them."""
    return TableSuspended(
        f"table {table} is suspended: it takes rows but does not show them "
        f"({reason or 'no reason given'}); free disk space if it is full, then {MEND}"
    )


def refusal(words: str, query: str) -> QuestDBError:
    """Return the error for what a server answers to a query."""
    shown = f"{words}. Query: {query:.300}"
    if is_exhausted(words):
        return exhausted(words)
    if "suspended" in words.lower():
        return TableSuspended(f"a table is suspended: {words:.200}; {MEND}")
    return QueryFailed(shown)
