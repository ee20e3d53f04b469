"""Alternative text of charts: what is seen of one, in words below it, for those who cannot see it.

A figure carries it below its plot, in lines that fit a phone, because nobody knows how wide it will
be shown; so images and pages that plotly writes have it. Notebooks, panels and reports know better:
they take it out of the figure (`take_words`) and show it as text, which wraps at their own width.
`summary` returns it with the title.
"""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Callable, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, ParamSpec

import numpy as np

from fxlab._html import escape, show_number, show_time
from fxlab._times import from_micros
from fxlab.charts._style import (
    INK,
    NARROW,
    NOTE_LINE,
    NOTE_WIDTH,
    PERCENT,
    PERCENT_TICKS,
    SUMMARY,
    percent,
)

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SERIES: Final = 3  # that a summary has figures of

BELOW: Final = "below"
ROOM: Final = "room"
"""Entries of ``layout.meta`` beside `SUMMARY`: the words below a plot, and the pixels they take."""

WORDS: Final = "fxlab-words"
"""Class of the element in which a page has these words."""

Params = ParamSpec("Params")


def summarised(draw: Callable[Params, go.Figure]) -> Callable[Params, go.Figure]:
    """Return a chart function whose figures say in words, below the plot, what is seen of them."""

    @wraps(draw)
    def drawn(*args: Params.args, **kwargs: Params.kwargs) -> go.Figure:
        figure = draw(*args, **kwargs)
        _write_summary(figure)
        return figure

    return drawn


def summary(figure: go.Figure) -> str:
    """Return what a chart of fxlab shows in a few words, for whoever does not see it.

    Its title, what was drawn of how much, the range of time, lowest, highest and last values, gaps.

    Examples
    --------
    >>> from fxlab import charts
    >>> result = fxlab.backtest(ticks, "sma_cross", {"fast": 5, "slow": 20})
    >>> charts.summary(result.plot()).startswith("sma_cross")
    True
    """
    return html.unescape((figure.layout.meta or {}).get(SUMMARY, ""))


def describe(figure: go.Figure) -> str:
    """Keep what is seen of a figure in its ``layout.meta``; return what stands below its plot."""
    notes = [
        _plain(one.text)
        for one in figure.layout.annotations
        if not one.hovertext and one.name != SUMMARY
    ]
    facts = "; ".join([*_time_range(figure), *_series_words(figure), *_gap_words(figure)])
    parts = filter(None, [_plain(figure.layout.title.text), *notes, facts])
    words = ". ".join(part.rstrip(".") for part in parts)
    # Whoever puts them on a page is safe.
    figure.layout.meta = {SUMMARY: escape(words and f"{words}."), BELOW: escape(facts)}
    return facts


def take_words(layout: dict[str, Any]) -> str:
    """Take the words below a plot, and their room, out of a layout (plain data); return them.

    They are one escaped text; of a figure that has none below its plot it is empty.
    """
    notes, meta = layout.get("annotations", []), layout.get("meta") or {}
    others = [one for one in notes if one.get("name") != SUMMARY]
    if len(others) == len(notes) or ROOM not in meta:
        return ""
    room = meta.pop(ROOM)
    layout["annotations"] = others
    layout["margin"]["b"] -= room
    layout["height"] -= room
    return str(meta[BELOW])


def words_below(layout: dict[str, Any]) -> dict[str, str]:
    """Return what stands below a figure by type, HTML and text; nothing if it was not described."""
    facts = (layout.get("meta") or {}).get(BELOW)
    if facts is None:
        return {}
    colour = f"var(--jp-ui-font-color2, {INK})"  # of JupyterLab's theme, where there is one
    shown = f'<div class="{WORDS}" style="color:{colour};font-size:.85em">{facts}</div>'
    return {"text/html": shown, "text/plain": html.unescape(facts)}


def display_with_words(figure: go.Figure) -> None:
    """Show a figure in a notebook, and below it its words as text, which wraps at any width."""
    from IPython.display import display

    layout = figure.layout.to_plotly_json()
    words = words_below(layout) if take_words(layout) else {}
    type(figure)(figure.data, layout).show()
    if words:
        display(words, raw=True)  # type: ignore[no-untyped-call]


def _write_summary(figure: go.Figure) -> None:
    """Write the figures of a chart below it, as text: browsers read it aloud, exports keep it."""
    lines = textwrap.wrap(describe(figure), NOTE_WIDTH)
    if not figure.data or not lines:
        return
    below = [axis for axis in figure.select_xaxes() if axis.visible is not False]
    room = 10 + 16 * any(axis.side != "top" for axis in below)
    if any(axis.type == "date" for axis in below):
        # The date below the times; in a narrow figure a legend beside it makes both turn.
        room += 16 if figure.layout.legend.orientation != "v" else 66
    room += 20 * any(bool(axis.title.text) for axis in below) + _turned_labels(figure)
    for one in figure.layout.annotations:
        if one.y == 0 and one.yanchor == "top":  # a note that stands there already
            room += NOTE_LINE * (1 + one.text.count("<br>")) + 8
    text = {
        "name": SUMMARY,
        "text": "<br>".join(map(escape, lines)),
        "font": {"size": 11},
        "showarrow": False,
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        "align": "left",
        "yref": "paper",
        "y": 0,
        "yanchor": "top",
        "yshift": -room,
    }
    figure.layout.annotations = (text, *figure.layout.annotations)
    before = 40 if figure.layout.margin.b is None else figure.layout.margin.b
    after = max(before, room + NOTE_LINE * len(lines) + 8)
    figure.update_layout(margin_b=after, height=figure.layout.height + after - before)
    figure.layout.meta = figure.layout.meta | {ROOM: after - before}


