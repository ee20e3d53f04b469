"""Where journals are: all that a start has to know, which mostly finds none."""

from __future__ import annotations

from pathlib import Path
from typing import Final

SUFFIX: Final = ".journal"


def journal_path(home: Path, session_id: str) -> Path:
    """Return where the journal of a session is."""
    return home / "journals" / f"{session_id}{SUFFIX}"


def left_behind(home: Path) -> list[Path]:
    """Return the journals that exist, those of living collectors too."""
    return sorted((home / "journals").glob(f"*{SUFFIX}"))
