"""Import frames that are in memory, such as those of the generator, like files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from fxlab.backtester.frame_checks import as_frame
from fxlab.collect.checks import Place
from fxlab.collect.draft import Draft, Origin, digest, parts_of
from fxlab.collect.rows import WORDS
from fxlab.errors import ImportRefused, InvalidInput, did_you_mean
from fxlab.schema import ORIGINS

KINDS: Final = ("prices", "orderbook")


@dataclass(frozen=True)
class FrameSession:
    """Frames that make one session.

    Attributes
    ----------
    frames
        "prices" and "orderbook", or one of them: columns as `fxlab.collect.rows` knows them; of
        Polars (lazy too) or pandas, or Arrow tables.
    origin
        One of `fxlab.schema.ORIGINS`.
    """

    session_id: str
    frames: Mapping[str, Any]
    origin: str

    def read(self) -> Draft:
        """Check all rows; nothing is written."""
        _refuse_unknown(self.origin, ORIGINS, "source")
        parts = []
        for kind, given in self.frames.items():
            _refuse_unknown(kind, KINDS, "kind")
            place = Place(f"the {kind} frame")
            try:
                frame = as_frame(given, place.file)
            except InvalidInput as error:
                raise ImportRefused(f"{error}; nothing was imported") from error
            _refuse_text(place, frame)
            origin = Origin(f"frame/{kind}", _content(frame), self.origin)
            found = parts_of(place, frame, origin, None)
            if any(part.data_type != kind for part in found):
                place.refuse(f"its columns are those of {found[0].data_type}")
            parts += found
        return Draft(self.session_id, tuple(parts))


def _refuse_text(place: Place, frame: pl.DataFrame) -> None:
    """Refuse text for numbers and times: in memory they have types, and text was read amiss."""
    for name, kind in frame.schema.items():
        if kind == pl.String and name not in WORDS:
            is_time = name in ("timestamp", "received_at")
            cast = ".str.to_datetime(time_zone='UTC')" if is_time else ".cast(pl.Float64)"
            place.refuse(
                f"column {name!r} is text, not {'a time' if is_time else 'a number'}; cast it, for "
                f"example pl.col({name!r}){cast}"
            )


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
