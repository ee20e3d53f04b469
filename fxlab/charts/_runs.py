"""Charts of runs: downsampled lines, fill markers, price, equity, exposure, comparison.

A run is drawn over one time axis: prices with fills, equity, drawdown, exposure; compared runs are
drawn on one scale, each starting at one.

Every line goes through `line`: few points, the same shape, and no stroke across a gap, known or
seen in the data. A part of the time (`View`) is drawn from its own rows, read for it alone. Fills
are markers: the side by direction and colour, the reason by shape, a maker as an outline. Colour
alone tells nothing to one man in twelve; every marker can be read in grey.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fxlab._html import escape
from fxlab.charts._alt_text import summarised
from fxlab.charts._style import (
    BUY,
    GAIN,
    INK,
    LINES,
    LOSS,
    PERCENT,
    PERCENT_TICKS,
    SELL,
    SELL_SOFT,
    Floats,
    View,
    curve_look,
    gap_starts,
    house_figure,
    milliseconds,
    note,
    percent,
    rows_to_draw,
    shade,
    span_of_time,
    usual_step,
)

POINTS: Final = 1_000
"""Points drawn of prices, unless given: about one a pixel, 22 KB of a saved notebook.

A zoom in a panel samples again; reports, which have no kernel to do so, draw more."""


SHADED: Final = 300
"""Known gaps that a chart shows, the longest ones."""

NO_GAPS: Final = pl.DataFrame(schema={"symbol": pl.String, "start": pl.Float64, "end": pl.Float64})


def unfilled(gaps: pl.DataFrame | None, what: str) -> pl.DataFrame:
    """Return the gaps that a chart shows, as symbol (null: all), start, end (ms since 1970).

    Parameters
    ----------
    gaps
        from_time, to_time, and as far as they are there: symbol, and event, count and detail of a
        session's event table, of which only gaps count that are not filled.
    what
        The data that is drawn, "prices" or "orderbook": gaps of the other are no gaps of it.
    """
    if gaps is None:
        return NO_GAPS
    kept = gaps.filter(pl.col("from_time").is_not_null() & pl.col("to_time").is_not_null())
    if "event" in gaps.columns:
        kept = kept.filter(pl.col("event") == "gap")
    if "count" in gaps.columns:
        kept = kept.filter(pl.col("count").is_null() | (pl.col("count") != 0))
    if "detail" in gaps.columns:
        missed = pl.col("detail").cast(pl.String).str.extract(r'"what": ?"(\w+)"')
        kept = kept.filter(missed.is_null() | (missed == what))
    if "symbol" not in gaps.columns:
        kept = kept.with_columns(symbol=pl.lit(None, pl.String))
    return pl.DataFrame(
        {
            "symbol": kept["symbol"].cast(pl.String).replace("", None),
            "start": milliseconds(kept["from_time"]),
            "end": milliseconds(kept["to_time"]),
        },
        schema=NO_GAPS.schema,
    )


def gaps_of(gaps: pl.DataFrame, symbol: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the gaps of a symbol, the `SHADED` longest.

    If it is not known which symbol is drawn (""), the rows tell: a gap in which there are rows is
    another symbol's.
    """
    own = pl.col("symbol").is_null() | (pl.col("symbol") == symbol)
    if not symbol and gaps["symbol"].n_unique() > 1:
        times = milliseconds(rows["timestamp"])
        after = np.searchsorted(times, gaps["start"], side="right")
        own = pl.col("symbol").is_null() | pl.Series(np.searchsorted(times, gaps["end"]) <= after)
    elif not symbol:
        own = pl.lit(value=True)
    longest = gaps.filter(own).sort(pl.col("end") - pl.col("start"), descending=True)
    return longest.head(SHADED)


CLOSE: Final = 150
"""Points of a line in a view up to which each is marked: rows can be told from what joins them."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What is drawn of one series: NaN breaks the line, and does not count as drawn."""

    x: Floats
    y: Floats
    drawn: int
    mode: str
    """How it is drawn: one point is no line; of few in a view each is marked."""


