"""Candles (OHLCV bars) of ticks that come in chunks: by time, by ticks, by volume, by money.

QuestDB's SAMPLE BY would be shorter, but it promises no order inside one timestamp, and most real
trades share theirs: `first(price)` could then differ from one run to the next. Here the ticks come
in (timestamp, seq) order, so open and close are the first and the last trade, always: of trades in
one microsecond the close is the one with the highest seq.

Each tick gets the number of its bar; a chunk becomes one row a bar, and a bar that lies in two
chunks is there twice and merged. Memory is bounded by a chunk and the bars.

The charts of a session are made here, too: of the whole, or of what somebody zooms into.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from polars import selectors as cs

from fxlab._ticks import Spans, known_gaps
from fxlab._times import (
    Duration,
    Time,
    bounds,
    from_micros,
    integer,
    number,
    parse_duration,
    parse_range,
    required,
    to_micros,
)
from fxlab.errors import InvalidParameter, check_choice
from fxlab.schema import BOOK_DEPTH, UTC_MICROS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from fxlab.charts._style import View
    from fxlab.sessions.session import Session

KINDS: Final = ("time", "tick", "volume", "dollar")
SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND

MOST_FILLED: Final = 10_000_000
"""Bars that `fill` makes at most: a gigabyte."""

REACHED: Final = 1 - 1e-9
"""Share of its size at which a bar is full: ten trades of 0.1 are 1, whatever floats make of it."""

SCHEMA: Final = {
    "timestamp": UTC_MICROS,
    **dict.fromkeys(
        ("open", "high", "low", "close", "volume", "quote_volume", "vwap"), pl.Float64()
    ),
    "trades": pl.Int64(),
    **dict.fromkeys(("buy_volume", "sell_volume"), pl.Float64()),
}
END: Final = {"end": UTC_MICROS}
"""The last tick's time: a column of bars that have no fixed length of time."""

_SUMS: Final = ("volume", "quote_volume", "notional", "buy_volume", "sell_volume")

Numbers = npt.NDArray[np.int64]
Numbering = Callable[[pl.DataFrame], Numbers]
"""What numbers the bars of a chunk's ticks, and goes on where the chunk before it ended."""


def check_interval(interval: Duration) -> int:
    """Return an interval of bars in whole microseconds, one second to one day."""
    is_month = isinstance(interval, str) and "M" in interval  # elsewhere; a minute is "1m"
    try:
        width = -1 if is_month else parse_duration(interval, "interval")
    except InvalidParameter:
        width = -1
    if not SECOND <= width <= DAY:
        raise InvalidParameter(
            f"interval={interval!r:.80} is not an interval of bars; give one second to one day, "
            "such as '1s', '5m', '1h', '1d'"
        )
    return width


def candles(
    chunks: Iterable[pl.DataFrame],
    interval: Duration,
    kind: str = "time",
    *,
    fill: bool = False,
    gaps: Callable[[], pl.DataFrame] | None = None,
) -> pl.DataFrame:
    """Return bars of ticks that come in chunks.

    Parameters
    ----------
    chunks
        Frames with ``timestamp``, ``price`` and, for trades, ``volume``, ``quote_volume`` and
        ``side``, ordered by (timestamp, seq) within and across the frames.
    interval, kind, fill
        As `fxlab.Session.ohlcv` takes them.
    gaps
        Called for the known gaps (``from_time``, ``to_time``) when empty bars are filled.

    Returns
    -------
    polars.DataFrame
        As `fxlab.Session.ohlcv` returns it.
    """
    check_choice("kind", kind, KINDS, "kind of bars")
    if kind != "time" and fill:
        raise InvalidParameter(
            f"fill=True with kind={kind!r}: only bars of time can be empty; leave fill out"
        )
    number_of, width = _numbering(kind, interval)
    parts = [_partial(chunk, number_of(chunk)) for chunk in chunks]
    bars = _merged(parts)
    if kind in ("volume", "dollar") and bars.height and bars["volume"].null_count():
        raise InvalidParameter(
            f"kind={kind!r} needs trades with a volume, and these ticks (quotes, perhaps) have "
            "none; give kind='time' or kind='tick'"
        )
    if kind != "time":
        return bars.select(*SCHEMA, *END)
    timed = bars.with_columns(timestamp=(pl.col("bar") * width).cast(UTC_MICROS)).select(*SCHEMA)
    return _filled(timed, width, gaps) if fill else timed


