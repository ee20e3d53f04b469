"""Runner of notebooks by papermill, in parallel, each with a process and a kernel of its own.

A process ends when it has to, or when this one ends, and its kernel with it: nothing outlives
a batch that was stopped or killed. `save_outputs` is the last cell of a batch's notebook: it saves
the run, writes its report and leaves its metrics for the batch.
"""

from __future__ import annotations

import ast
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fxlab._times import Duration, integer, parse_duration, required
from fxlab.backtester.report._summary import sparkline
from fxlab.config import path_of, write_whole
from fxlab.errors import InvalidInput, InvalidParameter, check_names
from fxlab.sweeper import _executors

if TYPE_CHECKING:
    from fxlab.backtester.result import Result
    from fxlab.lab import Lab


NOTEBOOK: Final = "notebook.ipynb"
LOG: Final = "log.txt"
OUTPUTS: Final = "result.json"
LOOK_EVERY: Final = 0.1  # seconds
KERNEL: Final = "python3"
PATIENCE: Final = 300
"""Seconds for a kernel to start, and for outputs to arrive; papermill itself waits 4."""

_FOLDERS: Final = ("notebooks/batch", "notebooks")
_MESSAGE_LENGTH: Final = 1_000


@dataclass(frozen=True)
class NotebookTask:
    """A notebook to run, what to give it, and the folder for what comes out."""

    path: Path
    parameters: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class NotebookOutcome:
    """How a notebook ended: done, failed (a cell raised), died or timeout; why; after how long."""

    state: str
    error: str
    seconds: float


def find(notebook: str | Path) -> Path:
    """Return the path of a notebook, or of a shipped one by its plain name.

    Raises
    ------
    InvalidInput
        If there is none.
    """
    path = path_of(notebook)
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
    """Raise `InvalidParameter` unless the notebook declares all these names, for such values.

    papermill itself only warns of names: a typing error would run the whole batch with defaults.
    What a cell declares is its type, else that of its default; what neither tells takes any value.
    """
    import papermill

    declared = papermill.inspect_notebook(str(path))
    cell = f"the parameters cell of {path.name}"
    check_names(given, declared, cell)
    for name, value in given.items():
        kind, wanted = _kind_of(value), _declared_kind(declared[name])
        whole = isinstance(value, int) and wanted == _NUMBER  # True is an int
        if kind and wanted and kind != wanted and not whole:
            raise InvalidParameter(
                f"{name}={value!r:.80} is {kind}, and {cell} declares {wanted}; declare it there "
                f"as {name}: {type(value).__name__}, as the shipped notebook does"
            )


_NUMBER: Final = "a number"
_KINDS: Final[tuple[tuple[str, Any, tuple[str, ...]], ...]] = (
    ("true or false", bool, ("bool",)),
    (_NUMBER, int | float, ("int", "float")),
    ("a text", str, ("str",)),
    ("a list", list | tuple, ("list", "List", "tuple", "Tuple", "Sequence")),
    ("a dict", dict, ("dict", "Dict", "Mapping")),
)
"""Kinds of values: their types, and the names of these in a parameters cell."""


def _kind_of(value: object) -> str:
    """Return the kind of a value; empty for None, and for any other."""
    return next((kind for kind, types, _ in _KINDS if isinstance(value, types)), "")


def _declared_kind(declared: Mapping[str, str]) -> str:
    """Return the kind of values that a cell declares, as papermill read it; empty if unknown."""
    name = declared["inferred_type_name"].partition("[")[0].strip()
    if name != "None":
        return next((kind for kind, _, names in _KINDS if name in names), "")
    try:
        return _kind_of(ast.literal_eval(declared["default"]))
    except (ValueError, TypeError, SyntaxError):  # an expression
        return ""


def time_limit(timeout: Duration | None) -> float | None:
    """Return a time limit in seconds.

    Raises
    ------
    InvalidParameter
        If it is no duration, or none at all.
    """
    if timeout is None:
        return None
    micros = parse_duration(timeout, "timeout")
    if not micros:
        raise InvalidParameter(
            f"timeout={timeout!r:.80} leaves no time to run; give one such as '30m', or none"
        )
    return micros / 1e6


