"""What is to be run, as a file says it: shared values once, then a table for each piece of work.

``[defaults]`` holds what the pieces have in common, such as session and execution; each ``[[job]]``
or ``[[sweep]]`` below it adds its own values, or sets shared ones anew.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from fxlab.backtester.assumptions import check_names
from fxlab.errors import FxlabError, InvalidInput

DEFAULTS: Final = "defaults"
_SHOWN: Final = 5
"""Mistakes told at once, at most."""


def entries(plan: str | Path | Sequence[Any] | Mapping[str, Any], kind: str) -> Sequence[Any]:
    """Return the pieces of work of a plan, what they have in common filled in.

    Parameters
    ----------
    plan
        A TOML file, its content as a mapping, or the pieces themselves.
    kind
        What the tables of the file are called: ``job`` or ``sweep``.

    Raises
    ------
    InvalidInput
        If the file cannot be read, has another table, or there is no work in it.
    """
    if isinstance(plan, str | Path):
        plan = _read(Path(plan), kind)
    found = _filled_in(plan, kind) if isinstance(plan, Mapping) else list(plan)
    if not found:
        raise InvalidInput(f"there is nothing to run; write at least one [[{kind}]]")
    return found


def refuse_mistakes(mistakes: Sequence[tuple[str, FxlabError]], kind: str) -> None:
    """Raise `InvalidInput` with the first mistakes of many pieces of work, if there are any."""
    if not mistakes:
        return
    told = "; ".join(f"{name}: {error}" for name, error in mistakes[:_SHOWN])
    more = f"; and {len(mistakes) - _SHOWN:,} more" if len(mistakes) > _SHOWN else ""
    count = f"{len(mistakes):,} {kind}s are" if len(mistakes) > 1 else f"a {kind} is"
    raise InvalidInput(f"nothing was run, because {count} not possible: {told}{more}")


def _read(path: Path, kind: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror}); give a TOML file with [[{kind}]] tables"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"{path} is not a TOML file: {error}") from error


def _filled_in(plan: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    check_names(plan, (DEFAULTS, kind), "the plan")
    shared, own = plan.get(DEFAULTS, {}), plan.get(kind, [])
    tables = [shared, *own] if isinstance(own, list) else [own]
    if not (isinstance(own, list) and all(isinstance(table, Mapping) for table in tables)):
        raise InvalidInput(f"write [{DEFAULTS}] once, and [[{kind}]] above each {kind}")
    return [_merged(shared, table) for table in own]


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; of assumptions about orders each one by itself."""
    whole = {**shared, **own}
    both = [table.get("execution") for table in (shared, own)]
    if all(isinstance(each, Mapping) for each in both):
        whole["execution"] = {**both[0], **both[1]}  # type: ignore[dict-item]
    return whole
