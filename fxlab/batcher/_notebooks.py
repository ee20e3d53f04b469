"""Notebook execution by papermill: check the parameters that a notebook takes, run it once.

Only this module knows papermill. A notebook runs in a process of its own (``python -m
fxlab.batcher._notebooks``), which starts the kernel. Its parent holds the other end of its standard
input: when that closes, for whatever reason, the process ends, and the kernel, which watches it, a
second later. So nothing outlives a batch that was stopped or killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fxlab.backtester.options import check_names
from fxlab.errors import InvalidInput

KERNEL: Final = "python3"
PATIENCE: Final = 300
"""Seconds for a kernel to start, and for outputs to arrive; papermill itself waits 4."""

_FOLDERS: Final = ("notebooks/batch", "notebooks")
_MESSAGE_LENGTH: Final = 1_000


def find(notebook: str | Path) -> Path:
    """Return the path of a notebook, or of a shipped one by its plain name.

    Raises
    ------
    InvalidInput
        If there is none.
    """
    path = Path(notebook)
    if path.suffix == ".ipynb" and path.is_file():
        return path.resolve()
    package = Path(__file__).parents[1]
    for root in (package, package.parent):
        for folder in _FOLDERS:
            shipped = root / folder / f"{notebook}.ipynb"
            if path.name == str(notebook) and shipped.is_file():
                return shipped
    raise InvalidInput(
        f"there is no notebook at {str(notebook)!r:.200}; give the path of an .ipynb file with a "
        "cell tagged 'parameters', or 'backtest' for the shipped one"
    )


def check_parameters(path: Path, given: Mapping[str, Any]) -> None:
    """Raise `InvalidParameter` unless the notebook declares all these names.

    papermill itself only warns: a typing error would run the whole batch with defaults.
    """
    import papermill

    declared = papermill.inspect_notebook(str(path))
    check_names(given, declared, f"the parameters cell of {path.name}")


def execute(path: Path, target: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Run a notebook into a new file, and return how it ended: ``state`` and ``error``.

    The state is ``done``; ``failed`` if a cell raised; ``died`` if the kernel was lost. In each
    case the file holds what there is, and appears under its name when it is whole.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    running = target.with_name(f".{target.name}")
    answer = {"state": "done", "error": ""}
    try:
        papermill.execute_notebook(
            str(path),
            str(running),
            dict(parameters),
            kernel_name=KERNEL,
            progress_bar=False,
            start_timeout=PATIENCE,
            iopub_timeout=PATIENCE,
            raise_on_iopub_timeout=True,
        )
    except PapermillExecutionError as error:
        answer = {"state": "failed", "error": f"{error.ename}: {error.evalue}"}
    except DeadKernelError:
        words = "the kernel died: it was killed, or had too little memory; try fewer workers"
        answer = {"state": "died", "error": words}
    if running.exists():
        running.replace(target)
    return answer | {"error": answer["error"][:_MESSAGE_LENGTH]}


def main() -> None:
    """Run what one line of JSON on standard input asks for; answer with another."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints goes to the log
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        answer = execute(Path(order["path"]), Path(order["target"]), order["parameters"])
    except Exception as error:
        answers.write(json.dumps({"state": "failed", "error": f"{type(error).__name__}: {error}"}))
        answers.flush()
        raise
    answers.write(json.dumps(answer))
    answers.flush()


def _end_with_the_parent() -> None:
    # Not sys.stdin: a thread that waits in it cannot be left behind at a normal end.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
