"""Assumptions about orders as people write them: in a file, on a command line, in a form.

There they are texts and plain numbers. Here they become an `Execution`, and a name that is none is
refused with those that are near, before anything runs.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import polars as pl

from fxlab.backtester.execution import Execution
from fxlab.backtester.funding import parse_funding
from fxlab.errors import InvalidParameter, did_you_mean
from fxlab.schema import UTC_MICROS

NAMES: Final = tuple(spec.name for spec in fields(Execution))
_OR_NONE: Final = ("maker_bps", "max_book_age", "rebalance")
_LATENCY: Final = {"kind", "values_us", "seed"}  # as `Latency.as_dict` writes it
_READERS: Final[dict[str, Callable[[Path], pl.DataFrame]]] = {
    ".csv": pl.read_csv,
    ".parquet": pl.read_parquet,
}


def execution_of(values: Mapping[str, object]) -> Execution:
    """Return the assumptions that plain values stand for.

    Parameters
    ----------
    values
        Fields of `Execution` by name. Where None is allowed the text ``"none"`` is it, and
        ``funding`` may be the path of a CSV or Parquet file.

    Raises
    ------
    InvalidParameter
        For an unknown name ("did you mean"), or a value that `Execution` refuses.
    """
    check_names(values, NAMES, "an execution")
    return Execution.from_dict({name: _plain(name, value) for name, value in values.items()})


def check_names(given: Iterable[str], known: Iterable[str], what: str) -> None:
    """Raise `InvalidParameter` for the first name that is not known, with those that are near."""
    names = list(known)
    for name in given:
        if name not in names:
            near = did_you_mean(str(name), names)
            parts = [f"{what} has no {name!r:.80}", near, f"it has: {', '.join(names)}"]
            raise InvalidParameter("; ".join(part for part in parts if part))


def read_assumptions(path: str | Path) -> dict[str, Any]:
    """Return the fields in a TOML file: those of its table ``[execution]``, if it has one.

    Raises
    ------
    InvalidParameter
        If there is no such file, or it is not TOML.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidParameter(f"{path} cannot be read as a TOML file: {error}") from error
    inner = found.get("execution", found)
    if not isinstance(inner, dict):
        raise InvalidParameter(f"{path}: execution is not a table; write [execution] above it")
    return inner


def parse_assumption(word: str) -> tuple[str, object]:
    """Return the name and the value of ``name=value``; values are written as in TOML, or bare.

    Raises
    ------
    InvalidParameter
        If there is no ``=``.
    """
    name, equals, text = word.partition("=")
    if not equals:
        raise InvalidParameter(
            f"{word!r:.80} is neither a TOML file nor NAME=VALUE, such as max_leverage=2"
        )
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        found = {}
    return name.strip(), found["value"] if found.keys() == {"value"} else text.strip()


def _plain(name: str, value: object) -> object:
    if name in _OR_NONE and isinstance(value, str) and value.strip().lower() == "none":
        return None
    if name == "funding" and isinstance(value, str | Path):
        return _funding(Path(value))
    if name == "funding" and not isinstance(value, list | tuple):
        return parse_funding(value)  # refuses what is no frame
    if name == "latency" and isinstance(value, Mapping) and value.keys() != _LATENCY:
        raise InvalidParameter(
            f"latency={dict(value)!r:.80} is not a latency; write it as text: '50ms', 'measured', "
            "'lognormal:20ms,0.5'"
        )
    return value


def _funding(path: Path) -> tuple[Any, ...]:
    """Return the rates in a file, as `Execution` keeps them."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise InvalidParameter(
            f"funding={str(path)!r:.200} is not a CSV or Parquet file; it needs the columns "
            "timestamp and rate (or rate_long and rate_short), and symbol if they differ by it"
        )
    frame = reader(path)
    if frame.schema.get("timestamp") == pl.String:
        times = pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        frame = frame.with_columns(times.cast(UTC_MICROS))
    return parse_funding(frame)
