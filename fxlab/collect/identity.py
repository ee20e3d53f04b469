"""What tells the rows of a symbol apart, and what their order is.

The venue's number is both, where every row has one and no two the same, in whatever order a file
has them: the same rows are the same session. Where it is not, a row's place in its file has to do.
"""

from __future__ import annotations

import polars as pl

from fxlab.collect import fields
from fxlab.collect.checks import Place
from fxlab.collect.rows import VENUE_SEQ


def keyed(
    place: Place, rows: pl.DataFrame, piece: pl.DataFrame, key: tuple[str, ...]
) -> tuple[tuple[str, ...], list[str]]:
    """Return the key of one symbol's rows, or none, and what has to be told.

    Parameters
    ----------
    place, rows
        The file, for errors; all its rows, in its order.
    piece
        The rows of one symbol among them.
    key
        The columns that identify a row if all of them have a number.

    Raises
    ------
    ImportRefused
        If two rows have one id, or their order is the wrong way round and nothing tells the right
        one.
    """
    ids = piece[VENUE_SEQ]
    if ids.null_count() == 0:
        if not _rises(ids):
            _refuse_doubles(place, rows, piece, key)
        return key, []
    if "trade_id" in piece.columns and len(key) == 1:
        _refuse_doubles(place, rows, piece.filter(pl.col("trade_id").is_not_null()), ("trade_id",))
    _refuse_newest_first(place, piece)
    blank = ids.null_count()
    if blank < piece.height:
        return (), [
            f"{blank:,} of {piece.height:,} rows have no number: their place identifies all"
        ]
    return (), []


def in_order(piece: pl.DataFrame, key: tuple[str, ...]) -> pl.DataFrame:
    """Return rows in the order of their numbers; as they are if they have none."""
    return piece.sort(*key) if key and not _rises(piece[VENUE_SEQ]) else piece


def rounded_times(raw: pl.DataFrame) -> list[str]:
    """Return what has to be told of times that are finer than the microsecond."""
    told = []
    for name in ("timestamp", "received_at", "recv_ns"):
        finer = fields.finer_than_micros(raw[name]) if name in raw.columns else 0
        if finer:
            how = "cut to it" if name == "recv_ns" else "rounded to the nearest one"
            told.append(
                f"{name} is finer than a microsecond in {finer:,} of {raw.height:,} rows; each was "
                f"{how}"
            )
    return told


def _rises(ids: pl.Series) -> bool:
    return bool((ids.diff().drop_nulls() > 0).all())


def _refuse_doubles(
    place: Place, rows: pl.DataFrame, piece: pl.DataFrame, key: tuple[str, ...]
) -> None:
    twice = piece.select(key).is_duplicated()
    if not twice.any():
        return
    again = piece.with_columns(nth=pl.int_range(pl.len()).over(key)).filter(pl.col("nth") > 0)
    first = again.row(0, named=True)
    same = pl.all_horizontal(pl.col(name) == first[name] for name in ("symbol", *key))
    lines = rows.select(same.arg_true()).to_series()
    value = first.get("trade_id") if len(key) == 1 and first.get("trade_id") else first[VENUE_SEQ]
    what = "id" if len(key) == 1 else f"number at {first['timestamp']}"
    place.refuse(
        f"the {what} {value!r} of {first['symbol']} was there before, in {place.word} "
        f"{place.first + lines[0]} ({again.height:,} rows are doubled so): one id cannot be two "
        "rows; take the doubled rows out, or, if these are no ids of single rows, the column",
        int(lines[1]),
    )


def _refuse_newest_first(place: Place, piece: pl.DataFrame) -> None:
    """Refuse a file that runs backward where its order decides: among rows of one time."""
    steps = piece["timestamp"].diff().drop_nulls().to_physical()
    falls, rises, ties = (steps < 0).sum(), (steps > 0).sum(), (steps == 0).sum()
    if falls > rises and ties:
        place.refuse(
            f"the newest rows of {piece['symbol'][0]} stand first, and {ties:,} have the time of "
            "the row before, so that their order would be the wrong way round; put the oldest "
            "first (in a shell: (head -1 FILE; tail -n +2 FILE | tac) > NEW), or add numeric ids"
        )