def _numbering(kind: str, interval: Duration) -> tuple[Numbering, int]:
    if kind == "time":
        width = check_interval(interval)
        return lambda chunk: chunk["timestamp"].to_physical().to_numpy() // width, width
    if kind == "tick":
        rule = f"interval={interval!r:.80} with kind='tick' is a number of ticks; give 1 or more"
        return _by_count(required(integer(interval, 1, 2**53), rule)), 0
    unit = "base" if kind == "volume" else "quote"
    size = number(interval, 0)
    if not size or size == float("inf"):
        raise InvalidParameter(
            f"interval={interval!r:.80} with kind={kind!r} is the {unit} units of a bar; give a "
            "number above zero"
        )
    return _by_amount(float(size), kind), 0


def _by_count(size: int) -> Numbering:
    seen = 0

    def number_of(chunk: pl.DataFrame) -> Numbers:
        nonlocal seen
        seen += chunk.height
        return np.arange(seen - chunk.height, seen, dtype=np.int64) // size

    return number_of


def _by_amount(size: float, kind: str) -> Numbering:
    """Return the numbers of bars that end with the trade by which they hold `size`."""
    bar, held = 0, 0.0

    def number_of(chunk: pl.DataFrame) -> Numbers:
        nonlocal bar, held
        if "volume" not in chunk.columns:
            return np.zeros(chunk.height, dtype=np.int64)
        amount = pl.col("volume") if kind == "volume" else pl.col("volume") * pl.col("price")
        sums = np.cumsum(chunk.select(amount.fill_null(0.0)).to_series().to_numpy())
        before = np.concatenate(([0.0], sums))
        # Of a bar that begins at each row, the row that fills it; then from one to the next.
        full = np.searchsorted(sums, before[:-1] + size * REACHED)
        last = np.maximum(full, np.arange(chunk.height)).tolist()
        row = int(np.searchsorted(sums, size * REACHED - held))
        ends = np.zeros(chunk.height, dtype=np.int64)
        begin = 0
        while row < chunk.height:
            ends[row] = 1
            begin = row + 1
            row = last[begin] if begin < chunk.height else begin
        held = float(before[-1] - before[begin]) + (held if begin == 0 else 0.0)
        numbers = bar + np.cumsum(ends) - ends
        bar += int(ends.sum())
        return numbers

    return number_of


def _partial(chunk: pl.DataFrame, numbers: Numbers) -> pl.DataFrame:
    price, volume, side = pl.col("price"), pl.col("volume"), pl.col("side")
    there = {name for name in ("volume", "quote_volume", "side") if name in chunk.columns}
    sums: dict[str, pl.Expr] = {name: pl.lit(None, dtype=pl.Float64) for name in _SUMS}
    sums |= {name: _sum(pl.col(name)) for name in there - {"side"}}
    if "volume" in there:
        sums["notional"] = _sum(price * volume)
    if {"volume", "side"} <= there:
        for name in ("buy", "sell"):
            own = pl.when(side == name).then(volume).when(side.is_not_null()).then(volume * 0.0)
            sums[f"{name}_volume"] = _sum(own)
    return (
        chunk.with_columns(bar=pl.Series(numbers, dtype=pl.Int64))
        .group_by("bar", maintain_order=True)
        .agg(
            pl.col("timestamp").first(),
            pl.col("timestamp").last().alias("end"),
            price.first().alias("open"),
            price.max().alias("high"),
            price.min().alias("low"),
            price.last().alias("close"),
            pl.len().cast(pl.Int64).alias("trades"),
            **sums,
        )
    )


