"""Receipt of a recording: its counts and checksums, their verification, and a later backfill.

The recorder's receipt says how many rows of what kind it journaled, with a checksum over their
columns, and which ids it saw. `verify` reads every row again and derives all of it from the
database. `backfill` goes on with the receipt: what a venue has of the ids that were missed is
stored, and nothing else is recorded.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from fxlab import _html
from fxlab._progress import Advance, part, silent
from fxlab._questdb.client import QuestDB
from fxlab._questdb.sql import Scope
from fxlab._ticks import gap_list
from fxlab.collect._config import Plan
from fxlab.collect._live.checksum import MODULUS, SUMMED, frame_checksum
from fxlab.collect._live.trades import IdRanges
from fxlab.collect.feed import (
    Clock,
    Event,
    Feed,
    Instrument,
    Message,
    Refusal,
    Subscription,
    Trade,
)
from fxlab.errors import InvalidParameter, SessionBusy
from fxlab.schema import DATA_TABLES, RECEIPTS, UTC_MICROS
from fxlab.sessions import _catalog, _reader

LINE: Final = {
    "symbol": pl.String,
    "data_type": pl.String,
    "origin": pl.String,
    "rows": pl.Int64,
    "rows_found": pl.Int64,
    "checksum": pl.String,
    "checksum_found": pl.String,
    "first_seq": pl.Int64,
    "last_seq": pl.Int64,
    "whole": pl.Boolean,
}
IDS: Final = {
    "symbol": pl.String,
    **dict.fromkeys(
        ("ids_seen", "ids_found", "ids_missing", "doubles", "gaps", "gaps_filled"), pl.Int64
    ),
}
GAP_COUNTS: Final = {
    **dict.fromkeys(("symbol", "data_type"), pl.String),
    **dict.fromkeys(("gaps", "filled", "resynced", "open"), pl.Int64),
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """A recording's receipt beside what the database holds.

    Attributes
    ----------
    lines
        One row for each symbol, data type and origin: ``rows`` and ``checksum`` as the recorder
        said, ``rows_found`` and ``checksum_found`` as they are.
    ids
        One row for each symbol whose trades are numbered by the venue: ids seen, found in the
        database and missing between the first and the last; trades that came again; gaps, and how
        many of them were filled.
    problems
        Differences in words; empty if the recording is whole.
    gaps
        One row for each symbol and data type with gaps: how many, and of them those that were
        filled, those of a book that a snapshot ended (resynced), and those that are open.

    Examples
    --------
    >>> market = generated(["BTC_USDT"], seed=1, rate=100, trades=20)
    >>> with MockVenue(market) as venue:
    ...     collector = lab.collect("binance", "BTC_USDT", url=venue.url, duration="1s")
    ...     session = collector.wait()
    >>> lab.verify(session.id).whole
    True
    """

    session_id: str
    lines: pl.DataFrame
    ids: pl.DataFrame
    problems: tuple[str, ...]
    gaps: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=GAP_COUNTS))

    @property
    def whole(self) -> bool:
        """Whether the database holds exactly what was recorded."""
        return not self.problems

    def __str__(self) -> str:
        rows, found = self.lines["rows"].sum(), self.lines["rows_found"].sum()
        missing = self.ids["ids_missing"].sum()
        verdict = "whole" if self.whole else "; ".join(self.problems)
        return (
            f"session {self.session_id}: {rows:,} rows recorded, {found:,} found, "
            f"{missing:,} trades known to be missing: {verdict}"
        )

    def _repr_html_(self) -> str:
        parts = [_html.table(self.lines, caption=str(self))]
        if not self.ids.is_empty():
            parts.append(_html.table(self.ids, caption="trade ids"))
        if not self.gaps.is_empty():
            parts.append(_html.table(self.gaps, caption="gaps"))
        return "".join(parts)


def verify(db: QuestDB, session_id: str, progress: Advance = silent) -> Receipt:
    """Derive a session's receipt from the database and compare it with the recorder's.

    Parameters
    ----------
    db, session_id
        Which session.
    progress
        Told while rows are read; it may raise `Cancelled`.

    Raises
    ------
    SessionNotFound
        If there is none.
    InvalidParameter
        If it has no receipt: it was imported, or is still being recorded.
    """
    row = _catalog.find(db, session_id)
    said = _said(db, row)
    events = _catalog.events(db, row["session_id"])
    lines: list[dict[str, Any]] = []
    ids: list[dict[str, Any]] = []
    kinds = sorted({(line["symbol"], line["data_type"]) for line in said}, reverse=True)
    for number, (symbol, kind) in enumerate(kinds):
        wanted = [line for line in said if (line["symbol"], line["data_type"]) == (symbol, kind)]
        step = part(progress, number / len(kinds), (number + 1) / len(kinds))
        scope = Scope(DATA_TABLES[kind], row["session_id"], symbol, *_searched(row))
        found, seqs = _found(db, scope, step)
        lines += [_line(line, found.pop(line["origin"], _NOTHING)) for line in wanted]
        lines += [_line(_unsaid(symbol, kind, origin), what) for origin, what in found.items()]
        counted = json.loads(wanted[0]["detail"])["trades"]["ids"] if kind == "prices" else None
        if counted is not None:
            doubles = json.loads(wanted[0]["detail"])["trades"]["doubles"]
            ids.append(_ids(symbol, IdRanges.from_json(counted), seqs, doubles, events))
    problems = (*_line_problems(lines, said), *_id_problems(ids))
    frames = pl.DataFrame(lines, LINE), pl.DataFrame(ids, IDS)
    return Receipt(row["session_id"], *frames, problems, _gap_counts(events))


def _gap_counts(events: pl.DataFrame) -> pl.DataFrame:
    """Return how many gaps of each symbol and data type there are, by their states."""
    states = {name: (pl.col("state") == name).sum() for name in ("filled", "resynced")}
    found = gap_list(events).group_by("symbol", "data_type").agg(gaps=pl.len(), **states)
    rest = pl.col("gaps") - pl.col("filled") - pl.col("resynced")
    return found.with_columns(open=rest).sort("symbol", "data_type").select(
        pl.col(name).cast(kind) for name, kind in GAP_COUNTS.items()
    )  # fmt: skip


_NOTHING: Final = (0, 0)
_AROUND: Final = 7 * 86_400_000_000
"""How far (us) around a session's times rows are looked for that should not be there."""


