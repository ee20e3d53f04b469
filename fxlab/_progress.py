"""Progress bar for a terminal and for a notebook's cell.

It is silent where nobody looks (output that is no terminal), so logs stay small.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
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


def _screen() -> Console | None:
    """Return where somebody looks: a terminal, by its standard error, or a notebook's cell."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    in_notebook = getattr(shell, "kernel", None) is not None
    if not (in_notebook or sys.stderr.isatty()):
        return None
    from rich.console import Console

    return Console(force_jupyter=True) if in_notebook else Console(stderr=True)


@contextmanager
def _shown(screen: Console) -> Iterator[Progress]:
    """Show a bar while the context is open."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen, transient=True) as progress:
        _bars.append(progress)
        try:
            yield progress
        finally:
            _bars.remove(progress)


@contextmanager
def terminal(title: str) -> Iterator[Advance]:
    """Show a bar in a terminal or a notebook, or nothing where there is neither."""
    if (screen := _screen()) is None:
        yield silent
        return
    with _shown(screen) as progress:
        task = progress.add_task(title, total=1.0, note="")

        def advance(share: float, text: str = "") -> None:
            progress.update(task, completed=share, note=text)

        yield advance


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Say by one line, once, what takes long now, and show a bar where there is none."""
    screen = _bars[-1].console if _bars else _screen()
    if text not in _said:
        _said.add(text)
        if screen is None:
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - where a bar would be
        else:
            screen.print(text, highlight=False, markup=False)
    if _bars or screen is None:
        yield
        return
    with _shown(screen) as progress:
        progress.add_task("", total=None, note="")  # how long is not known: the bar pulses
        yield
