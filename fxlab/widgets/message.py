"""One line in a panel that says what went wrong, where the user looks.

JupyterLab shows an error of a callback in its log panel only: without this line a click that
fails looks like a click that does nothing.
"""

from __future__ import annotations

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
        """Show an error with its next step, in red and spoken at once."""
        text = str(error) if isinstance(error, FxlabError) else _surprise(error)
        self.value = f'<span role="alert" class="fxlab-error">{escape(text)}</span>'

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
    return f"{type(error).__name__}: {error}. This was not foreseen; the log panel has the details"
