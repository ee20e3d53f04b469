"""Import frames that are in memory, such as those of the generator, like files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import polars as pl

from fxlab.collect.checks import Place
from fxlab.collect.draft import Draft, Origin, digest, parts_of
from fxlab.errors import ImportRefused, did_you_mean
from fxlab.schema import ORIGINS

KINDS: Final = ("prices", "orderbook")


@dataclass(frozen=True)
class FrameSession:
    """Frames that make one session.

    Attributes
    ----------
    frames
        "prices" and "orderbook", or one of them: columns as `fxlab.collect.rows` knows them.
    origin
        One of `fxlab.schema.ORIGINS`.
    """

    session_id: str
    frames: Mapping[str, pl.DataFrame]
    origin: str

    def read(self) -> Draft:
        """Check all rows; nothing is written."""
        _refuse_unknown(self.origin, ORIGINS, "source")
        parts = []
        for kind, frame in self.frames.items():
            _refuse_unknown(kind, KINDS, "kind")
            place = Place(f"the {kind} frame")
            origin = Origin(f"frame/{kind}", _content(frame), self.origin)
            found = parts_of(place, frame, origin, None)
            if any(part.data_type != kind for part in found):
                place.refuse(f"its columns are those of {found[0].data_type}")
            parts += found
        return Draft(self.session_id, tuple(parts))


def _content(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of a frame's values and column names."""
    memory = io.BytesIO()
    frame.rechunk().write_ipc(memory)
    return digest(memory.getvalue())


def _refuse_unknown(value: str, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        hint = did_you_mean(value, known)
        raise ImportRefused(
            f"{value!r:.80} is not a {what}; " + (hint or f"choose one of: {', '.join(known)}")
        )
