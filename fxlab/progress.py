"""One progress object with two faces: a line in the terminal, a bar in the notebook.

It is silent where nobody looks (output that is no terminal, papermill), so batch files stay small.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

Advance = Callable[[float, str], None]
"""Called with the share done (0 to 1) and a short text; it may raise `Cancelled`."""


_bars: list[Progress] = []
"""Those on the screen now."""
_said: set[str] = set()


def silent(share: float, text: str = "") -> None:
    """Ignore progress: the default of every function that can report it."""


def part(progress: Advance, first: float, last: float) -> Advance:
    """Return a progress that fills the part from `first` to `last` of a larger one."""
    return lambda share, text: progress(first + share * (last - first), text)


@contextmanager
def terminal(title: str) -> Iterator[Advance]:
    """Show a bar on a terminal's standard error, or nothing where there is no terminal."""
    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=1.0, note="")

        def advance(share: float, text: str = "") -> None:
            progress.update(task, completed=share, note=text)

        _bars.append(progress)
        try:
            yield advance
        finally:
            _bars.remove(progress)


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Say what takes long now: above a bar, by a spinner on a terminal, else by one line, once."""
    if _bars:
        if text not in _said:
            _bars[-1].console.print(text, highlight=False)
    elif sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(text):
            yield
        return
    elif text not in _said:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - where a bar would be
    _said.add(text)
    yield
