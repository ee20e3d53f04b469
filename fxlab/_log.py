"""Logging of the package: logger ``fxlab``, silent until an application or a user asks for it."""

from __future__ import annotations

import logging
import sys
from typing import Final, TextIO

from fxlab.errors import InvalidParameter

LOGGER: Final = logging.getLogger("fxlab")
LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR")

_shown: logging.Handler | None = None


def enable_logging(level: str = "INFO", stream: TextIO | None = None) -> None:
    """Show the log of fxlab: what server, importer and collector do, and when.

    An application that configures `logging` itself does not need this: the logger ``fxlab`` hands
    its records up. Passwords and login data are never logged. Called again, it changes the level.

    Parameters
    ----------
    level : {"DEBUG", "INFO", "WARNING", "ERROR"}
        INFO tells begins and ends of servers, imports and recordings, and each gap; DEBUG every
        query and request too.
    stream : file, optional
        Where to write; standard error if not given.

    Raises
    ------
    InvalidParameter
        If the level is none of these.

    Examples
    --------
    >>> import fxlab
    >>> fxlab.enable_logging("WARNING")
    """
    global _shown  # noqa: PLW0603 - a process has one log
    if level not in LEVELS:
        raise InvalidParameter(f"level={level!r} must be one of: {', '.join(LEVELS)}")
    if _shown is not None:
        LOGGER.removeHandler(_shown)
    _shown = logging.StreamHandler(stream or sys.stderr)
    _shown.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    LOGGER.addHandler(_shown)
    LOGGER.setLevel(level)