def line(
    frame: pl.DataFrame,
    y: str,
    points: int,
    gaps: pl.DataFrame = NO_GAPS,
    view: View | None = None,
) -> Trace:
    """Return a line that keeps every spike and breaks in silences and in known gaps."""
    clean = frame.filter(pl.col(y).cast(pl.Float64).is_finite())
    times = milliseconds(clean["timestamp"])
    values = clean[y].cast(pl.Float64).to_numpy()
    rows = rows_to_draw(times, values, points)
    silences = gap_starts(times, usual=0.0 if view is None else view.usual)
    before = np.union1d(silences, _rows_before(times, gaps)).astype(np.int64)
    # A gap is drawn exactly: its last row before and its first row after are always there.
    rows = np.union1d(rows, np.concatenate((before, before + 1)))
    after = np.searchsorted(rows, before + 1)
    is_close = view is not None and len(rows) <= CLOSE
    middle = (times[before] + times[before + 1]) / 2
    return Trace(
        x=np.insert(times[rows], after, middle),
        y=np.insert(values[rows], after, np.nan),
        drawn=len(rows) if view is None else _count_inside(times[rows], view),
        mode="markers" if len(rows) < 2 else "lines+markers" if is_close else "lines",
    )


def _count_inside(times: Floats, view: View) -> int:
    start, end = view.edges
    return int(np.count_nonzero((times >= start) & (times < end)))


def _rows_before(times: Floats, gaps: pl.DataFrame) -> list[int]:
    """Return the row before each known gap; in one that is filled in part, before its silence."""
    found = []
    for start, end in gaps.select("start", "end").iter_rows():
        first = max(int(np.searchsorted(times, start, side="right")) - 1, 0)
        last = int(np.searchsorted(times, end))
        if end > start and times[first : first + 1] <= start and last < len(times):
            found.append(first + int(np.diff(times[first : last + 1]).argmax()))
    return found


MARKERS: Final = 600
"""Fills drawn a chart, about: more than an eye can tell apart."""

RAREST: Final = 40
"""Fills of a kind that are drawn at least, so that no rare liquidation hides among signals."""

SHAPES: Final = {
    "stop_loss": "arrow-bar",
    "trailing_stop": "arrow",
    "take_profit": "star-triangle",
    "liquidation": "hexagram",
}
"""Marker of a reason that is not the strategy's own wish; those point up for a buy."""

PLAIN: Final = "triangle"
_UNDIRECTED: Final = ("hexagram",)


def scaled(prices: Floats, base: float | None) -> Floats:
    """Return prices as they are, or as their change since `base`."""
    return prices if base is None else prices / base - 1


