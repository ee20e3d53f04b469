"""Charts of sessions: candles; price, volume, spread and skew; the order book as a heat map.

Each says what it drew of what. Prices keep every spike and break at gaps; candles that do not fit
are joined into longer ones, exactly; of a book each cell is a mean over its span of time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fxlab._html import show
from fxlab.charts._alt_text import summarised
from fxlab.charts._runs import POINTS, drawn_note, gaps_of, line, unfilled
from fxlab.charts._style import (
    BUY,
    INK,
    LINES,
    SELL,
    SEQUENTIAL,
    Floats,
    View,
    downsample,
    house_figure,
    milliseconds,
    note,
    shade,
)

CANDLES: Final = 400
"""Candles drawn at most: fewer pixels than three each show none."""

CELLS: Final = (160, 64)
"""Columns (time) and rows (price) of a heat map at most: cells of some five pixels."""


@summarised
def candles_chart(
    candles: pl.DataFrame,
    title: str = "",
    *,
    gaps: pl.DataFrame | None = None,
    most: int = CANDLES,
    view: View | None = None,
) -> go.Figure:
    """Draw candles and, below them, the volume by the side of the takers.

    Parameters
    ----------
    candles
        As `fxlab.Session.ohlcv` returns them.
    title
        Plain text; it is escaped.
    gaps
        from_time, to_time, or a session's event table: shaded.
    most
        Candles drawn at most; of more, neighbours are joined into one: its open is the first,
        its close the last, its volumes are sums.
    view
        The part of the time that the candles are of.

    Returns
    -------
    plotly.graph_objects.Figure
        Rising candles are outlines, falling ones are filled: they differ without colour, too. The
        note tells how many there are, and open, high, low and close of them all.
    """
    figure = house_figure([0.72, 0.28], ["price", "volume"], title, height=520)
    if view is not None:
        view.fit(figure)
    if candles.is_empty():
        note(figure, candles_text(candles) if view is None else view.note(0))
        return figure
    drawn = _joined(candles, -(-candles.height // max(most, 1)))
    times = milliseconds(drawn["timestamp"])
    figure.add_candlestick(
        x=times,
        **{name: drawn[name].to_numpy() for name in ("open", "high", "low", "close")},
        increasing={"line": {"color": BUY, "width": 1.2}, "fillcolor": "rgba(0,0,0,0)"},
        decreasing={"line": {"color": SELL, "width": 1.2}, "fillcolor": SELL},
        name="price",
        showlegend=False,
        row=1,
        col=1,
    )
    figure.update_xaxes(rangeslider_visible=False)
    _draw_volumes(figure, drawn, times, row=2)
    known = _gaps_in_view(gaps, "prices", drawn, view)
    shade(figure, known["start"].to_numpy(), known["end"].to_numpy())
    note(figure, candles_text(candles, drawn.height, None if view is None else view.whole))
    return figure


def candles_text(candles: pl.DataFrame, drawn: int | None = None, whole: int | None = None) -> str:
    """Return candles in words: how many, of how many ticks, open, high, low, close, volume.

    Parameters
    ----------
    candles
        As `fxlab.Session.ohlcv` returns them.
    drawn
        How many are drawn, where they were joined.
    whole
        Ticks of the whole, where the candles are those of a part that is in view.
    """
    if candles.is_empty():
        return "no candles: there are no ticks"
    count = f"{candles.height:,} candle{'s' * (candles.height != 1)}"
    joined = f", joined to {drawn:,}" if drawn is not None and drawn < candles.height else ""
    values = {
        "open": candles["open"][0],
        "high": candles["high"].max(),
        "low": candles["low"].min(),
        "close": candles["close"][-1],
    }
    if candles["volume"].null_count() < candles.height:
        values["volume"] = candles["volume"].sum()
    said = ", ".join(f"{name} {show(value)}" for name, value in values.items())
    seen, of = ("", "") if whole is None else (" in view", f" of {whole:,}")
    return f"{count}{seen}{joined}, {candles['trades'].sum():,}{of} ticks; {said}"


def _joined(candles: pl.DataFrame, length: int) -> pl.DataFrame:
    """Return candles of which `length` neighbours each are one."""
    sums = [name for name in ("volume", "buy_volume", "sell_volume") if name in candles.columns]
    known = [
        pl.when(pl.col(name).count() > 0).then(pl.col(name).sum()).alias(name) for name in sums
    ]
    number = pl.int_range(pl.len()) // length
    return candles.group_by(number.alias("number"), maintain_order=True).agg(
        pl.col("timestamp", "open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        *known,
    )


def _draw_volumes(figure: go.Figure, bars: pl.DataFrame, times: Floats, row: int) -> None:
    """Draw volumes: those of buyers above zero, of sellers below; where no side is known, all."""
    sides = [name for name in ("buy_volume", "sell_volume") if bars[name].null_count() == 0]
    if len(sides) < 2:
        figure.add_bar(
            x=times, y=bars["volume"].to_numpy(), name="volume", showlegend=False,
            marker={"color": LINES[0], "line_width": 0}, row=row, col=1,
            hovertemplate="volume %{y:,.6~g}<extra></extra>",
        )  # fmt: skip
        return
    for name, colour, sign in (("buy", BUY, 1), ("sell", SELL, -1)):
        values = bars[f"{name}_volume"].to_numpy()
        figure.add_bar(
            x=times, y=sign * values, customdata=values, name=f"{name} volume",
            marker={"color": colour, "line_width": 0}, row=row, col=1,
            hovertemplate=f"{name} %{{customdata:,.6~g}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="relative")


SIDES: Final = 300
"""Trades that are marked by their side at most: the spikes, and those beside silences."""

_SIDES: Final = (("buy", BUY, "triangle-up"), ("sell", SELL, "triangle-down"))


@summarised
def session_chart(
    ticks: pl.DataFrame,
    title: str = "",
    *,
    candles: pl.DataFrame | None = None,
    books: pl.DataFrame | None = None,
    gaps: pl.DataFrame | None = None,
    book_gaps: pl.DataFrame | None = None,
    ticks_count: int | None = None,
    books_count: int | None = None,
    points: int = POINTS,
    view: View | None = None,
) -> go.Figure:
    """Draw a symbol of a session: price, volume by side, spread, clock skew, on one time axis.

    Parameters
    ----------
    ticks
        timestamp, price; with ``received_at`` also the clock skew; with ``side`` (of the taker)
        up to `SIDES` of them are marked by it, in shape and colour, and the note says how many.
    title
        Plain text; it is escaped.
    candles
        As `fxlab.Session.ohlcv` returns them, for the volumes.
    books
        timestamp, spread.
    gaps
        from_time, to_time, or a session's event table: shaded, and no line crosses them.
    book_gaps
        Likewise of the books, which the spread does not cross; those of `gaps` unless given.
    ticks_count, books_count
        How many ticks and books there are, where the frames are samples.
    points
        Points of each line at most; every spike is kept.
    view
        The part of the time that all these rows are of.
    """
    bars = None if candles is None else _joined(candles, -(-candles.height // CANDLES) or 1)
    panels = _panels(ticks, bars, books) if view is None else view.panels
    heights = [5 if name == "price" else 2 for name in panels]
    shares = [height / sum(heights) for height in heights]
    figure = house_figure(shares, list(panels), title, height=300 + 110 * len(panels))
    known = _gaps_in_view(gaps, "prices", ticks, view)
    rows = {name: row for row, name in enumerate(panels, start=1)}
    said, drawn = [], 0
    if ticks.height:
        look = (rows["price"], LINES[0], points)
        drawn = _draw_line(figure, ticks, "price", known, look, view)
    if view is not None:
        said.append(view.note(drawn))
    elif ticks.height:
        total = ticks.height if ticks_count is None else ticks_count
        said.append(drawn_note(total, drawn))
    if "side" in ticks.columns:
        said.extend(_mark_sides(figure, ticks if view is None else view.rows(ticks), points))
    if bars is not None and "volume" in panels:
        _draw_volumes(figure, bars, milliseconds(bars["timestamp"]), rows["volume"])
    if books is not None and "spread" in panels:
        look = (rows["spread"], LINES[1], points)
        of_books = gaps if book_gaps is None else book_gaps
        lost = _gaps_in_view(of_books, "orderbook", books, view)
        drawn = _draw_line(figure, books, "spread", lost, look, view)
        spreads = books.height if books_count is None else books_count
        said.append(drawn_note(spreads, drawn, "spread"))
    if "arrival, ms" in panels and "received_at" in ticks.columns:
        late = (pl.col("received_at") - pl.col("timestamp")).dt.total_microseconds() / 1_000
        skews = ticks.with_columns(skew=late).drop_nulls("skew")
        _draw_line(figure, skews, "skew", known, (rows["arrival, ms"], LINES[2], points), view)
    if view is not None:
        view.fit(figure)
    shade(figure, known["start"].to_numpy(), known["end"].to_numpy())
    note(figure, "; ".join(said) or drawn_note(0, 0))
    return figure


def _mark_sides(figure: go.Figure, ticks: pl.DataFrame, points: int) -> list[str]:
    """Mark trades by the taker's side on the price, and return what is to be said of it."""
    known = ticks.filter(pl.col("side").is_in([name for name, *_ in _SIDES]))
    known = downsample(known, "timestamp", "price", max(min(SIDES, points), 8))
    for name, colour, shape in _SIDES:
        own = known.filter(pl.col("side") == name)
        if own.height:
            figure.add_scatter(
                x=milliseconds(own["timestamp"]), y=own["price"].to_numpy(), name=name,
                mode="markers", meta=f"{name}s", row=1, col=1,
                marker={"symbol": shape, "color": colour, "size": 6, "opacity": 0.8},
                hovertemplate=f"{name} %{{y}}<extra></extra>",
            )  # fmt: skip
    return [f"{known.height:,} marked by side"] if known.height else []


