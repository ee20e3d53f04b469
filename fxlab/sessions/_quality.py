"""Quality of a session: gaps, silences, missing ids, outliers, bad books, duplicates, and a score.

Each check counts something exactly and says how much of the symbol it concerns; a score is 100 less
the points of each check, and each point has its reason. A check that cannot be made is null.

- gaps: of the ledger, what was not filled; seconds of them, overlaps counted once.
- silences: times between rows of more than a minute that are also more than a hundred times the
  mean one. Some lie in known gaps: the two are not added up.
- missing ids: numbers between the lowest and highest trade id that no row has. Where more than half
  are missing, the ids are not counted one by one, and nothing can be said.
- outliers: rows whose price is more than 5 % away from the median of the last prices of three
  minutes: its own, and those with ticks before and after it (at an end, the three at the end).
  Null with fewer than three minutes.
- books: crossed (bid above ask), locked (equal), one-sided (a side is empty).
- duplicates: trades that repeat another in time, price and volume. Real ones are common, and told
  apart by their ids, so that they cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, NamedTuple

import polars as pl

from fxlab import _html
from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab._questdb.sql import Scope
from fxlab.sessions._statistics import Aggregates, by_symbol

SILENCE_SECONDS, SILENCE_MEANS = 60.0, 100.0
OUTLIER: Final = 0.05
MOST_MINUTES: Final = 1_000
"""Minutes with an outlier that are counted row by row; more are no outliers but the market."""

QUALITY: Final = {
    "symbol": pl.String(),
    "score": pl.Int64(),
    "rows": pl.Int64(),
    "books": pl.Int64(),
    "gaps": pl.Int64(),
    "gap_seconds": pl.Float64(),
    "silences": pl.Int64(),
    "silent_seconds": pl.Float64(),
    "missing_ids": pl.Int64(),
    "outliers": pl.Int64(),
    "crossed_books": pl.Int64(),
    "locked_books": pl.Int64(),
    "one_sided_books": pl.Int64(),
    "duplicates": pl.Int64(),
}


class _Rule(NamedTuple):
    """A check that costs points: a percent of what it concerns is a point, one at least."""

    column: str
    concerned: str
    of: str
    most: int
    text: str


_RULES: Final = (
    _Rule("gaps", "gap_seconds", "seconds", 50, "known gaps that were not filled"),
    _Rule("silences", "silent_seconds", "seconds", 20, "silences"),
    _Rule("missing_ids", "missing_ids", "ids", 30, "trade ids that no row has"),
    _Rule("outliers", "outliers", "rows", 20, "prices 5 % away from those around them"),
    _Rule("crossed_books", "crossed_books", "books", 20, "books whose bid is above the ask"),
    _Rule("one_sided_books", "one_sided_books", "books", 10, "books with an empty side"),
)


@dataclass(frozen=True, slots=True)
class Quality:
    """What is wrong with a session's ticks, and how much of it.

    Attributes
    ----------
    session_id : str
        The session.
    score : int
        100 where no check found anything, down to 0: that of the worst symbol.
    reasons : tuple of str
        Each thing that cost points, with its symbol and the points.
    table : polars.DataFrame
        One row a symbol: ``symbol``, ``score``, ``rows``, ``books``, ``gaps``, ``gap_seconds``,
        ``silences`` (over a minute, and a hundred mean intervals), ``silent_seconds``,
        ``missing_ids`` (null where ids are not consecutive), ``outliers`` (over 5 % away from the
        median last price of three minutes; null with fewer than three, or where
        that is so in over 1,000),
        ``crossed_books``, ``locked_books``, ``one_sided_books``, ``duplicates`` (trades that repeat
        another in time, price and volume: no fault where ids tell them apart).

    Examples
    --------
    >>> found = session.quality()
    >>> found.score, found.reasons
    (100, ())
    """

    session_id: str
    score: int
    reasons: tuple[str, ...]
    table: pl.DataFrame

    def __str__(self) -> str:
        """Return the score and its reasons, a line each."""
        lines = self.reasons or ("nothing was found",)
        return "\n".join([f"quality of {self.session_id}: {self.score} of 100", *lines])

    def _repr_html_(self) -> str:
        return _html.table(self.table, caption=str(self))


def assess(
    db: QuestDB,
    session_id: str,
    both: tuple[Aggregates, Aggregates],
    gaps: Mapping[str, pl.DataFrame],
) -> Quality:
    """Return the quality of a session from its aggregates and each symbol's known gaps."""
    trades, books = ({row["symbol"]: row for row in one.core.iter_rows(named=True)} for one in both)
    doubles = dict(db.export(sql.doubles(both[0].scope)).iter_rows()) if trades else {}
    steps = {name: part for one in reversed(both) for name, part in by_symbol(one.steps).items()}
    minutes = {
        name: part for one in reversed(both) for name, part in by_symbol(one.minutes).items()
    }
    rows, reasons = [], []
    for symbol in sorted({*trades, *books}):
        source = both[0] if symbol in trades else both[1]
        found = _counted(symbol, trades.get(symbol), books.get(symbol), gaps[symbol])
        found |= _silences(steps[symbol])
        found["outliers"] = _outliers(db, source.scope, symbol, minutes.get(symbol))
        found["duplicates"] = doubles.get(symbol, 0) if symbol in trades else None
        why = _points(found)
        found["score"] = max(0, 100 - sum(points for points, _ in why))
        reasons += [f"{symbol}: {text} (-{points})" for points, text in why]
        rows.append(found)
    table = pl.DataFrame([{name: row[name] for name in QUALITY} for row in rows], schema=QUALITY)
    score = min((row["score"] for row in rows), default=0)
    return Quality(session_id, score, tuple(reasons or ([] if rows else ["no ticks"])), table)