NIGHT: Final = "night"


def night_options(held: object, **given: Any) -> dict[str, Any]:  # noqa: ANN401 - checked here
    """Return the options of a night: each as given, else as the ``[night]`` of its plan has it.

    Parameters
    ----------
    held
        What `read_plan` returned.
    **given
        ``top``, ``keep``, ``timeout`` and ``on_failure`` as `fxlab.nightly` takes them; None
        leaves the plan its word.

    Raises
    ------
    InvalidParameter
        For an unknown name ("did you mean"), or a value that is not possible.
    """
    known = ("top", "keep", "timeout", "on_failure")
    own = held.get(NIGHT, {}) if isinstance(held, Mapping) else {}
    if not isinstance(own, Mapping):
        raise InvalidParameter(f"write [{NIGHT}] once, and {', '.join(known)} below it")
    check_names(own, known, "a night")
    found = dict.fromkeys(known) | dict(own) | {k: v for k, v in given.items() if v is not None}
    top, keep, command = found["top"], found["keep"], found["on_failure"]
    if top is not None:
        required(integer(top, 0), f"top={top!r:.80} is not a number of points; give 0 or more")
    if keep == "all":
        found["keep"] = None
    elif keep is not None:
        required(
            integer(keep, 1),
            f"keep={keep!r:.80} is not a number of nights; give 1 or more, or 'all' to keep all of "
            "them",
        )
    if found["timeout"] == "none":
        found["timeout"] = None
    time_limit(found["timeout"])
    if not isinstance(command, str | None):
        raise InvalidParameter(
            f'on_failure={command!r:.80} is not a text; write on_failure = "mail -s night me"'
        )
    return found


HOOK_TIMEOUT: Final = 60
"""Seconds that the command of a failure may take: it must not hold the next night up."""


def split_command(text: str | None) -> list[str]:
    """Return the words of the command of a failure, before a night is run in vain.

    Raises
    ------
    InvalidParameter
        If it is no command, or its program is not there.
    """
    try:
        words = shlex.split(text or "")
    except (ValueError, AttributeError) as error:
        raise InvalidParameter(f"on_failure={text!r:.80} is no command: {error}") from error
    if not words:
        return []
    program = shutil.which(words[0])
    if program is None:
        raise InvalidParameter(
            f"on_failure={text!r:.80}: there is no program {words[0]!r:.80}; give one that is on "
            "the PATH, or its whole path"
        )
    return [str(Path(program).absolute()), *words[1:]]


def tell(command: Sequence[str], words: str) -> str:
    """Run a command that reads the words; return what went wrong with it, nothing if it is well."""
    if not command:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - what the user asked for, without a shell
            command,
            input=words,
            capture_output=True,  # standard output may be JSON here
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=HOOK_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"on_failure did not run to its end: {error}"
    if not done.returncode:
        return ""
    return f"on_failure ended with code {done.returncode}: {done.stderr.strip()[-300:]}"


def run_all(
    tasks: Sequence[NotebookTask],
    workers: int,
    environment: Mapping[str, str],
    tick: Callable[[int], None],
    limit: float | None = None,
) -> Iterator[tuple[int, NotebookOutcome]]:
    """Yield how notebooks ended, as they do, with their place in `tasks`.

    Parameters
    ----------
    workers
        How many run at a time.
    environment
        Variables for them, beside those of this process.
    tick
        Called several times a second how many are running; whatever it raises stops them all.
    limit
        Seconds after which a notebook is ended, process and kernel.
    """
    waiting = list(enumerate(tasks))[::-1]
    running: dict[Future[NotebookOutcome], tuple[int, Any, float]] = {}
    idle: list[Any] = []
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                executor = idle.pop() if idle else _executors.start(environment)
                _prepare(waiting[-1][1].folder)
                try:
                    future = executor.submit(execute, waiting[-1][1])
                except BrokenExecutor:  # its process was lost while it had nothing to do
                    _executors.end(executor)
                    continue
                running[future] = waiting.pop()[0], executor, time.monotonic()
            ended = wait(running, LOOK_EVERY, FIRST_COMPLETED).done
            tick(len(running))
            for future in ended:
                number, executor, began = running.pop(future)
                try:
                    outcome = future.result()
                    idle.append(executor)
                except BrokenExecutor as error:
                    words = f"its process ended with code {_executors.exit_code(error)}; see {LOG}"
                    outcome = NotebookOutcome("died", words, time.monotonic() - began)
                    _executors.end(executor)
                yield number, outcome
            for future in _late(running, limit):
                number, executor, began = running.pop(future)
                _executors.end(executor)
                words = f"it took longer than {limit:g} seconds and was ended; see {LOG}"
                yield number, NotebookOutcome("timeout", words, time.monotonic() - began)
    finally:
        for executor in [*idle, *(one for _, one, _ in running.values())]:
            _executors.end(executor)


