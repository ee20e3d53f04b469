"""One line in a panel that says what went wrong, where the user looks.

JupyterLab shows an error of a callback in its log panel only: without this line a click that
fails looks like a click that does nothing.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ipywidgets as w

from fxlab.errors import Cancelled, FxlabError
from fxlab.html import escape


class Message(w.HTML):
    """A line that is empty while all is well."""

    @property
    def failed(self) -> bool:
        """Return whether an error is shown."""
        return 'role="alert"' in self.value

    def say(self, text: str) -> None:
        """Show a plain sentence, spoken by screen readers when they are free."""
        self.value = text and f'<span role="status" class="fxlab-soft">{escape(text)}</span>'

    def fail(self, error: BaseException) -> None:
        """Show an error with its next step, in red and spoken at once; its traceback folded."""
        text = str(error) if isinstance(error, FxlabError) else _surprise(error)
        text = text.replace("the traceback above", "the traceback below")
        self.value = f'<div role="alert" class="fxlab-error">{escape(text)}</div>{_folded(error)}'

    def tell(self, asked: Callable[[], object], otherwise: str = "") -> None:
        """Show why a question has no answer; if it has one, say something else."""
        try:
            asked()
        except FxlabError as error:
            self.fail(error)
        else:
            self.say(otherwise)

    def clear(self) -> None:
        """Say nothing."""
        self.value = ""

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Clear the line, run the block, and show its error here.

        Errors of fxlab end here: their message says all. Others go on to the log as well.
        """
        self.clear()
        try:
            yield
        except Cancelled as error:
            self.say(str(error) or "stopped")
        except FxlabError as error:
            self.fail(error)
        except Exception as error:
            self.fail(error)
            raise


def _surprise(error: BaseException) -> str:
    return (
        f"{type(error).__name__}: {error}. This was not foreseen; the traceback below shows where"
    )


def _folded(error: BaseException) -> str:
    """Return the traceback of what was raised at first, or nothing where fxlab's words say all."""
    cause: BaseException | None = error
    while isinstance(cause, FxlabError):
        cause = cause.__cause__
    if cause is None:
        return ""
    lines = "".join(traceback.format_exception(cause))
    return f"<details><summary>Traceback</summary><pre>{escape(lines)}</pre></details>"