def _searched(row: dict[str, Any]) -> tuple[int | None, int | None]:
    """Return the range of time that is read: that of all would open the partitions of all."""
    first, last = _catalog.tick_range(row)
    return first and first - _AROUND, last and last + _AROUND


def _said(db: QuestDB, row: dict[str, Any]) -> list[dict[str, Any]]:
    if row["source"] != "live" or row["status"] == "collecting":
        why = "is still being recorded" if row["source"] == "live" else "was imported"
        raise InvalidParameter(
            f"session {row['session_id']!r} {why} and has no receipt; only live recordings that "
            "have ended have one"
        )
    return _catalog.raw_rows(db, RECEIPTS, row["session_id"])


def _found(
    db: QuestDB, scope: Scope, progress: Advance
) -> tuple[dict[str, tuple[int, int]], pl.Series]:
    """Return rows and checksum by origin, and all row identities, as the database holds them."""
    totals: dict[str, tuple[int, int]] = {}
    seqs = [pl.Series("seq", [], pl.Int64)]
    names = list(dict.fromkeys([*SUMMED[scope.table.name], "origin"]))
    for chunk in _reader.scan(db, scope, names, chunk_rows=250_000, progress=progress):
        seqs.append(chunk["seq"])
        for (origin,), rows in chunk.group_by("origin"):
            before = totals.get(str(origin), _NOTHING)
            added = frame_checksum(scope.table, rows)
            totals[str(origin)] = (before[0] + rows.height, (before[1] + added) % MODULUS)
    return totals, pl.concat(seqs)


def _unsaid(symbol: str, kind: str, origin: str) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "data_type": kind,
        "origin": origin,
        "rows": 0,
        "checksum": f"{0:016x}",
        "first_seq": None,
        "last_seq": None,
    }


def _line(said: dict[str, Any], found: tuple[int, int]) -> dict[str, Any]:
    rows, total = found
    checksum = f"{total:016x}"
    return {
        **{name: said[name] for name in LINE if name in said},
        "rows_found": rows,
        "checksum_found": checksum,
        "whole": (said["rows"], said["checksum"]) == (rows, checksum),
    }


def _ids(
    symbol: str, ids: IdRanges, seqs: pl.Series, doubles: int, events: pl.DataFrame
) -> dict[str, Any]:
    gaps = events.filter(
        pl.col("event") == "gap",
        pl.col("symbol") == symbol,
        pl.col("detail").str.contains('"what": "prices"', literal=True),
    )
    return {
        "symbol": symbol,
        "ids_seen": None if ids.restarts else sum(last - first + 1 for first, last in ids.spans),
        "ids_found": seqs.n_unique(),
        "ids_missing": ids.missing,
        "doubles": doubles,
        "gaps": gaps.height,
        "gaps_filled": gaps.filter(pl.col("count") == 0).height,
    }


