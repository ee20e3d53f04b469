"""Statistics and quality of a session by symbol.

Statistics: counts, prices, volatility, volume, books, timing, skew. The server aggregates and sends
sums, or how often each value is. Of a symbol with over a million rows the times are read, some five
bytes a row and a million at once: the server takes three times as long to count intervals as to
send them. Open and close are those of the lowest and highest seq of an instant, as everywhere.

Quantiles of intervals and skews are exact in tables of up to a million rows. In larger ones nearly
each microsecond may be a value of its own, and counting them took most of the time: there, values
are cut before they are counted, intervals by less than 0.1 % (below 10 ms and from a minute on not
at all), skews to 0.1 ms (from a minute on to a second). So an answer has at most 168,000
intervals below a minute and 1.2 million skews a symbol, whatever the rows are. All else is exact.

Realised volatility is the square root of the sum of squared logarithmic returns between the last
prices of one-minute intervals (the first one from the open), over the whole session, not annualised
(Andersen and Bollerslev, International Economic Review 39, 1998). Intervals without a tick have no
return; a silence is one step.

Quality: each check counts something exactly and says how much of the symbol it concerns; a score is
100 less the points of each check, and each point has its reason. A check that cannot be made is
null.

- gaps: of the ledger, what was not filled; seconds of them, overlaps counted once.
- silences: times between rows of more than a minute that are also more than a hundred times the
  mean one. Some lie in known gaps: the two are not added up.
- missing ids: numbers between the lowest and highest trade id that no row has; nothing can be said
  where more than half are missing, or where rows have no id and are numbered by their place.
- outliers: rows whose price is more than 5 % away from the median of the last prices of three
  minutes: its own, and those with ticks before and after it (at an end, the three at the end).
  Null with fewer than three minutes.
- books: crossed (bid above ask), locked (equal), one-sided (a side is empty).
- duplicates: trades that repeat another in time, price and volume. Real ones are common, and told
  apart by their ids, so that they cost nothing.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fxlab import _html, _progress
from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab._questdb.sql import Scope
from fxlab.schema import ORDERBOOK, PRICES, UTC_MICROS

_AT_A_TIME: Final = 3  # the server exports to four connections

STATISTICS: Final = {
    "symbol": pl.String(),
    "data_type": pl.String(),
    "rows": pl.Int64(),
    "books": pl.Int64(),
    "first": UTC_MICROS,
    "last": UTC_MICROS,
    "duration_seconds": pl.Float64(),
    **dict.fromkeys(
        (
            "open", "high", "low", "close", "return", "realised_volatility",
            "volume", "vwap", "buy_volume", "sell_volume", "trade_imbalance",
            "rows_per_second", "shared_timestamps",
            "interval_mean", "interval_p50", "interval_p90", "interval_p99", "interval_max",
            "mean_spread", "mean_spread_bps", "max_spread",
            "mean_bid_qty", "mean_ask_qty", "mean_depth", "book_imbalance",
            "skew_min", "skew_p50", "skew_p99", "skew_max",
        ),
        pl.Float64(),
    ),
}  # fmt: skip

WHY_NONE: Final = {
    ("open", "high", "low", "close", "return", "realised_volatility"): "no tick has a price",
    ("volume", "vwap", "buy_volume", "sell_volume", "trade_imbalance"): (
        "no trades, none with a volume, or none that tells the taker's side"
    ),
    ("rows_per_second", "interval_mean", "interval_p50", "interval_p90", "interval_p99"): (
        "all rows share one instant, or there is one"
    ),
    ("mean_spread", "mean_spread_bps", "max_spread", "mean_bid_qty", "mean_ask_qty",
     "mean_depth", "book_imbalance"): "no order books with both sides",
    ("skew_min", "skew_p50", "skew_p99", "skew_max"): "arrival times were not recorded",
}  # fmt: skip
"""Columns to the reason why a value in them may not exist."""


EXACT_ROWS: Final = 1_000_000
"""Rows of a table up to which intervals and skews are counted as they are."""
READ_ROWS: Final = 1_000_000
"""Times of a large symbol that are read at once; more only where one minute has more."""
_TIMES_AT_ONCE: Final = 1_000


class Aggregates(NamedTuple):
    """What the server says of one table, by symbol, and the parts of it that have rows."""

    parts: Sequence[Scope]
    core: pl.DataFrame
    steps: pl.DataFrame
    skews: pl.DataFrame
    minutes: pl.DataFrame
    opens: pl.DataFrame


def aggregates(db: QuestDB, scope: Scope, progress: _progress.Advance) -> Aggregates:
    """Ask for everything that statistics and quality are made of; several queries at a time.

    Each is asked a year at a time, and the parts are put together as if they had been one.
    """
    core_query = sql.trade_statistics if scope.table is PRICES else sql.book_statistics
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="fxlab-statistics") as pool:
        years = scope.by_year()
        answers = list(zip(years, pool.map(db.export, map(core_query, years)), strict=True))
        parts, core = zip(*([one for one in answers if len(one[1])] or answers[:1]), strict=True)
        rows = dict(pl.concat(core).group_by("symbol").agg(pl.sum("row_count")).iter_rows())
        exact = sum(rows.values()) <= EXACT_ROWS
        far = pl.max_horizontal("skew_max", -pl.col("skew_min")).max()
        near = (pl.concat(core).select(far).item() or 0) < sql.MINUTE
        large = sorted(name for name in rows if rows[name] > max(EXACT_ROWS, 1))
        rest = tuple(name for name in rows if name not in large) if large else ()
        others = [replace(part, symbols=rest) for part in parts if rest or not large]
        asked = pool.map(
            db.export,
            [
                *map(sql.minutes, parts),
                *(sql.skews(part, exact=exact, near=near) for part in parts),
                *(sql.intervals(part, exact=exact) for part in others),
            ],
        )
        progress(0.3, f"{scope.table.name}: minutes")
        minutes = list(islice(asked, len(parts)))
        progress(0.5, f"{scope.table.name}: intervals")
        counted = [
            _count_intervals(name, _times(db, pool, replace(part, symbol=name), own))
            for part, own in zip(parts, minutes, strict=True)
            for name in large
        ]
        skews = pl.concat(islice(asked, len(parts)))
        steps = pl.concat([*asked, *counted, seams(core)])
        bars, opens = _with_closes(db, pool, parts, pl.concat(minutes).sort("symbol", "timestamp"))
    return Aggregates(parts, joined(core), steps, skews, bars, opens)


def _times(
    db: QuestDB, pool: ThreadPoolExecutor, scope: Scope, minutes: pl.DataFrame
) -> Iterable[NDArray[np.int64]]:
    """Yield the times of a symbol's rows, some `READ_ROWS` of whole minutes at once, in order."""
    own = minutes.filter(symbol=scope.symbol).sort("timestamp")
    number = own["row_count"].cum_sum() // READ_ROWS
    cuts = own.filter(number != number.shift(1))["first_time"].to_physical()
    waiting: deque[Future[pl.DataFrame]] = deque()
    for start, end in pairwise([scope.start, *cuts, scope.end]):
        query = sql.rows(replace(scope, start=start, end=end), ["timestamp"], tie=None)
        waiting.append(pool.submit(db.export, query))
        if len(waiting) > _AT_A_TIME:
            yield waiting.popleft().result()["timestamp"].to_physical().to_numpy()
    for last in waiting:
        yield last.result()["timestamp"].to_physical().to_numpy()