def _merged(parts: list[pl.DataFrame]) -> pl.DataFrame:
    """Return one row a bar: parts are in order, so one that is in two of them merges exactly."""
    schema = {"bar": pl.Int64(), **SCHEMA, **END, "notional": pl.Float64()}
    names = [name for name in schema if name != "vwap"]
    parts = [part.select(names) for part in parts]
    whole = (
        pl.concat([pl.DataFrame(schema={name: schema[name] for name in names}), *parts])
        .group_by("bar", maintain_order=True)
        .agg(
            pl.col("timestamp").first(),
            pl.col("end").last(),
            pl.col("open").first(),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").last(),
            pl.col("trades").sum(),
            *(_sum(pl.col(name)).alias(name) for name in _SUMS),
        )
    )
    traded = pl.when(pl.col("volume") > 0)
    return whole.with_columns(vwap=traded.then(pl.col("notional") / pl.col("volume")))


def _sum(values: pl.Expr) -> pl.Expr:
    """Return the sum of what is known, or null where nothing is."""
    return pl.when(values.count() > 0).then(values.sum())


def _filled(
    bars: pl.DataFrame, width: int, gaps: Callable[[], pl.DataFrame] | None
) -> pl.DataFrame:
    """Add the empty bars between the first and the last one.

    Their prices are the close before them. Nothing was traded in them, as far as they lie in no
    known gap; in one, the sums are not known and null.
    """
    starts = bars["timestamp"].to_physical()
    count = (starts[-1] - starts[0]) // width + 1 if bars.height else 0
    if count > MOST_FILLED:
        raise InvalidParameter(
            f"fill=True would make {count:,} bars, and {MOST_FILLED:,} are the most; give a longer "
            "interval or a shorter range (start=, end=)"
        )
    if count == bars.height:
        return bars
    grid = starts[0] + width * np.arange(count, dtype=np.int64)
    missing = np.zeros(count, dtype=bool)
    if gaps is not None:
        known = gaps()
        spans = Spans.of(*(known[name].to_physical().to_numpy() for name in known.columns))
        missing = spans.inside(grid, grid + width) > 0
    whole = pl.DataFrame({"timestamp": pl.Series(grid).cast(UTC_MICROS), "missing": missing}).join(
        bars, on="timestamp", how="left", maintain_order="left"
    )
    close = pl.col("close").forward_fill()
    is_empty = pl.col("trades").is_null()
    sums = [
        pl.when(is_empty & ~pl.col("missing")).then(0.0).otherwise(pl.col(name)).alias(name)
        for name in ("volume", "quote_volume", "buy_volume", "sell_volume")
        if bars[name].null_count() < bars.height
    ]
    prices = [pl.col(name).fill_null(close) for name in ("open", "high", "low", "close")]
    return whole.with_columns(*prices, *sums, pl.col("trades").fill_null(0)).select(*SCHEMA)


