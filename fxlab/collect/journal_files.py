"""Where journals are: all that a start has to know, which mostly finds none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

SUFFIX: Final = ".journal"


def journal_path(home: Path, session_id: str) -> Path:
    """Return where the journal of a session is."""
    return home / "journals" / f"{session_id}{SUFFIX}"


def left_behind(home: Path) -> list[Path]:
    """Return the journals that exist, those of living collectors too."""
    return sorted((home / "journals").glob(f"*{SUFFIX}"))


def held(home: Path) -> list[str]:
    """Return the ids of the sessions that living processes are recording."""
    return [path.stem for path in left_behind(home) if _is_held(path)]


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            return False
    except Timeout:
        return True