def _late(
    running: Mapping[Future[NotebookOutcome], tuple[int, Any, float]], limit: float | None
) -> list[Future[NotebookOutcome]]:
    """Return what runs for too long; what has ended meanwhile is not late."""
    if limit is None:
        return []
    now = time.monotonic()
    return [
        future
        for future, (_, _, began) in running.items()
        if now - began > limit and not future.done()
    ]


def _prepare(folder: Path) -> None:
    """Make a folder, without what an earlier attempt left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (NOTEBOOK, f".{NOTEBOOK}", LOG, OUTPUTS):
        (folder / name).unlink(missing_ok=True)


def execute(task: NotebookTask) -> NotebookOutcome:
    """Run a notebook in the process that this runs in, and write its log.

    Whatever happens, the notebook in the task's folder holds what there is, and appears under its
    name when it is whole.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    began, state, error = time.monotonic(), "failed", ""
    target, running = task.folder / NOTEBOOK, task.folder / f".{NOTEBOOK}"
    with (task.folder / LOG).open("wb") as log:  # of this process and of its kernel
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    try:
        papermill.execute_notebook(
            str(task.path),
            str(running),
            dict(task.parameters),
            kernel_name=KERNEL,
            progress_bar=False,
            start_timeout=PATIENCE,
            iopub_timeout=PATIENCE,
            raise_on_iopub_timeout=True,
            store_widget_state=False,  # 200 KB that a page without a kernel makes nothing of
        )
        state = "done"
    except PapermillExecutionError as raised:
        error = f"{raised.ename}: {raised.evalue}"
    except DeadKernelError:
        state = "died"
        error = "the kernel died: it was killed, or had too little memory; try fewer workers"
    except Exception as raised:  # noqa: BLE001 - the other notebooks go on
        traceback.print_exc()
        error = f"{type(raised).__name__}: {raised}"
    if running.exists():
        running.replace(target)
    return NotebookOutcome(state, error[:_MESSAGE_LENGTH], time.monotonic() - began)


def environment_for(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which another process finds the same server and modules."""
    own = [path or os.getcwd() for path in sys.path]  # noqa: PTH109 - "" is the working directory
    places = [path for path in own if not path.startswith((sys.prefix, sys.base_prefix))]
    return {
        **settings,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(places)),
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this Python, not one of the user's
    }


def save_outputs(result: Result, lab: Lab, folder: str | Path) -> str:
    """Save a run, and leave what a batch's index shows of it; return the run's id.

    Parameters
    ----------
    result
        A finished backtest.
    lab
        Where it is saved.
    folder
        Takes the metrics; the report goes into the folder around it, beside the others of a batch.
        Nothing is written if it is empty.
    """
    saved = result.save(lab)
    if not folder:
        return saved
    named = replace(result, run_id=saved)  # a run that was saved before keeps its name
    report = named.report(Path(folder).parent)
    left = {
        "run_id": saved,
        "fingerprint": result.fingerprint,
        "report": report.name,
        "ticks": result.ticks,
        "metrics": {n: v if math.isfinite(v) else None for n, v in result.metrics.items()},
        "sparkline": sparkline(result.equity["equity"].to_list()),
    }
    write_whole(Path(folder) / OUTPUTS, json.dumps(left))
    return saved
