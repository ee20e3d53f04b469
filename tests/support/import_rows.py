"""Rows of imports as whole frames: of a part, and of a session's symbols."""

from __future__ import annotations

import polars as pl

from fxlab.collect._files.fields import ROW
from fxlab.collect._files.quarantine import Room
from fxlab.collect._files.session_data import Intake


def parts_of(raw, origin, symbol, bad):
    """Return the parts of one small frame."""
    intake = Intake(origin, symbol, bad, Room())
    bad.rows = raw.height
    intake.take(raw)
    return intake.parts()


def rows_of_part(part):
    """Return a part's rows in the order of their numbers, or of their places."""
    frames = [rows.filter(pl.col("symbol") == part.symbol) for rows in part.rows_of.spool]
    if not frames:
        return pl.DataFrame({"timestamp": []})
    whole = pl.concat(frames).drop(ROW)
    return whole.sort(*part.key) if part.key and not part.known.rising else whole


def rows_and_bad(parts):
    """Return the places of the rows that were read of a file, and of those in quarantine."""
    places = [
        place
        for part in parts
        for frame in part.rows_of.spool
        for place, symbol in frame.select(ROW, "symbol").iter_rows()
        if symbol == part.symbol
    ]
    bad = [one.row for part in parts if part.quarantine for one in part.quarantine.bad]
    return places, bad


def whole_frames(draft):
    """Return (table, frame) for each data type and symbol of a session, by the rows' numbers."""
    found = {}
    for table, frame in draft.frames():
        for (symbol,), piece in frame.partition_by("symbol", as_dict=True).items():
            found.setdefault((table.name, symbol), (table, []))[1].append(piece)
    ordered = sorted(found.items(), key=lambda item: (item[0][0] == "tick_orderbook", item[0][1]))
    return [
        (table, pl.concat(pieces).unique().sort("seq", "timestamp"))
        for _, (table, pieces) in ordered
    ]