def _panels(
    ticks: pl.DataFrame, bars: pl.DataFrame | None, books: pl.DataFrame | None
) -> tuple[str, ...]:
    """Return the rows of a session's chart: of what there is."""
    there = {
        "price": True,
        "volume": bars is not None and bars["volume"].null_count() < bars.height,
        "spread": books is not None and not books.is_empty(),
        "arrival, ms": "received_at" in ticks.columns and ticks["received_at"].count() > 0,
    }
    return tuple(name for name, is_there in there.items() if is_there)


def _gaps_in_view(
    gaps: pl.DataFrame | None, what: str, rows: pl.DataFrame, view: View | None
) -> pl.DataFrame:
    """Return the gaps of one kind of data that are shown where these rows are drawn."""
    known = unfilled(gaps, what)
    return gaps_of(known if view is None else view.gaps(known), "", rows)


def _draw_line(  # noqa: PLR0917 - what, where, how
    figure: go.Figure,
    frame: pl.DataFrame,
    column: str,
    gaps: pl.DataFrame,
    look: tuple[int, str, int],
    view: View | None = None,
) -> int:
    """Draw a column into a row of the figure and return how many points that took."""
    row, colour, points = look
    trace = line(frame, column, points, gaps, view)
    figure.add_scatter(
        x=trace.x, y=trace.y, mode=trace.mode, name=column, showlegend=False,
        line={"width": 1.3, "color": colour}, row=row, col=1,
        hovertemplate=f"{column} %{{y}}<extra></extra>",
    )  # fmt: skip
    return trace.drawn


