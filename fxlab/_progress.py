"""Progress bars of long functions, in a terminal and in a notebook's cell.

They show themselves where somebody looks: in a terminal, and in a cell that a person runs. A
program that runs a notebook (papermill, nbconvert), a pipe and a log get none.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from html import escape
from typing import Any, Final

Advance = Callable[[float, str], None]
"""Called with the share done (0 to 1) and a short text; it may raise `Cancelled`."""
Progress = Advance | bool | None
"""A choice of progress: None shows a bar where somebody looks, False none; or an `Advance`."""

DELAY: Final = 0.5
"""Seconds before a bar shows itself: what ends sooner never flashes one."""

_STEP: Final = 0.01
_PAUSE: Final = 0.1  # seconds between two looks of a bar in a cell
_FORMAT: Final = "{desc} {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
_within: ContextVar[bool | None] = ContextVar("_within", default=None)
"""Whether the function that reports progress now may show a bar; None if there is no such function.

Functions that it calls show no bar of their own.
"""
_said: set[str] = set()


def silent(share: float, text: str = "") -> None:
    """Ignore progress: the default of functions within others."""


def part(progress: Advance, first: float, last: float) -> Advance:
    """Return a progress that fills the part from `first` to `last` of a larger one."""
    return lambda share, text: progress(first + share * (last - first), text)


def in_steps(progress: Advance) -> Advance:
    """Return a progress of reading that tells steps which can be seen, and what is left.

    What reads tells how many rows it has read by then, as text.
    """
    began, before = time.monotonic(), 0.0

    def told(share: float, rows: str) -> None:
        nonlocal before
        if share - before >= _STEP and share < 1.0:
            before = share
            rate = pace(int(rows or 0), time.monotonic() - began, share)
            progress(share, ", ".join(filter(None, ("read", rate))))

    return told


def pace(rows: int, seconds: float, share: float) -> str:
    """Return rows a second, and what is left, for people; nothing while neither is known."""
    left = seconds * (1 - share) / share if share else 0.0
    told = [f"{rows / max(seconds, 1e-3):,.0f} rows/s"] if rows else []
    return ", ".join([*told, f"{left:,.0f} s left"] if left >= 1 else told)


def is_watched() -> bool:
    """Return whether somebody looks: at a terminal by its standard error, or at the cell that runs.

    A kernel hears with each cell whether its sender could be asked something. Programs that run
    notebooks say no, and a click on a widget, which is no cell, says nothing. Other threads belong
    to panels and pools.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    if (kernel := _kernel()) is not None:
        return bool(kernel.get_parent().get("content", {}).get("allow_stdin"))
    return sys.stderr is not None and sys.stderr.isatty()


def _kernel() -> Any:  # noqa: ANN401 - ipykernel's
    """Return the kernel that this runs in, if it does."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(shell, "kernel", None)


@contextmanager
def shown(progress: Progress, title: str) -> Iterator[Advance]:
    """Lend the progress of a function: the one that was chosen, or a bar where somebody looks."""
    choice = chosen(progress, title)
    token = _within.set(progress is not False and _within.get() is not False)
    try:
        with choice as advance:
            yield advance
    finally:
        _within.reset(token)


def chosen(progress: Progress, title: str) -> AbstractContextManager[Advance]:
    """Return the progress that `shown` lends, for work that goes on between a caller's own steps.

    Unlike in `shown`, functions that are called meanwhile show their own bars.
    """
    if callable(progress):
        return nullcontext(progress)
    if progress is False or _within.get() is not None or not is_watched():
        return nullcontext(silent)
    return _bar(title)


def waiting(title: str) -> AbstractContextManager[Advance]:
    """Return a bar of what a function waits for, below its own; none where it is silenced."""
    if _within.get() is False or not is_watched():
        return nullcontext(silent)
    return _bar(title)


def _bar(title: str) -> AbstractContextManager[Advance]:
    return _terminal_bar(title) if _kernel() is None else _cell_bar(title)


@contextmanager
def _cell_bar(title: str) -> Iterator[Advance]:
    """Show a bar in a cell as HTML, and nothing once it has ended.

    A widget's place stays in a saved notebook: "model not found", says the page that is loaded.
    """
    from IPython.display import display

    handle: Any = None
    told = time.monotonic()

    def advance(share: float, text: str = "") -> None:
        nonlocal handle, told
        if (now := time.monotonic()) - told < (DELAY if handle is None else _PAUSE):
            return
        told = now
        line = f"{title}: {min(max(share, 0.0), 1.0):.0%} {text}"
        bar = f'<progress max="1" value="{share:.3f}" aria-label="{escape(title)}"></progress>'
        look = {"text/html": f"{bar} {escape(line)}", "text/plain": line}
        if handle is None:
            handle = display(look, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            handle.update(look, raw=True)

    try:
        yield advance
    finally:
        if handle is not None:
            handle.update({}, raw=True)


@contextmanager
def _terminal_bar(title: str) -> Iterator[Advance]:
    from tqdm import tqdm

    look = {"bar_format": _FORMAT, "delay": DELAY, "leave": False, "miniters": 0}
    with tqdm(desc=title, total=1.0, **look) as bar:

        def advance(share: float, text: str = "") -> None:
            bar.set_postfix_str(text, refresh=False)
            bar.update(min(max(share, 0.0), 1.0) - bar.n)

        yield advance


def say_once(text: str) -> None:
    """Say by one line, above a bar if there is one, what takes long now."""
    if text not in _said:
        from tqdm import tqdm

        _said.add(text)
        tqdm.write(text, file=sys.stderr)