def draw_fills(figure: go.Figure, fills: pl.DataFrame, base: float | None, limit: int) -> None:
    """Draw fills into the first row of a figure, each kind evenly thinned to its share of `limit`.

    Parameters
    ----------
    figure
        A house figure.
    fills
        timestamp, price, qty (signed); reason and liquidity (taker, maker) where they are known.
    base
        Price that changes are measured from, or None for prices as they are.
    limit
        About how many are drawn.
    """
    size = 10 if fills.height <= 100 else 7 if fills.height <= 400 else 5
    for name, shape, colour, kind in _kinds(fills):
        room = max(RAREST, limit * kind.height // fills.height)
        trace = _trace(kind.gather_every(-(-kind.height // room)), base, name)
        # A white rim parts markers that overlap; on many small ones it would be all one sees.
        rim = {"width": 0.7 if size > 5 else 0, "color": "#fff"}
        if shape.endswith("-open"):
            rim = {"width": 1.5}
        trace.marker.update(symbol=shape, color=colour, size=size, line=rim)
        trace.showlegend = not any(other.name == name for other in figure.data)
        figure.add_trace(trace, row=1, col=1)


def _kinds(fills: pl.DataFrame) -> Iterator[tuple[str, str, str, pl.DataFrame]]:
    """Yield (name, shape, colour, its fills) of every kind of fill there is, signals first."""
    said = {name: pl.col(name) for name in ("reason", "liquidity") if name in fills.columns}
    kinds = fills.filter(pl.col("qty") != 0).with_columns(
        pl.when(pl.col("qty") > 0).then(pl.lit("buy")).otherwise(pl.lit("sell")).alias("side"),
        said.get("reason", pl.lit("signal")).fill_null("signal").alias("reason"),
        said.get("liquidity", pl.lit("taker")).fill_null("taker").alias("liquidity"),
    )
    plain = pl.col("reason").is_in(SHAPES)
    kinds = kinds.sort(plain, "reason", "liquidity", "side", maintain_order=True).with_columns(
        pl.when(plain).then("reason").otherwise(pl.lit("")).alias("shown")
    )
    for key, frame in kinds.group_by("side", "shown", "liquidity", maintain_order=True):
        side, reason, liquidity = map(str, key)
        shape = SHAPES.get(reason, PLAIN)
        if shape not in _UNDIRECTED:
            shape += "-up" if side == "buy" else "-down"
        parts = (side, reason.replace("_", " "), "maker" if liquidity == "maker" else "")
        yield (
            ", ".join(part for part in parts if part),
            f"{shape}-open" if liquidity == "maker" else shape,
            BUY if side == "buy" else SELL,
            frame,
        )


def _trace(kind: pl.DataFrame, base: float | None, name: str) -> go.Scatter:
    prices = kind["price"].to_numpy()
    amounts = kind["qty"].to_numpy().astype(np.float32)  # six digits are shown
    at = "%{y}" if base is None else "%{text}"
    return go.Scatter(
        x=milliseconds(kind["timestamp"]),
        y=scaled(prices, base),
        customdata=amounts,
        text=None if base is None else [f"{price:.10g}" for price in prices],
        name=name,
        legendgroup=name,
        legendrank=1_001,  # behind the symbols, whose rank is 1,000
        mode="markers",
        meta="fills",
        marker={"opacity": 0.9},
        hovertemplate=f"{name} %{{customdata:.6~g}} at {at}<extra></extra>",
    )


SHADED_DRAWDOWNS: Final = 5
FEWEST: Final = 500
"""Points that each of many symbols gets at least."""


@summarised
def price_chart(
    prices: pl.DataFrame,
    fills: pl.DataFrame | None = None,
    gaps: pl.DataFrame | None = None,
    title: str = "",
    *,
    points: int = POINTS,
    ticks: int | None = None,
    symbol: str = "",
) -> go.Figure:
    """Draw prices over time, with fills and known gaps.

    Parameters
    ----------
    prices
        timestamp, price, and symbol where there are several. Several symbols are drawn as their
        change since the first tick, so that they share a scale.
    fills
        symbol, timestamp, price, qty (signed base units): triangles, up for a buy.
    gaps
        from_time, to_time, or the whole event table of a session (`Session.events`): a gap of
        the symbols and the data drawn is shaded, and no line crosses it.
    title
        Plain text; it is escaped.
    points
        Points drawn at most; several symbols share them, with at least `FEWEST` each.
    ticks
        How many ticks the prices stand for, when the frame is itself a sample.
    symbol
        Whose prices they are, where the frame does not say it.
    """
    figure = house_figure([1.0], ["price"], title, height=420)
    _draw_prices(
        figure, prices, fills, _known(gaps, prices), points=points, ticks=ticks, only=symbol
    )
    return figure


@summarised
def result_chart(
    prices: pl.DataFrame,
    fills: pl.DataFrame,
    equity: pl.DataFrame,
    title: str = "",
    *,
    gaps: pl.DataFrame | None = None,
    ticks: int | None = None,
    points: int = POINTS,
    view: View | None = None,
) -> go.Figure:
    """Draw a backtest: prices with fills, equity, drawdown, on one time axis.

    Parameters
    ----------
    prices, fills, gaps, title, ticks, points
        As `price_chart` takes them.
    equity
        timestamp, equity (quote units), drawdown (share of the highest equity so far).
    view
        The part of the time that the prices are of, as `Result.plot` gives it.
    """
    figure = house_figure(
        [0.52, 0.28, 0.2], ["price", "equity, quote", "drawdown"], title, height=640
    )
    known = _known(gaps, prices)
    if view is not None:
        times = pl.col("timestamp").to_physical()
        fills = fills.filter(times >= view.start, times < view.end)
        known = view.gaps(known)
    shown = _draw_prices(figure, prices, fills, known, points=points, ticks=ticks, view=view)
    # Money of several symbols moves on while one of them is not seen.
    one = "symbol" not in prices.columns or prices["symbol"].n_unique() < 2
    _draw_equity(figure, equity, points, 2, shown if one else NO_GAPS, view=view)
    if view is not None:
        view.fit(figure)
    return figure


@summarised
def equity_chart(
    equity: pl.DataFrame,
    title: str = "",
    *,
    drawdowns: pl.DataFrame | None = None,
    points: int = POINTS,
) -> go.Figure:
    """Draw equity and, below it, the drawdown as a filled area.

    Parameters
    ----------
    equity
        timestamp, equity (quote units), drawdown (share of the highest equity so far).
    title
        Plain text; it is escaped.
    drawdowns
        peak_at, recovered_at (null: to the end), depth, deepest first, as `analysis.drawdowns`
        gives them: their spans are shaded and numbered, the first `SHADED_DRAWDOWNS` of them.
    points
        Points drawn at most; the two lines share them.
    """
    figure = house_figure([0.66, 0.34], ["equity, quote", "drawdown"], title, height=420)
    _draw_equity(figure, equity, points, 1)
    if drawdowns is not None and equity.height:
        _shade_drawdowns(figure, drawdowns, equity["timestamp"])
    if equity.is_empty():
        note(figure, "no equity: the run has no ticks")
    return figure


@summarised
def exposure_chart(exposure: pl.DataFrame, title: str = "", *, points: int = POINTS) -> go.Figure:
    """Draw the share of time with a long (above zero) and a short position (below).

    Parameters
    ----------
    exposure
        timestamp (start of each interval), long, short (shares of it), as
        `analysis.exposure_over_time` gives them.
    title
        Plain text; it is escaped.
    points
        Intervals drawn at most; of more, neighbours are averaged.
    """
    figure = house_figure([1.0], ["share of time held"], title, height=260)
    length = -(-exposure.height // points) or 1
    number = pl.int_range(pl.len()) // length
    drawn = exposure.group_by(number.alias("run"), maintain_order=True).agg(
        pl.col("timestamp").first(), pl.col("long", "short").mean()
    )
    for name, colour, sign in (("long", GAIN, 1), ("short", LOSS, -1)):
        if not drawn[name].sum():
            continue
        figure.add_scatter(
            x=milliseconds(drawn["timestamp"]),
            y=drawn[name].to_numpy() * sign,
            name=name,
            mode="lines",
            fill="tozeroy",
            line={"width": 1, "color": colour, "shape": "hv"},
            hovertemplate=f"{name} %{{y:{PERCENT}}}<extra></extra>",
        )
    figure.update_yaxes(tickformat=PERCENT_TICKS)
    held = f"{exposure.height:,} intervals"
    note(figure, held if figure.data else "no position was held at any time")
    return figure


def _known(gaps: pl.DataFrame | None, prices: pl.DataFrame) -> pl.DataFrame:
    """Return the gaps of the data that are drawn: quotes come from the book."""
    return unfilled(gaps, "orderbook" if "bid_price_1" in prices.columns else "prices")


def _draw_prices(
    figure: go.Figure,
    prices: pl.DataFrame,
    fills: pl.DataFrame | None,
    known: pl.DataFrame,
    *,
    points: int,
    ticks: int | None,
    only: str = "",
    view: View | None = None,
) -> pl.DataFrame:
    """Draw prices and fills, and return the gaps that were shaded."""
    drawn = 0
    series = list(_series(prices))
    each = points if len(series) < 2 else max(FEWEST, points // len(series))
    shown = NO_GAPS
    for number, (symbol, frame) in enumerate(series):
        base = _base(frame, symbol, view) if _is_several(series, view) else None
        own_gaps = gaps_of(known, symbol or only, frame)
        shown = shown.vstack(own_gaps)
        drawable = line(frame, "price", each, own_gaps, view)
        figure.add_trace(_price_trace(drawable, base, symbol, number), row=1, col=1)
        drawn += drawable.drawn
        if fills is not None:
            own = fills.filter(pl.col("symbol") == symbol) if "symbol" in prices.columns else fills
            draw_fills(figure, own, base, MARKERS // len(series))
    if _is_several(series, view):
        figure.update_yaxes(title_text="price, change", tickformat=PERCENT_TICKS, row=1, col=1)
        figure.update_yaxes(hoverformat=f"+{PERCENT}", row=1, col=1)
    spans = shown.unique(["start", "end"], maintain_order=True)
    shade(figure, spans["start"].to_numpy(), spans["end"].to_numpy())
    total = prices.height if ticks is None else ticks
    note(figure, _with_fills(drawn_note(total, drawn) if view is None else view.note(drawn), fills))
    return shown


def _is_several(series: list[tuple[str, pl.DataFrame]], view: View | None) -> bool:
    """Return whether changes are drawn: in a part of the time some symbols may be silent."""
    return len(series) > 1 or (view is not None and len(view.bases) > 1)


def _base(frame: pl.DataFrame, symbol: str, view: View | None) -> float:
    first = float(frame["price"][0])
    return first if view is None else view.bases.get(symbol, first)


def _series(prices: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield (symbol, its rows) in order of appearance; symbols without prices are left out."""
    usable = prices.filter(pl.col("price").is_not_null())
    if "symbol" not in prices.columns:
        if usable.height:
            yield "", usable
        return
    for key, frame in usable.group_by("symbol", maintain_order=True):
        yield str(key[0]), frame


def _price_trace(drawn: Trace, base: float | None, symbol: str, number: int) -> go.Scatter:
    plain = base is None
    look = curve_look(number) if number >= len(LINES) else {"color": LINES[number]}
    return go.Scatter(
        x=drawn.x,
        y=scaled(drawn.y, base),
        customdata=None if plain else drawn.y,
        name=escape(symbol) or "price",
        mode=drawn.mode,
        showlegend=not plain,
        line={"width": 1.3, **look},
        hovertemplate="%{y}<extra></extra>" if plain else "%{customdata} (%{y})",
    )


def _draw_equity(
    figure: go.Figure,
    equity: pl.DataFrame,
    points: int,
    first_row: int,
    gaps: pl.DataFrame = NO_GAPS,
    *,
    view: View | None = None,
) -> None:
    if equity.is_empty():
        return
    if view is not None:  # samples of equity are rarer than ticks
        first, last = equity["timestamp"].to_physical()[[0, -1]]
        usual = max(view.usual, usual_step(first, last, equity.height))
        view, equity = replace(view, usual=usual), view.rows(equity, beside=1)
    depth = equity.with_columns(drawdown=-pl.col("drawdown").abs())
    half = max(points // 2, 8)  # two lines share the points
    money, loss = (
        line(frame, name, half, gaps, view)
        for frame, name in ((equity, "equity"), (depth, "drawdown"))
    )
    figure.add_scatter(
        x=money.x,
        y=money.y,
        mode=money.mode,
        name="equity",
        showlegend=False,
        line={"width": 1.6, "color": LINES[0]},
        hovertemplate="equity %{y:,.2f}<extra></extra>",
        row=first_row,
        col=1,
    )
    figure.add_scatter(
        x=loss.x,
        y=loss.y.astype(np.float32),
        mode=money.mode,
        name="drawdown",
        showlegend=False,
        fill="tozeroy",
        line={"width": 1, "color": SELL},
        fillcolor=SELL_SOFT,
        hovertemplate=f"drawdown %{{y:{PERCENT}}}<extra></extra>",
        row=first_row + 1,
        col=1,
    )
    never = not np.nansum(loss.y)  # a range found by plotly would lie above zero
    figure.update_yaxes(
        tickformat=PERCENT_TICKS,
        rangemode="tozero",
        range=[-0.01, 0] if never else None,
        row=first_row + 1,
        col=1,
    )


def _shade_drawdowns(figure: go.Figure, drawdowns: pl.DataFrame, times: pl.Series) -> None:
    """Shade the deepest drawdowns from peak to recovery, each with its number and depth."""
    end = pl.col("recovered_at").fill_null(times[-1])
    shown = drawdowns.head(SHADED_DRAWDOWNS).with_columns(end)
    starts, ends = milliseconds(shown["peak_at"]), milliseconds(shown["recovered_at"])
    whole = float(np.ptp(milliseconds(times[[0, -1]])))
    for number, (x0, x1, depth) in enumerate(zip(starts, ends, shown["depth"], strict=True), 1):
        share = (x1 - x0) / whole  # of the width: what can be read in it
        text = f"{number}: {percent(depth)}" if share > 0.11 else number if share > 0.02 else ""
        label = {"text": str(text), "textposition": "top left", "font": {"size": 11}}
        look = {"fillcolor": SELL, "opacity": 0.12, "label": label}
        figure.add_shape(**span_of_time(x0, x1, yref="y domain", **look))


def drawn_note(count: int, drawn: int, what: str = "tick") -> str:
    """Return how many there are of what a chart stands for, and how many of them were drawn."""
    if not count:
        return f"no {what}s" + ": the frame of prices has no rows" * (what == "tick")
    many = f"{count:,} {what}{'s' * (count != 1)}"
    return f"{many}, {drawn:,} drawn" if drawn < count else many


def _with_fills(text: str, fills: pl.DataFrame | None) -> str:
    if fills is None or fills.height <= MARKERS:
        return text
    return f"{text}; {fills.height:,} fills, about {MARKERS:,} drawn"


POINTS_ALL: Final = 2_400
"""Points of all curves together; each has at most a quarter of them, and 200 at least."""


@summarised
def comparison_chart(curves: Mapping[str, pl.DataFrame], title: str = "") -> go.Figure:
    """Draw equities rebased to one; curves differ by dash as well as by colour.

    Parameters
    ----------
    curves
        Equity by name: timestamp, equity (money; the first above zero), as in `Result.equity`.
    title
        Plain text; it is escaped.
    """
    figure = house_figure([1.0], ["equity / capital"], title, height=420)
    each = min(POINTS_ALL // 4, max(200, POINTS_ALL // max(len(curves), 1)))
    for number, (name, equity) in enumerate(curves.items()):
        if equity.is_empty():
            continue
        rebased = equity.with_columns(equity=pl.col("equity") / pl.col("equity").first())
        drawn = line(rebased, "equity", each)
        figure.add_scatter(
            x=drawn.x,
            y=drawn.y,
            name=escape(name),
            mode="lines",
            line={"width": 1.6, **curve_look(number)},
            hovertemplate="%{y:.4f}",
        )
    figure.update_layout(showlegend=True)
    figure.add_hline(y=1.0, line={"width": 1, "dash": "dot", "color": INK})
    note(figure, "" if figure.data else "no equity: none of the curves has a row")
    return figure
