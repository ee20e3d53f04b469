"""One decorator for compiled functions: the same floating rules, and a cache that cannot be stale.

Compiled code is cached on disk: a fresh process pays for it once a machine. numba looks only at the
file of the function itself to see whether its cache is old; these functions call each other across
files, so the cache lives in a folder named by the hash of all of them. `fastmath` stays off,
because reordered sums would differ between machines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import platformdirs
from numba import config, njit
from numba.core import cgutils
from numba.extending import intrinsic, overload

SOURCES: Final = ("compiled.py", "records.py", "*kernel*.py")


@cache
def cache_folder() -> str:
    """Return where the compiled code of this very source belongs."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for pattern in SOURCES:
        for path in sorted(here.glob(pattern)):
            digest.update(path.read_bytes())
    base = config.CACHE_DIR or platformdirs.user_cache_path("fxlab")
    return str(Path(base) / "kernels" / digest.hexdigest()[:16])


def compiled(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - numba's dispatcher
    """Compile a function at its first call.

    The error model is numpy's: prices are checked to be above zero, so no division needs a branch
    for zero.
    """
    return _compile(function, inline="never")


def inlined(function: Callable[..., Any]) -> Any:  # noqa: ANN401 - numba's dispatcher
    """Compile a function into its callers: for those that pass arrays on for each row.

    numba copies the description of each array at each call; a dozen of them cost more than a row.
    """
    return _compile(function, inline="always")


def _compile(function: Callable[..., Any], inline: str) -> Any:  # noqa: ANN401
    folder = cache_folder()
    before = config.CACHE_DIR
    config.CACHE_DIR = folder  # numba reads it while it decorates, and only then
    try:
        return njit(cache=True, nogil=True, error_model="numpy", inline=inline)(function)
    finally:
        config.CACHE_DIR = before


def borrow(array):
    """Return an array that does not count references to itself, and that may be written.

    numba counts one at each call that an array is passed to, atomically, which takes longer than
    most rows do. The caller has to keep the array that was lent. It also makes one type of arrays
    that are read-only (Polars') and those that are not, so that a kernel is compiled once.
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