_FINE: Final = np.concatenate(
    (np.arange(10_000), np.arange(10_000, 1_000_000, 10), np.arange(1_000_000, sql.MINUTE, 1_000))
)
"""What `sql.FINE_INTERVALS` makes of the intervals below a minute."""


def _count_intervals(name: str, slices: Iterable[NDArray[np.int64]]) -> pl.DataFrame:
    """Return what `sql.intervals` says of a symbol; `most` is the longest of all."""
    counts = np.zeros(len(_FINE), np.int64)
    last = np.empty(0, np.int64)
    long, groups, most = [last], 0, 0
    for times in slices:
        steps = np.diff(times, prepend=last)
        last = times[-1:] if len(times) else last
        groups += int(np.count_nonzero(np.diff(steps == 0, prepend=False) & (steps == 0)))
        most = max(most, int(steps.max(initial=0)))
        long.append(steps[steps >= sql.MINUTE])
        short = steps[steps < sql.MINUTE]
        place = np.where(short < 1_000_000, 9_000 + short // 10, 108_000 + short // 1_000)
        counts += np.bincount(np.where(short < 10_000, short, place), minlength=len(_FINE))
    lengths, repeats = np.unique(np.concatenate(long), return_counts=True)
    found = {
        "length": np.concatenate((_FINE, lengths)),
        "row_count": np.concatenate((counts, repeats)),
    }
    return (
        pl.DataFrame(found)
        .filter(pl.col("row_count") > 0)
        .select(
            pl.lit(name).alias("symbol"),
            "length",
            "row_count",
            groups=pl.when(length=0).then(groups).otherwise(0).cast(pl.Int64),
            most=pl.lit(most, pl.Int64),
        )
    )


def _with_closes(
    db: QuestDB, pool: ThreadPoolExecutor, parts: Sequence[Scope], minutes: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the minutes with their last prices, and the first price of each symbol.

    The highest seq of a minute tells its last price unless numbers and times run apart: only then,
    and for the first prices, the rows of those instants are asked for.
    """
    firsts = minutes.unique("symbol", keep="first", maintain_order=True)
    apart = minutes.filter(pl.col("close_time") != pl.col("last_time"))
    times = sorted({*firsts["first_time"].to_physical(), *apart["last_time"].to_physical()})
    some = (times[n : n + _TIMES_AT_ONCE] for n in range(0, len(times), _TIMES_AT_ONCE))
    scopes = [replace(parts[0], start=None, end=None, at=tuple(each)) for each in some]
    none = pl.DataFrame(schema={"symbol": pl.String, "timestamp": UTC_MICROS, **_PRICES})
    asked = pl.concat([none, *pool.map(db.export, map(sql.prices_at, scopes))])
    opens = firsts.select("symbol", timestamp="first_time").join(asked, ["symbol", "timestamp"])
    closes = asked.select("symbol", last_time="timestamp", last_close="close")
    whole = minutes.join(
        closes, ["symbol", "last_time"], how="left", maintain_order="left"
    ).with_columns(close=pl.coalesce("last_close", "close"))
    return whole.drop("last_close"), opens.select("symbol", price="open")


_PRICES: Final = {"open": pl.Float64(), "close": pl.Float64()}


_LEAST: Final = ("first_time", "low", "first_seq", "skew_min")
_MOST: Final = ("last_time", "high", "last_seq", "skew_max", "max_spread")


def joined(core: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the aggregates of all parts as one row a symbol, sums made into means."""
    whole = pl.concat(core)
    means = [name for name in whole.columns if f"{name}_count" in whole.columns]

    def merged(name: str) -> pl.Expr:
        column = pl.col(name)
        if name in _LEAST:
            return column.min()
        if name in _MOST:
            return column.max()
        return pl.when(column.count() > 0).then(column.sum())  # a sum of nothing is null

    found = whole.group_by("symbol", maintain_order=True).agg(
        merged(name) for name in whole.columns if name != "symbol"
    )
    return found.with_columns(pl.col(name) / pl.col(f"{name}_count") for name in means)


def seams(core: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the intervals between the last row of a symbol in a part and its next row."""
    times = pl.concat(core).sort("symbol", "first_time")
    step = pl.col("first_time") - pl.col("last_time").shift(1).over("symbol")
    return times.select(
        "symbol",
        length=step.dt.total_microseconds(),
        row_count=pl.lit(1, pl.Int64),
        groups=pl.lit(0, pl.Int64),
        most=step.dt.total_microseconds(),
    ).drop_nulls()


def both_tables(
    db: QuestDB, scope: Scope, progress: _progress.Advance
) -> tuple[Aggregates, Aggregates]:
    """Return the aggregates of trades and of books."""
    trades, books = (replace(scope, table=table) for table in (PRICES, ORDERBOOK))
    first, second = (_progress.part(progress, low, low + 0.5) for low in (0.0, 0.5))
    return aggregates(db, trades, first), aggregates(db, books, second)


def table(both: tuple[Aggregates, Aggregates], decimals: Mapping[str, int]) -> pl.DataFrame:
    """Return one row a symbol, of its trades or, without them, of the mids of its books."""
    trades, books = both
    quotes = {row["symbol"]: row for row in books.core.iter_rows(named=True)}
    rows = {
        name: row | {"data_type": "orderbook", "books": quotes[name]["row_count"]}
        for name, row in _rows(books, set(quotes)).items()
    }
    for name, row in _rows(trades, set(trades.core["symbol"])).items():
        book = quotes.get(name, {})
        kept = {key: book.get(key) for key in _OF_BOOKS}
        rows[name] = row | kept | {"data_type": "prices", "books": book.get("row_count", 0)}
    ordered = [_rounded(rows[name], decimals.get(name)) for name in sorted(rows)]
    return pl.DataFrame(ordered, schema=STATISTICS)


_OF_BOOKS: Final = (
    "mean_spread", "mean_spread_bps", "max_spread", "mean_bid_qty", "mean_ask_qty", "mean_depth",
    "book_imbalance",
)  # fmt: skip


def _rounded(row: dict[str, Any], decimals: int | None) -> dict[str, Any]:
    """Return a row whose prices are the decimals they stand for: a mid of two is off by a bit."""
    prices = [name for name in ("open", "high", "low", "close") if row.get(name)]
    found = {name: round(row[name], decimals) for name in prices} if decimals is not None else {}
    row = row | found
    row["return"] = row["close"] / row["open"] - 1 if row.get("open") and row["close"] else None
    return {name: row.get(name) for name in STATISTICS}


def _rows(found: Aggregates, names: set[str]) -> dict[str, dict[str, Any]]:
    opens = dict(found.opens.iter_rows())
    steps, skews = (by_symbol(frame) for frame in (found.steps, found.skews))
    closes = by_symbol(found.minutes)
    rows = {}
    for row in found.core.iter_rows(named=True):
        name = row["symbol"]
        if name not in names:
            continue
        seconds = (row["last_time"] - row["first_time"]).total_seconds()
        first, ends = opens.get(name), closes.get(name)
        count = row["row_count"]
        rows[name] = row | {
            "rows": count,
            "first": row["first_time"],
            "last": row["last_time"],
            "duration_seconds": seconds,
            "open": first,
            "close": None if ends is None else ends["close"][-1],
            "vwap": row["notional"] / row["volume"] if row.get("volume") else None,
            "realised_volatility": realised_volatility(first, ends),
            "trade_imbalance": _imbalance(row.get("buy_volume"), row.get("sell_volume")),
            "rows_per_second": count / seconds if seconds else None,
            **_intervals(steps[name], count, seconds),
            **_quantiles(skews.get(name), "skew", {"p50": 0.5, "p99": 0.99}),
            **{each: _seconds(row[each]) for each in ("skew_min", "skew_max")},
        }
    return rows


def by_symbol(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the rows of each symbol."""
    parts = frame.partition_by("symbol", as_dict=True)
    return {str(key[0]): part for key, part in parts.items()}


def _imbalance(buys: float | None, sells: float | None) -> float | None:
    """Return (buys - sells) / (buys + sells) of takers; None if no side is known."""
    if buys is None and sells is None:
        return None
    bought, sold = buys or 0.0, sells or 0.0
    return (bought - sold) / (bought + sold) if bought + sold else None


def realised_volatility(first: float | None, minutes: pl.DataFrame | None) -> float | None:
    """Return the root of the sum of squared log returns between the last prices of minutes."""
    if first is None or minutes is None:
        return None
    closes = minutes["close"].drop_nulls().to_numpy()
    prices = np.concatenate(([first], closes))
    if not (prices > 0).all() or len(prices) < 2:
        return None
    return math.sqrt(math.fsum(np.diff(np.log(prices)) ** 2))


def _intervals(steps: pl.DataFrame, rows: int, seconds: float) -> dict[str, float | None]:
    """Return mean and quantiles of the seconds between rows, and the share of rows that tie."""
    ties = steps.filter(pl.col("length") == 0)
    shared = sum(ties["row_count"]) + sum(ties["groups"])
    return {
        **_quantiles(steps, "interval", {"p50": 0.5, "p90": 0.9, "p99": 0.99}),
        "interval_max": _seconds(steps["most"].max()),
        "interval_mean": seconds / (rows - 1) if rows > 1 else None,
        "shared_timestamps": shared / rows,
    }


def _seconds(micros: Any) -> float | None:  # noqa: ANN401 - what Polars calls a number
    return None if micros is None else micros / 1e6


def _quantiles(
    counted: pl.DataFrame | None, what: str, wanted: Mapping[str, float]
) -> dict[str, float | None]:
    """Return quantiles in seconds: the smallest value that the share of rows does not exceed."""
    names = {f"{what}_{name}": share for name, share in wanted.items()}
    if counted is None:
        return dict.fromkeys(names)
    known = counted.drop_nulls("length").sort("length")
    if known.is_empty():
        return dict.fromkeys(names)
    reached = known["row_count"].cum_sum().to_numpy()
    ranks = {name: max(math.ceil(share * reached[-1]), 1) for name, share in names.items()}
    at = {name: int(np.searchsorted(reached, rank)) for name, rank in ranks.items()}
    return {name: _seconds(known["length"][row]) for name, row in at.items()}


def missing(frame: pl.DataFrame) -> dict[str, str]:
    """Return the columns in which some symbol has no value, each with the reason."""
    empty = {name for name in frame.columns if frame[name].null_count()}
    return {name: why for names, why in WHY_NONE.items() for name in names if name in empty}


SILENCE_SECONDS, SILENCE_MEANS = 60.0, 100.0
OUTLIER: Final = 0.05
MOST_MINUTES: Final = 1_000
"""Minutes with an outlier that are counted row by row; more are no outliers but the market."""

QUALITY: Final = {
    "symbol": pl.String(),
    **dict.fromkeys(("score", "rows", "books", "gaps"), pl.Int64()),
    "gap_seconds": pl.Float64(),
    "silences": pl.Int64(),
    "silent_seconds": pl.Float64(),
    **dict.fromkeys(
        ("missing_ids", "outliers", "crossed_books", "locked_books", "one_sided_books",
         "duplicates"),
        pl.Int64(),
    ),
}  # fmt: skip


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
        ``missing_ids`` (null where ids are not consecutive, or rows have none), ``outliers`` (over
        5 % away from the median last price of three minutes; null with fewer than three, or where
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
    doubles: Counter[str] = Counter()
    ties = (both[0].steps["length"] == 0).any()  # without one nothing repeats: no need to ask
    for part in both[0].parts if ties else ():
        doubles.update(dict(db.export(sql.doubles(part)).iter_rows()))
    steps = {name: part for one in reversed(both) for name, part in by_symbol(one.steps).items()}
    minutes = {
        name: part for one in reversed(both) for name, part in by_symbol(one.minutes).items()
    }
    rows, reasons = [], []
    for symbol in sorted({*trades, *books}):
        source = both[0] if symbol in trades else both[1]
        found = _counted(symbol, trades.get(symbol), books.get(symbol), gaps[symbol])
        found |= _silences(steps[symbol], found["seconds"] / max(found["rows"] - 1, 1))
        found["outliers"] = _outliers(db, source.parts[0], symbol, minutes.get(symbol))
        found["duplicates"] = doubles[symbol] if symbol in trades else None
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
    if trades and missing is not None:
        by_place = trades["first_seq"] == 0 and not missing  # an import without ids counts from 0
        if by_place or missing > trades["row_count"]:
            missing = None
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


def _silences(steps: pl.DataFrame, mean: float) -> dict[str, Any]:
    counted, seconds = pl.col("row_count"), pl.col("length") / 1e6
    long = steps.filter(seconds > max(SILENCE_SECONDS, SILENCE_MEANS * mean))
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
        minute = replace(scope, symbol=symbol, start=start, end=start + sql.MINUTE)
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