def _line_problems(lines: Sequence[dict[str, Any]], said: Sequence[dict[str, Any]]) -> list[str]:
    refused = {
        (line["symbol"], line["data_type"]): json.loads(line["detail"])["refused"] for line in said
    }
    found = []
    for line in lines:
        what = f"{line['data_type']} of {line['symbol']} ({line['origin']})"
        kept = refused.get((line["symbol"], line["data_type"]), 0)
        if line["rows"] - kept != line["rows_found"]:
            found.append(
                f"{what}: {line['rows']:,} rows were recorded and {line['rows_found']:,} are there"
            )
        elif not kept and not line["whole"]:
            found.append(f"{what}: the rows are not those that were recorded")
        elif kept:
            found.append(f"{what}: {kept:,} rows were refused by the server, see the events")
    return found


def _id_problems(ids: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"{line['symbol']}: {line['ids_seen']:,} trade ids were seen and {line['ids_found']:,} "
        "are there"
        for line in ids
        if line["ids_seen"] is not None and line["ids_seen"] != line["ids_found"]
    ]


GAPS: Final[dict[str, Any]] = {
    "symbol": pl.String,
    "from_time": UTC_MICROS,
    "to_time": UTC_MICROS,
    "missing": pl.Int64,
    "still_missing": pl.Int64,
    "state": pl.String,
    "cause": pl.String,
    "answer": pl.String,
}


class HistoryFeed(Feed):
    """A venue that is asked for trades of the past, and for nothing that happens now."""

    def __init__(self, feed: Feed) -> None:
        self.venue, self.counts_trades = feed.venue, feed.counts_trades  # type: ignore[misc]
        self.lossless, self.channels = feed.lossless, feed.channels  # type: ignore[misc]
        self._feed = feed

    async def instruments(self) -> dict[str, Instrument]:
        """Return what is or was traded: a symbol that is halted has a past."""
        known = await self._feed.instruments()
        return {name: replace(one, status="trading", terms={}) for name, one in known.items()}

    async def messages(self, wanted: Subscription) -> AsyncIterator[Sequence[Message]]:
        """Yield nothing."""
        del wanted
        nothing: tuple[Sequence[Message], ...] = ()
        for some in nothing:
            yield some

    async def trades(
        self, instrument: Instrument, first_id: int, last_id: int
    ) -> Sequence[Trade | Event]:
        """Return trades of the past, as the venue's feed does."""
        return await self._feed.trades(instrument, first_id, last_id)

    def refusal(self) -> Refusal | None:
        """Return for how long the venue is asked nothing."""
        return self._feed.refusal()

    def answers(self) -> int:
        """Return how many questions were answered."""
        return self._feed.answers()

    async def close(self) -> None:
        """Close the venue's connections."""
        await self._feed.close()


def backfill(
    db: QuestDB,
    session_id: str,
    home: Path,
    *,
    venue: str | Feed | None = None,
    url: str | None = None,
    progress: Advance = silent,
) -> pl.DataFrame:
    """Ask a venue again for the trades that a recording is missing; see `Lab.backfill`."""
    from fxlab.collect.collector import Collector
    from fxlab.collect.venues import open_feed

    row = _catalog.find(db, session_id)
    name = row["session_id"]
    if row["source"] != "live":
        raise InvalidParameter(
            f"session {name!r} was imported ({row['source']}), and no venue can be asked for what "
            "is missing in it; import the missing rows as a session of their own"
        )
    if row["status"] == "collecting":
        raise SessionBusy(f"session {name!r} is being recorded, and asks for its gaps by itself")
    open_ones = _gap_rows(_catalog.events(db, name)).filter(pl.col("missing") > 0)
    if open_ones.is_empty():
        return pl.DataFrame(schema=GAPS)
    options = json.loads(row["options"])
    plan = Plan(
        venue=row["exchange"],
        symbols=tuple(json.loads(row["symbols"])),
        session_id=name,
        book_depth=options["book_depth"],
        book_every=options["book_every_us"],
        channels=tuple(options.get("channels", ())),
        resume=True,
        ending=row["status"],
    )
    clock = Clock()
    named = venue or plan.venue
    asked = named if isinstance(named, Feed) else open_feed(named, url=url, clock=clock)
    progress(0.0, f"{open_ones.height:,} gaps are asked for")
    Collector(db, HistoryFeed(asked), plan, home, clock).start().wait()
    now = _gap_rows(_catalog.events(db, name)).select(
        "seq", "state", "cause", "answer", still_missing="missing"
    )
    before = open_ones.select("seq", "symbol", "from_time", "to_time", "missing")
    return before.join(now, on="seq", maintain_order="left").select(*GAPS)


def _gap_rows(events: pl.DataFrame) -> pl.DataFrame:
    """Return the gaps of numbered trades, with what the recorder says of each."""
    numbered = pl.col("detail").str.json_path_match("$.first_id").is_not_null()
    gaps = events.filter(pl.col("event") == "gap", numbered)
    return gap_list(gaps).with_columns(gaps["seq"]).filter(data_type="prices")