def _counted(
    symbol: str,
    trades: Mapping[str, Any] | None,
    books: Mapping[str, Any] | None,
    gaps: pl.DataFrame,
) -> dict[str, Any]:
    core = trades or books or {}
    spans = (gaps["to_time"] - gaps["from_time"]).dt.total_microseconds()
    ids = trades["last_seq"] - trades["first_seq"] + 1 if trades else 0
    missing = max(ids - trades["row_count"], 0) if trades else None
    if trades and missing is not None and missing > trades["row_count"]:
        missing = None  # of trades that are not numbered one by one
    of_books = {f"{name}_books": (books or {}).get(name) for name in ("crossed", "locked")}
    return {
        "symbol": symbol,
        "rows": core["row_count"],
        "books": books["row_count"] if books else 0,
        "seconds": (core["last_time"] - core["first_time"]).total_seconds(),
        "gaps": gaps.height,
        "gap_seconds": float(spans.sum()) / 1e6,
        "missing_ids": missing,
        "ids": ids,
        **of_books,
        "one_sided_books": books["one_sided"] if books else None,
    }


def _silences(steps: pl.DataFrame) -> dict[str, Any]:
    counted, seconds = pl.col("row_count"), pl.col("step") / 1e6
    known = steps.drop_nulls("step")
    rows = known["row_count"].sum()
    mean = known.select((seconds * counted).sum()).item() / rows if rows else 0.0
    long = known.filter(seconds > max(SILENCE_SECONDS, SILENCE_MEANS * mean))
    silent = long.select((seconds * counted).sum()).item()
    return {"silences": long["row_count"].sum(), "silent_seconds": silent}


def _outliers(db: QuestDB, scope: Scope, symbol: str, minutes: pl.DataFrame | None) -> int | None:
    """Count rows in minutes whose extremes are too far away; nothing is asked of the others."""
    if minutes is None or minutes.height < 3:
        return None
    middle = pl.col("close").rolling_median(3, center=True).forward_fill().backward_fill()
    bounds = minutes.with_columns(least=middle * (1 - OUTLIER), most=middle * (1 + OUTLIER))
    far = bounds.filter((pl.col("low") < pl.col("least")) | (pl.col("high") > pl.col("most")))
    if far.height > MOST_MINUTES:
        return None
    found = 0
    begin = pl.col("timestamp").dt.truncate("1m").to_physical()
    for start, least, most in far.select(begin, "least", "most").iter_rows():
        end = start + timedelta(minutes=1) // timedelta(microseconds=1)
        minute = replace(scope, symbol=symbol, start=start, end=end)
        found += db.execute(sql.outside(minute, least, most))[0][0]
    return found


def _points(found: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Return the points that each check costs, and why."""
    costs = []
    for rule in _RULES:
        count = found[rule.column]
        if count:
            whole = found[rule.of]
            share = min(found[rule.concerned] / whole, 1.0) if whole else 1.0
            points = min(max(math.ceil(100 * share), 1), rule.most)
            costs.append((points, f"{count:,} {rule.text}, {100 * share:.3g} % of its {rule.of}"))
    return costs


@dataclass(frozen=True, slots=True)
class Analysis:
    """Statistics and quality of a session, and why a value does not exist.

    Attributes
    ----------
    session_id : str
        The session.
    statistics : polars.DataFrame
        As `fxlab.Session.statistics` returns it.
    quality : Quality
        As `fxlab.Session.quality` returns it.
    missing : dict
        Columns of the statistics in which a symbol has no value, and the reason.

    Examples
    --------
    >>> found = lab.analysis(session.id)
    >>> found.quality.score, found.missing["skew_p50"]
    (100, 'arrival times were not recorded')
    """

    session_id: str
    statistics: pl.DataFrame
    quality: Quality
    missing: dict[str, str]

    def __str__(self) -> str:
        """Return the quality and what has no value, a line each."""
        return "\n".join([str(self.quality), *reasons_of(self.missing)])

    def _repr_html_(self) -> str:
        return _html.table(self.statistics, caption=str(self)) + self.quality._repr_html_()


def reasons_of(missing: Mapping[str, str]) -> Iterable[str]:
    """Yield a line for each reason: the values that do not exist, and why."""
    for why in dict.fromkeys(missing.values()):
        yield f"{', '.join(name for name in missing if missing[name] == why)}: none, as {why}"
