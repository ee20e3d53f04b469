"""What an import did, file by file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from fxlab import html
from fxlab.collect.draft import Draft
from fxlab.schema import UTC_MICROS

SCHEMA: Final = {
    "session_id": pl.String(),
    "symbol": pl.String(),
    "file": pl.String(),
    "kind": pl.String(),
    "rows": pl.Int64(),
    "first": UTC_MICROS,
    "last": UTC_MICROS,
    "backward": pl.Int64(),
    "state": pl.String(),
}

Line = Mapping[str, Any]
"""One row of the report."""


@dataclass(frozen=True, repr=False)
class ImportReport:
    """The outcome of an import.

    Attributes
    ----------
    frame
        See `table`.
    skipped
        Files and folders that are no part of a session and were not read.
    notes
        What was done that the rows do not show: times rounded, rows known by their place only.
    """

    frame: pl.DataFrame
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sessions(self) -> list[str]:
        """Return the session ids, in the order of the import."""
        return self.frame["session_id"].unique(maintain_order=True).to_list()

    @property
    def rows(self) -> int:
        """Return the number of rows in the files; unless it was a dry run they are all stored."""
        return int(self.frame["rows"].sum())

    def table(self) -> pl.DataFrame:
        """Return one row a (file, symbol).

        Returns
        -------
        polars.DataFrame
            ``session_id``, ``symbol``, ``file``, ``kind`` ("prices" or "orderbook"), ``rows``,
            ``first`` and ``last`` time, ``backward`` (rows earlier than the row before them; they
            are stored as they are), ``state``: "imported", "finished" (an import that had stopped
            half-way), "unchanged" (it was there), "updated" (it was there; what is said of it is
            new); of a dry run "new", "unfinished", "unchanged".
        """
        return self.frame

    def __repr__(self) -> str:
        """Show what became of how much, and the table."""
        states = self.frame.group_by("state", maintain_order=True).len()
        told = ", ".join(f"{count} {state}" for state, count in states.iter_rows())
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"<ImportReport sessions={len(self.sessions)} files={self.frame.height} ({told})"
            f"{skipped} rows={self.rows:,}>\n{self.frame}" + "".join(f"\n{n}" for n in self.notes)
        )

    def _repr_html_(self) -> str:
        left = html.escape(", ".join(self.skipped))
        note = f"<p>Not part of a session, not read: {left}</p>" if left else ""
        told = "".join(f"<p>{html.escape(one)}</p>" for one in self.notes)
        return html.table(self.frame, caption=f"{self.rows:,} rows") + note + told


def lines_of(draft: Draft) -> list[Line]:
    """Return a session's lines of the report, still without a state."""
    return [
        {
            "session_id": draft.session_id,
            "symbol": part.symbol,
            "file": part.path,
            "kind": part.data_type,
            "rows": part.frame.height,
            "first": part.first,
            "last": part.last,
            "backward": part.backward,
            "notes": [f"{part.path}, {part.symbol}: {note}" for note in part.notes],
        }
        for part in draft.parts
    ]


def report(lines: Iterable[Line], skipped: Iterable[str] = ()) -> ImportReport:
    """Return the report of all lines."""
    told = list(lines)
    notes = tuple(note for line in told for note in line.get("notes", ()))
    rows = [{name: line[name] for name in SCHEMA} for line in told]
    return ImportReport(pl.DataFrame(rows, schema=SCHEMA), tuple(skipped), notes)
