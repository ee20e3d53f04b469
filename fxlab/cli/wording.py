"""What a message advises to a Python user, as a command for the user of a shell.

Messages are written once, for calls: ``list them with lab.sessions()``, ``use fill='next_trade'``.
Here, at the command line's door, calls become commands and keyword arguments the options of the
command that runs, so no function has to know who is going to read its errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# call -> command; the first that fits is taken
_CALLS: Final = (
    (r"lab\.sessions\(\) or: (?=fxlab )", ""),
    (r"list (\w+) with lab\.sessions\(\) and pass \[lab\.session\(session_id\), \.\.\.\]",
     r"list \1 with: fxlab sessions list"),
    (r"(?:with )?lab\.sessions\(\)", "with: fxlab sessions list"),
    (r"(?:with )?lab\.runs\(\)", "with: fxlab runs"),
    (r"(?:with )?lab\.sweeps\(\)", "with: fxlab sweeps"),
    (r"fxlab\.strategies\(\) lists the shipped ones; register yours with @fxlab\.strategy",
     "fxlab strategies lists the shipped ones; name yours as module:function"),
    (r"lab\.verify\('?([^')]*)'?\)", r"fxlab verify \1"),
    (r"fxlab\.connect\(\)", "fxlab up"),
    (r"fxlab\.(up|down|strategies|doctor)\(\)", r"fxlab \1"),
    (r"the session's symbols are in session\.symbols",
     "fxlab sessions show SESSION tells the session's symbols"),
    (r"they are in this error's \.sweep and nowhere else; with lab=\.\.\. .* goes on from there",
     "nothing is kept; with --save, finished points are, and a stopped sweep goes on"),
    (r"the same call\b", "the same command"),
    (r"(?:execution=)?Execution\(latency='?([^')]*)'?\)", r"--latency \1"),
    (r"(?:execution=)?Execution\((\w+)='?([^')]*)'?\)", r"-x \1=\2"),
    (r"the traceback above shows where", "fxlab --debug ... shows where"),
)  # fmt: skip
QUOTES: Final = "'\""
_KEYWORD: Final = re.compile(
    r"(?<![\w.(-])([a-z_]+)=(True|False|None|'[^']*'|\"[^\"]*\"|-?\d[\w.]*(?<!\.)|(?=[\s;,)]|$))"
)


def for_shell(message: str, options: Mapping[str, str] | None = None) -> str:
    """Return a message in the words of the command line.

    Parameters
    ----------
    message
        Of an error or a warning.
    options
        The options of the command that runs, such as ``--fill``, by the keyword they stand for.
    """
    for call, words in _CALLS:
        message = re.sub(call, words, message)
    known = options or {}

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in known:
            return found[0]
        if known[name].endswith("="):
            return f"{known[name]}{value.strip(QUOTES)}"
        if value in {"True", "None"}:
            return known[name]
        if value == "False":
            return f"--no-{known[name].removeprefix('--')}"
        return f"{known[name]} {value.strip(QUOTES)}".rstrip()

    return _KEYWORD.sub(option, message)
