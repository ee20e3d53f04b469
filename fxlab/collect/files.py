"""Read single Parquet and CSV files of trades, quotes or books, known by their columns."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from fxlab.collect import text_table
from fxlab.collect.checks import Place
from fxlab.collect.draft import Draft, Origin, Part, digest, parts_of
from fxlab.errors import ImportRefused
from fxlab.identifiers import SESSION_PREFIX

SUFFIXES: Final = (".csv", ".parquet")


@dataclass(frozen=True)
class FileSession:
    """Files that make one session."""

    session_id: str
    files: tuple[Path, ...]
    symbol: str | None

    def read(self) -> Draft:
        """Read and check all files; nothing is written."""
        parts = [part for file in self.files for part in read_file(file, self.symbol)]
        return Draft(self.session_id, tuple(parts))


def session_id_of(file: Path) -> str:
    """Return the session id that a file's path suggests: its folder's name and its own."""
    name = f"{file.resolve().parent.name}_{file.stem}"
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_")[-64:]


def in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the CSV and Parquet files in a folder and below, by name, and what else is there.

    Raises
    ------
    ImportRefused
        If there is none, or something in it is a link: that may lead out of the folder.
    """
    found: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_symlink():
            raise ImportRefused(
                f"{path} is a link: what it points to may lie outside {folder}; put the file "
                "itself there, or name it; nothing was imported"
            )
        if path.is_dir():
            continue
        is_data = path.suffix.lower() in SUFFIXES and not hidden
        (found if is_data else others).append(path)
    if not found:
        raise ImportRefused(
            f"{folder} holds neither a folder named {SESSION_PREFIX}<id> nor "
            f"{' or '.join(SUFFIXES)} files; give a folder that does, or the files themselves"
        )
    return found, others


def check_files(files: Sequence[Path]) -> None:
    """Refuse what is not a CSV or Parquet file, before any is read."""
    for file in files:
        if not file.is_file():
            raise ImportRefused(f"{file} is not there; give files or folders that exist")
        if file.suffix.lower() not in SUFFIXES:
            raise ImportRefused(
                f"{file} is neither {' nor '.join(SUFFIXES)}; write the ticks as one of these"
            )


def read_file(file: Path, symbol: str | None = None) -> list[Part]:
    """Return the rows of a file, understood and checked, one part a symbol.

    Parameters
    ----------
    file
        Columns as `fxlab.collect.rows` knows them: trades (timestamp, symbol, price, qty, volume or
        amount, and trade_id, side or buyer_is_maker, quote_volume, recv_ns), quotes (timestamp,
        symbol, bid, ask, bid_size, ask_size) or books (timestamp, symbol, bid_price_1, ...).
    symbol
        For a file without a symbol column.
    """
    data = file.read_bytes()
    is_text = file.suffix.lower() == ".csv"
    place = Place(str(file), "line", 2) if is_text else Place(str(file))
    raw = text_table.read(place, data) if is_text else _read_parquet(place, data)
    path = f"{file.resolve().parent.name}/{file.name}"
    origin = Origin(path, digest(data), "csv" if is_text else "parquet")
    return parts_of(place, raw, origin, symbol)


def _read_parquet(place: Place, data: bytes) -> pl.DataFrame:
    try:
        return pl.read_parquet(io.BytesIO(data))
    except (pl.exceptions.PolarsError, OSError) as error:
        place.refuse(f"it cannot be read as Parquet ({error!s:.200}); copy the file again")