def _plain(text: str | None) -> str:
    return html.unescape(re.sub(r"<[^>]*>", " ", text or "")).strip()


def _turned_labels(figure: go.Figure) -> int:
    """Return the room of labels of categories that do not fit side by side, and so are turned."""
    names = [
        str(name)
        for trace in figure.data
        if trace.type == "heatmap" and figure.layout.xaxis.type == "category"
        for name in trace.x
    ]
    longest = max(map(len, names), default=0)
    return 7 * longest if 7 * longest * len(names) > NARROW else 0


def _axis_of(figure: go.Figure, trace: go.Scatter, letter: str) -> Any:  # noqa: ANN401 - plotly's
    return figure.layout[f"{letter}axis{(trace[f'{letter}axis'] or letter)[1:]}"]


def _time_range(figure: go.Figure) -> list[str]:
    """Return the first and the last time of all that lies on an axis of time."""
    found = [
        np.asarray(trace.x, dtype=np.float64)
        for trace in figure.data
        if trace.type != "parcoords"
        and trace.hoverinfo != "skip"  # bars that lie have lengths there
        and _axis_of(figure, trace, "x").type == "date"
        and len(trace.x)
    ]
    times = np.concatenate([np.empty(0), *found])
    times = times[np.isfinite(times)]
    if not len(times):
        return []
    first, last = (from_micros(round(time * 1_000)) for time in (times.min(), times.max()))
    same = first.date() == last.date()
    return [f"{show_time(first)} to {show_time(last)[11 if same else 0 :]} UTC"]


def _series_words(figure: go.Figure) -> list[str]:
    """Return lowest, highest and last value of each line, of bars, cells and marks.

    A trace of marks says in its ``meta`` what each of them is, in plural.
    """
    lines: list[str] = []
    marks: dict[str, list[Any]] = {}
    for trace in figure.data:
        if trace.type == "parcoords":
            figures = trace.dimensions[0]
            what = f"{_plain(figures.label)} of {len(figures.values):,} lines"
            lines.append(_spread(what, figures.values, _form(figures.tickformat)))
        elif trace.hoverinfo == "skip":
            continue
        elif trace.type == "heatmap":
            cells, bar = np.asarray(trace.z, dtype=np.float64).ravel(), trace.colorbar
            count = f"{np.count_nonzero(np.isfinite(cells)):,} of {len(cells):,} cells"
            what = f"{_plain(bar.title.text)} in {count}" if bar.title.text else count
            if bar.ticktext:  # cells hold logarithms
                lines.append(f"{what}: {bar.ticktext[0]} to {bar.ticktext[-1]}")
            else:
                lines.append(_spread(what, cells, _form(bar.tickformat or trace.hovertemplate)))
        else:
            axis = _axis_of(figure, trace, "y")
            label, name = _plain(axis.title.text), _plain(trace.name)
            form = _form(axis.tickformat)
            if trace.type == "scatter" and trace.mode == "markers":
                what = f"{trace.meta or 'points'}{f' ({label})' if label else ''}"
                marks.setdefault(what, [form]).append(trace.y)
            elif trace.type == "candlestick":
                ends = np.concatenate([trace.low, trace.high, trace.close[-1:]])
                lines.append(_spread(f"{len(trace.low):,} candles", ends, form, last=True))
            else:
                # Volumes of sells are drawn downwards.
                values = np.abs(trace.y) if "volume" in name else trace.y
                count = "" if trace.type == "scatter" else f" in {len(trace.y):,} bars"
                lines.append(_spread(f"{name or label}{count}", values, form, last=not count))
    more = [f"and {len(lines) - _SERIES:,} more"] if len(lines) > _SERIES else []
    counted = [
        _spread(f"{sum(map(len, values)):,} {what}", np.concatenate(values), form)
        for what, (form, *values) in marks.items()
    ]
    return [*filter(None, lines[:_SERIES]), *more, *filter(None, counted)]


def _form(text: str | None) -> Callable[[float], str]:
    """Return how values are written where an axis, a colour bar or a hover has this format."""
    if text == PERCENT_TICKS or PERCENT in (text or ""):
        return percent
    return lambda value: show_number(float(f"{value:.6g}"))


def _spread(
    what: str, values: Iterable[float], form: Callable[[float], str], *, last: bool = False
) -> str:
    """Return lowest and highest of some values, and the last one; nothing if there are none."""
    all_of_them = np.asarray(values, dtype=np.float64)
    finite = all_of_them[np.isfinite(all_of_them)]
    if not len(finite):
        return ""
    low, high = form(float(finite.min())), form(float(finite.max()))
    words = f"{what}: {low}" if low == high else f"{what}: {low} to {high}"
    return f"{words}, last {form(float(finite[-1]))}" if last and low != high else words


def _gap_words(figure: go.Figure) -> list[str]:
    """Return how many gaps are shaded, or else break the first line."""
    shaded = sum(shape.fillcolor == INK for shape in figure.layout.shapes)
    lines = [one for one in figure.data if one.type == "scatter" and "lines" in (one.mode or "")]
    if not shaded and lines:
        known = np.isfinite(np.asarray(lines[0].y, dtype=np.float64))
        shaded = int(np.count_nonzero(known[:-1] & ~known[1:]))
    return [f"{shaded:,} gap{'s' * (shaded > 1)}"] if shaded else []
