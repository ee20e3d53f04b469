"""Compilation decorator (numba): one set of floating-point rules, a cache that cannot be stale.

Compiled code is cached on disk: a fresh process pays for it once a machine. numba looks only at the
file of the function itself to see whether its cache is old; these functions call each other across
files, so the cache lives in a folder named by the hash of all of them. A cache is a comfort: where
none can be written, everything works all the same. `fastmath` stays off, because reordered sums
would differ between machines.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import platformdirs
from numba import config, njit
from numba.core import cgutils, event, types
from numba.extending import intrinsic, overload

from fxlab._progress import Advance, say_once, silent, waiting

SOURCES: Final = ("*.py",)

_made: list[Any] = []
"""Functions that are compiled by themselves: what a bar of compiling counts."""


@cache
def cache_folder() -> str | None:
    """Return where the compiled code of this very source is kept; None if it can be nowhere.

    Where the user's cache cannot be written, a folder that lives as long as this process does; the
    processes that it starts find it, too.
    """
    base = Path(config.CACHE_DIR or platformdirs.user_cache_path("fxlab"))
    reason = _why_not(base / _digest())
    if not reason:
        return str(base / _digest())
    warnings.warn(
        f"compiled code cannot be kept in {base} ({reason}), so it is compiled again each time, "
        "which takes about half a minute; set NUMBA_CACHE_DIR to a folder that can be written",
        RuntimeWarning,
        stacklevel=2,
    )
    try:
        scratch = tempfile.mkdtemp(prefix="fxlab-")  # mode 0700: cached code is run
    except OSError:
        return None
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    os.environ["NUMBA_CACHE_DIR"] = scratch
    return str(Path(scratch) / _digest())


def _digest() -> str:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(here.glob(pattern)):
            digest.update(path.read_bytes())
    return f"kernels/{digest.hexdigest()[:16]}"


def _why_not(folder: Path) -> str:
    """Return why a folder cannot be written, or nothing."""
    if folder.parts[0] == "~":  # what platformdirs makes of a user without a home
        return "there is no home folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function at its first call.

    The error model is numpy's: prices are checked to be above zero, so no division needs a branch
    for zero.
    """
    return _compile(function, inline="never")


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function into its callers: for those that pass arrays on for each row.

    numba copies the description of each array at each call; a dozen of them cost more than a row.
    """
    return _compile(function, inline="always")


def lending(function: Callable[..., Any]) -> Any:
    """Compile a function that borrows arrays for others: only here, references are counted."""
    return _compile(function, inline="never", counted=True)


def _compile(function: Callable[..., Any], inline: str, *, counted: bool = False) -> Any:
    folder = cache_folder()
    before = config.CACHE_DIR
    config.CACHE_DIR = folder or ""  # numba reads it while it decorates, and only then
    try:
        made = njit(
            cache=folder is not None,
            nogil=True,
            error_model="numpy",
            inline=inline,
            _nrt=counted,  # a kernel allocates nothing, so no reference needs to be counted
        )(function)
    finally:
        config.CACHE_DIR = before
    made._cache.save_overload = _forgiving(made._cache.save_overload)
    if inline == "never":
        _made.append(made)
    return made


def _forgiving(save: Callable[..., None]) -> Callable[..., None]:
    """Return a saver of compiled code that a full disk, or one that went away, does not stop."""

    def forgiving(*arguments: object) -> None:
        try:
            save(*arguments)
        except OSError as error:
            warnings.warn(f"compiled code was not kept: {error}", RuntimeWarning, stacklevel=2)

    return forgiving


class _Notice(event.Listener):  # type: ignore[misc]  # numba is not typed
    """Tells by a line and a bar that functions are compiled, which numba does in silence."""

    def __init__(self) -> None:
        self._depth = 0
        self._bar = ExitStack()
        self._advance: Advance = silent
        self._left = _made

    def on_start(self, found: event.Event) -> None:
        """Tell it; numba calls this under its lock, for what a function calls, too."""
        self._depth += 1
        module = found.data["dispatcher"].py_func.__module__ or ""  # none of code that was made
        ours = module.startswith("fxlab.")
        if ours and self._depth == 1:
            say_once("compiling the backtester, once for this machine: about half a minute")
            self._left = [made for made in _made if not made.signatures]
            self._advance = self._bar.enter_context(waiting("compiling"))

    def on_end(self, _: event.Event) -> None:
        """Show how many functions are done; numba calls this."""
        self._depth -= 1
        if self._depth == 0:
            self._bar.close()
        elif self._left:  # else known ones are compiled for arrays of another kind
            done = sum(bool(made.signatures) for made in self._left)
            self._advance(done / len(self._left), f"{done} of {len(self._left)} functions")


event.register("numba:compile", _Notice())


def borrow(array):
    """Return an array that nobody owns, and that may be written.

    Kernels count no references, so the caller has to keep the array that was lent. Arrays that are
    read-only (Polars') and those that are not become one type: a kernel is compiled once.
    """
    return array


@intrinsic
def _without_owner(context, array):
    kind = array.copy(readonly=False)

    def build(context, builder, signature, arguments):
        lent = context.make_array(signature.args[0])(context, builder, arguments[0])
        view = context.make_array(kind)(context, builder)
        for name in ("nitems", "itemsize", "data", "shape", "strides"):
            setattr(view, name, getattr(lent, name))
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return kind(array), build


@overload(borrow)
def _borrow(array):
    return lambda array: _without_owner(array)


def float_of(bits):
    """Return the float of the same bits as an integer."""
    return np.int64(bits).view(np.float64)


@intrinsic
def _cast(context, bits):
    def build(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float64))

    return types.float64(bits), build


@overload(float_of)
def _float_of(bits):
    return lambda bits: _cast(bits)