def sampled(chunks: Iterable[pl.DataFrame], first: int, last: int, most: int) -> pl.DataFrame:
    """Return the rows that a chart of at most `most` points needs, from ticks in chunks.

    Of each of equal spans of time between two instants (us) the first, last, lowest and highest
    row stay, so that no spike and no silence is lost.
    """
    slots = required(integer(most, 8, 10_000_000), _SAMPLE_RULE.format(most)) // 4
    width = max((last - first) // slots + 1, 1)
    parts = [_extremes(chunk, first, width, slots) for chunk in chunks]
    empty = pl.DataFrame(schema={"timestamp": UTC_MICROS, "seq": pl.Int64, "price": pl.Float64})
    return _extremes(pl.concat(parts), first, width, slots) if parts else empty


_SAMPLE_RULE: Final = "max_points={!r:.80} is not a number of points; give 8 or more"


def _extremes(rows: pl.DataFrame, first: int, width: int, slots: int) -> pl.DataFrame:
    row, price = pl.int_range(pl.len()), pl.col("price")
    slot = ((pl.col("timestamp").to_physical() - first) // width).clip(0, slots - 1)
    chosen = (
        rows.select("price", row=row, slot=slot)
        .group_by("slot")
        .agg(
            a=pl.col("row").first(),
            b=pl.col("row").last(),
            c=pl.col("row").get(price.arg_min()),
            d=pl.col("row").get(price.arg_max()),
        )
    )
    kept = pl.concat([chosen[name] for name in "abcd"]).unique().sort()
    return rows[kept]


MOST_BOOKS: Final = 200_000
"""Order books that a chart is made of; of more, every second, fourth, eighth ... one."""


_NO_BOOKS: Final = {"timestamp": UTC_MICROS, "spread": pl.Float64()}


class Books(NamedTuple):
    """Order books of a chart: each of a few, of more every n-th; how many there are; the spread."""

    few: pl.DataFrame
    spread: pl.DataFrame
    total: int


def thinned(chunks: Iterable[pl.DataFrame], first: int, last: int, points: int) -> Books:
    """Return books in bounded memory, and their spread with every spike.

    Parameters
    ----------
    chunks
        As `fxlab.Session.scan_orderbook` yields them.
    first, last
        Instants (us) that they lie between.
    points
        Of the spread, at most, where not every book is returned.
    """
    slots = max(points, 8) // 4
    width = max((last - first) // slots + 1, 1)
    few: list[pl.DataFrame] = []
    spreads: list[pl.DataFrame] = []
    step, count = 1, 0
    for chunk in chunks:
        few.append(chunk.gather_every(step, -count % step))
        count += chunk.height
        spread = chunk.select("timestamp", price="spread").drop_nulls()
        spreads.append(_extremes(spread, first, width, slots))
        while sum(part.height for part in few) > MOST_BOOKS:
            step *= 2
            few = [pl.concat(few).gather_every(2)]
    every = pl.concat(few) if few else pl.DataFrame(schema=_NO_BOOKS)
    if step == 1:
        return Books(every, every, count)
    spikes = _extremes(pl.concat(spreads), first, width, slots)
    return Books(every, spikes.rename({"price": "spread"}), count)


@dataclass(frozen=True)
class SessionCharts:
    """The charts of a symbol of a session: of all its time, or of a part.

    `view` is what a zoom asks for: it knows the whole, so that little more is read than what is
    seen. Facts about the whole are read once, for a session that may still be recorded as it was.
    """

    session: Session
    symbol: str
    interval: Duration | None = None
    max_points: int = 1_000

    def figures(self, start: Time | None = None, end: Time | None = None) -> dict[str, Figure]:
        """Return all charts there are; see `Session.charts`."""
        from fxlab import charts

        session, name = self.session, self.symbol
        ticks, count = (
            (self._sample, self._count)
            if start is None is end
            else (
                session.chart_data(name, max_points=self.max_points, start=start, end=end),
                session.count_ticks(name, start=start, end=end),
            )
        )
        times = ticks["timestamp"]
        span = (times[-1] - times[0]).total_seconds() if len(times) else 1.0
        bars = session.ohlcv(self._width(span), name, start=start, end=end)
        books = self._books(start, end) if session.has_books(name) else None
        found = {
            "session": charts.session_chart(
                ticks, self._about, candles=bars, books=books and books.spread,
                gaps=self._gaps["gaps"], book_gaps=self._gaps["book_gaps"],
                points=self.max_points, ticks_count=count, books_count=books and books.total,
            ),
            "candles": charts.candles_chart(bars, self._about, gaps=self._gaps["gaps"]),
        }  # fmt: skip
        if books is not None:
            found["depth"] = charts.depth_chart(
                books.few, self._about, gaps=self._gaps["book_gaps"], books_count=books.total
            )
        return found

    def _books(self, start: Time | None, end: Time | None, depth: int = BOOK_DEPTH) -> Books:
        session, name = self.session, self.symbol
        edges = bounds(session.started, session.ended)
        given = parse_range(start, end)
        first, last = (b if a is None else a for a, b in zip(given, edges, strict=True))
        chunks = session.scan_orderbook(name, start=start, end=end, depth=depth)
        return thinned(chunks, first or 0, last or 0, self.max_points)

    @cached_property
    def whole(self) -> dict[str, Figure]:
        """Return the charts of all the time."""
        return self.figures()

    def view(self, chart: str, start: datetime, end: datetime) -> Figure:
        """Return one of the charts over a part of the time, with shorter candles."""
        from fxlab import charts
        from fxlab.charts._style import View, usual_step

        low, high = to_micros(start), to_micros(end)
        times = self._sample["timestamp"]
        usual = 0.0
        if len(times):
            usual = usual_step(to_micros(times[0]), to_micros(times[-1]), self._count)
        panels = tuple(axis.title.text for axis in self.whole["session"].select_yaxes())
        view = View(low, high, 0, self._count, usual, panels=panels)
        if chart == "session":
            return self._session_view(view)
        if chart == "candles":
            gaps = self._gaps["gaps"]
            return charts.candles_chart(self._bars(view), self._about, gaps=gaps, view=view)
        books = self._books(start, end)
        gaps = self._gaps["book_gaps"]
        return charts.depth_chart(
            books.few, self._about, gaps=gaps, books_count=books.total, view=view
        )

    def _session_view(self, view: View) -> Figure:
        from fxlab import charts
        from fxlab.charts._style import reach, sample_range

        session, name = self.session, self.symbol
        start, end = map(from_micros, reach(self._sample, view.start, view.end))
        chunks = session.scan_ticks(name, start=start, end=end, received=True)
        names = cs.by_name("timestamp", "price", "received_at", "side", require_all=False)
        needed = (chunk.select(names) for chunk in chunks)
        with ThreadPoolExecutor(1) as pool:  # candles beside the line: each is a pass
            made = pool.submit(contextvars.copy_context().run, self._bars, view)
            ticks, count = sample_range(needed, view.start, view.end, self.max_points)
            bars = made.result()
        first, last = from_micros(view.start), from_micros(view.end)
        books = self._books(first, last, depth=1) if "spread" in view.panels else None
        return charts.session_chart(
            ticks, self._about, candles=bars, books=books and books.spread,
            gaps=self._gaps["gaps"], book_gaps=self._gaps["book_gaps"], points=self.max_points,
            books_count=books and books.total, view=replace(view, ticks=count),
        )  # fmt: skip

    def _bars(self, view: View) -> pl.DataFrame:
        """Return the candles of a view; the first and the last one are whole, too."""
        width = self._width((view.end - view.start) / SECOND)
        step = parse_duration(width, "interval")
        start = from_micros(view.start // step * step)
        end = from_micros(-(-view.end // step) * step)
        return self.session.ohlcv(width, self.symbol, start=start, end=end)

    def _width(self, seconds: float) -> Duration:
        """Return the shortest interval of candles of which so long a time has few enough."""
        from fxlab.charts import CANDLES

        if self.interval is not None:
            return self.interval
        return next((step for step in _WIDTHS if seconds / step <= CANDLES), 86_400)

    @property
    def _about(self) -> str:
        return f"{self.symbol}, {self.session.id}"

    @cached_property
    def _sample(self) -> pl.DataFrame:
        return self.session.chart_data(self.symbol, max_points=self.max_points)

    @cached_property
    def _count(self) -> int:
        return self.session.count_ticks(self.symbol)

    @cached_property
    def gaps(self) -> pl.DataFrame:
        """Return the symbol's known gaps, of ticks and of books."""
        return known_gaps(self._events, [self.symbol])[self.symbol]

    @cached_property
    def _gaps(self) -> dict[str, pl.DataFrame]:
        """Return the known gaps of the symbol's ticks and of its books."""
        ticks = "prices" if self.session.has_trades(self.symbol) else "orderbook"
        kinds = {"gaps": ticks, "book_gaps": "orderbook"}
        return {
            name: known_gaps(self._events, [self.symbol], kind)[self.symbol]
            for name, kind in kinds.items()
        }

    @cached_property
    def _events(self) -> pl.DataFrame:
        return self.session.events()


_WIDTHS: Final = (1, 5, 15, 60, 300, 900, 3_600, 14_400)
"""Seconds that a candle of a chart lasts, unless a day."""