@summarised
def depth_chart(
    books: pl.DataFrame,
    title: str = "",
    *,
    gaps: pl.DataFrame | None = None,
    books_count: int | None = None,
    view: View | None = None,
) -> go.Figure:
    """Draw an order book as a heat map: quantity over time and price, with the mid.

    Parameters
    ----------
    books
        ``timestamp``, ``mid`` and the levels, as `fxlab.Session.orderbook` returns them.
    title
        Plain text; it is escaped.
    gaps
        from_time, to_time, or a session's event table: shaded, and the mid does not cross them.
    books_count
        How many books there are, where the frame has every n-th of them.
    view
        The part of the time that the books are of.

    Returns
    -------
    plotly.graph_objects.Figure
        At most `CELLS` columns and rows. A cell holds the mean, over the books of its span of
        time, of the quantity that its prices showed; its colour is on a logarithmic scale. Levels
        that are further from the mid than 99 % of all are left out; the note says how many.
    """
    figure = house_figure([1.0], ["price"], title, height=460)
    levels = _levels(books)
    if view is not None:
        view.fit(figure)
    if levels.is_empty():
        note(figure, "no order books" + (" in view" if view else ": there is nothing to draw"))
        return figure
    low, high = (float(levels["price"].quantile(share) or 0.0) for share in (0.005, 0.995))
    shown = levels.filter(pl.col("price").is_between(low, high))
    columns, rows = min(CELLS[0], books.height), CELLS[1]
    times = milliseconds(books["timestamp"])
    edges = np.linspace(times[0], max(times[-1], times[0] + 1), columns + 1)
    steps = np.linspace(low, high if high > low else low * (1 + 1e-9) + 1e-12, rows + 1)
    at = np.clip(
        np.searchsorted(edges, milliseconds(shown["timestamp"]), "right") - 1, 0, columns - 1
    )
    up = np.clip(np.searchsorted(steps, shown["price"].to_numpy(), "right") - 1, 0, rows - 1)
    sums = np.zeros((rows, columns))
    np.add.at(sums, (up, at), shown["qty"].to_numpy())
    counts = np.histogram(times, edges)[0]
    # Hover and colour show four digits; most of what a notebook keeps of this figure is cells.
    cells = np.where(sums > 0, sums / np.maximum(counts, 1), np.nan).astype(np.float32)
    least, most = np.log10(np.nanmin(cells)), np.log10(np.nanmax(cells))
    marks = np.unique(np.linspace(least, most, 5))
    figure.add_heatmap(
        x=(edges[:-1] + edges[1:]) / 2,
        y=(steps[:-1] + steps[1:]) / 2,
        z=np.log10(cells),
        customdata=cells,
        colorscale=SEQUENTIAL,
        hoverongaps=False,
        colorbar={
            "thickness": 10,
            "xpad": 4,
            "tickvals": marks,
            "ticktext": [f"{10**mark:.3g}" for mark in marks],
        },
        hovertemplate="%{y:.8~g}: %{customdata:.4~g}<extra></extra>",
    )
    figure.update_xaxes(nticks=3)  # the colour bar leaves little room for times on a phone
    known = _gaps_in_view(gaps, "orderbook", books, view)
    _draw_line(figure, books, "mid", known, (1, INK, POINTS))
    shade(figure, known["start"].to_numpy(), known["end"].to_numpy())
    left_out = levels.height - shown.height
    total = books.height if books_count is None else books_count
    of = f", {books.height:,} of them drawn" if books.height < total else ""
    note(
        figure,
        f"{total:,} books{' in view' if view else ''}{of}, {levels.height:,} levels, "
        f"{left_out:,} far ones left out; colour: mean quantity",
    )
    return figure


def _levels(books: pl.DataFrame) -> pl.DataFrame:
    """Return one row a level that is there: timestamp, price, qty."""
    parts = [
        books.select("timestamp", pl.col(name).alias("price"), pl.col(qty).alias("qty"))
        for name in books.columns
        if "_price_" in name and (qty := name.replace("_price_", "_qty_")) in books.columns
    ]
    empty = books.select("timestamp", price=pl.lit(0.0), qty=pl.lit(0.0)).clear()
    return pl.concat([empty, *parts]).drop_nulls().filter(pl.col("qty") > 0)
