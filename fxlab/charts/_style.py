"""Chart style (template, inks, formats), and downsampling that keeps spikes and gaps.

One template, so that a chart in the notebook, in a panel and in a report look alike, and read on
white and on black: mid-tone inks on a transparent ground. What stands above a plot (title, note,
legend) is laid out for `NARROW`, so that nothing collides on a phone.

Of millions of ticks a chart draws few. Each run of rows gives its lowest and its highest row, so no
spike is ever lost: spikes are what a trader looks for. Each span of time gives its first and its
last row, so no silence is ever invented or hidden. A part of the time, a `View`, is drawn from its
own rows and one on either side, so that lines reach its edges.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from fxlab._html import escape
from fxlab.errors import InvalidParameter
from fxlab.schema import UTC_MICROS

INK: Final = "#6f757e"
"""Of text: 4.5 to 1 on white, 4 to 1 on the darkest page; reports on a dark page use its ink."""

GRID: Final = "rgba(128,134,145,0.22)"
LINES: Final = ("#2b7fc2", "#a68a00", "#994c80", "#d96c7e", "#8f39e5", "#bf3030")
"""Each 3 to 1 or more on white and on black, and apart for all kinds of colour vision."""

BUY: Final = "#009e73"
SELL: Final = "#d55e00"
SELL_SOFT: Final = "rgba(213,94,0,0.22)"
GAIN: Final = LINES[0]
LOSS: Final = SELL
DIVERGING: Final = (
    (0.0, "#b34700"),
    (0.25, "#e0894d"),
    (0.5, "#c5cad2"),
    (0.75, "#5f9fd3"),
    (1.0, "#14629f"),
)
"""Losses to gains around zero: orange and blue, which all eyes tell apart."""

SEQUENTIAL: Final = "Cividis"
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

NARROW: Final = 320
"""Pixels of the plot of a figure that is 400 pixels wide."""

TITLE_WIDTH, TITLE_LINES, NOTE_WIDTH = 42, 4, 52
"""Letters a line that fit into a narrow figure, and lines of a title at most."""

TITLE_LINE, NOTE_LINE, LEGEND_ROW = 19, 14, 19
"""Heights in pixels."""

CROWDED: Final = 7
"""Entries of a legend above a chart, at most; more stand beside it."""

PERCENT_TICKS: Final = ",.9~%"
"""Of an axis: enough digits to tell its labels apart however narrow it is; zeros are cut."""

PERCENT: Final = ".4~p"
"""Of a value that is written out: its leading digits, however small it is."""

_AXIS: Final = {
    "gridcolor": GRID,
    "zeroline": False,
    "linecolor": GRID,
    "exponentformat": "none",
    "separatethousands": True,
    "automargin": True,
    "title": {"font": {"size": 12}, "standoff": 8},
}

TEMPLATE: Final = go.layout.Template(
    layout={
        "font": {"family": "system-ui, 'Segoe UI', sans-serif", "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": LINES,
        "title": {
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 12},
            "font": {"size": 15},
        },
        "margin": {"l": 64, "r": 16, "t": 64, "b": 40},
        "xaxis": {**_AXIS, "showgrid": False},
        "yaxis": _AXIS,
        "hovermode": "x",
        "hoverlabel": {"bgcolor": "#2b2f36", "bordercolor": "#2b2f36", "font": {"color": "#fff"}},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "itemwidth": 30},
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": INK,
            "activecolor": LINES[0],
            "remove": ["sendChartToCloud"],  # also where plotly is handed the figure alone
        },
        "dragmode": "zoom",
    }
)

CONFIG: Final = {
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
    "toImageButtonOptions": {"format": "png", "scale": 2, "filename": "fxlab-chart"},
}
"""How the browser's side is set wherever a figure is shown: no button that sends data away.

The camera of the tool bar saves what is seen as a sharp PNG; ``config`` may say ``svg`` instead.
"""

PLOTLY: Final = "application/vnd.plotly.v1+json"
"""The type under which notebooks hold a figure as data."""


class Chart(go.Figure):
    """A figure that is shown with `CONFIG` by every way that it knows."""

    def show(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - plotly's own
        """Show it as plotly does; `config` comes on top of the house's."""
        super().show(*args, **_configured(kwargs))

    def to_html(self, config: dict[str, Any] | None = None, **kwargs: Any) -> str:  # noqa: ANN401
        """Return it as HTML as plotly does; `config` comes on top of the house's."""
        return str(super().to_html(**_configured(kwargs | {"config": config})))

    def write_html(self, file: Any, config: dict[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Write it as HTML as plotly does; `config` comes on top of the house's."""
        super().write_html(file, **_configured(kwargs | {"config": config}))

    def to_image(self, *args: Any, **kwargs: Any) -> bytes:  # noqa: ANN401
        """Return it as an image as plotly does, or say what is missing for that."""
        with image_errors():
            return bytes(super().to_image(*args, **kwargs))

    def write_image(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Write it as an image as plotly does, or say what is missing for that."""
        with image_errors():
            super().write_image(*args, **kwargs)

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        return dict(super()._repr_mimebundle_(*args, **_configured(kwargs)))

    def _ipython_display_(self) -> None:
        from fxlab.charts._alt_text import display_with_words

        display_with_words(self)


@contextmanager
def image_errors() -> Iterator[None]:
    """Say what is to be done where plotly cannot make an image, for want of kaleido or Chrome."""
    try:
        yield
    except (RuntimeError, ImportError) as error:
        raise InvalidParameter(
            "an image of a chart needs the package kaleido, and a Chrome or Chromium: pip install "
            "kaleido; without them save it as .html, or press the camera in its tool bar (PNG; "
            'SVG after figure.show(config={"toImageButtonOptions": {"format": "svg"}})). '
            f"plotly says: {' '.join(str(error).split())}"
        ) from error


def _configured(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"config": CONFIG | (options.get("config") or {})}


def house_figure(heights: list[float], labels: list[str], title: str, height: int) -> Chart:
    """Return an empty figure of rows that share one time axis."""
    figure = Chart()
    make_subplots(
        rows=len(heights),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.05,
        row_heights=heights,
        figure=figure,
    )
    _entitle(figure, title, height)
    figure.update_xaxes(type="date", hoverformat="%Y-%m-%d %H:%M:%S.%L UTC")
    last = {"title_text": "UTC", "ticks": "outside", "tickcolor": GRID, "ticklen": 4}
    figure.update_xaxes(**last, row=len(heights), col=1)
    for row, label in enumerate(labels, start=1):
        figure.update_yaxes(title_text=label, row=row, col=1)
    return figure


def panel_figure(labels: list[tuple[str, str]], title: str, height: int) -> Chart:
    """Return an empty figure of panels one below the other, with labels of their x and y axes."""
    figure = Chart()
    make_subplots(rows=len(labels), cols=1, vertical_spacing=0.2, figure=figure)
    _entitle(figure, title, height)
    figure.update_layout(hovermode="closest")
    for row, (x, y) in enumerate(labels, start=1):
        ticks = {"ticks": "outside", "tickcolor": GRID, "ticklen": 4}  # clear of the y axis' zero
        figure.update_xaxes(title_text=escape(x), **ticks, row=row, col=1)
        figure.update_yaxes(title_text=escape(y), row=row, col=1)
    return figure


def _entitle(figure: Chart, title: str, height: int) -> None:
    """Give a figure its style and a title; one that is too long has its whole text on hover."""
    lines = textwrap.wrap(title, TITLE_WIDTH)
    text = "<br>".join(map(escape, lines[:TITLE_LINES]))
    more = TITLE_LINE * (min(len(lines), TITLE_LINES) - 1) if title else -24
    figure.update_layout(template=TEMPLATE, height=height + more, margin_t=64 + more)
    figure.update_layout(title_text=text)
    if len(lines) > TITLE_LINES:
        whole = "<br>".join(map(escape, textwrap.wrap(title, 2 * TITLE_WIDTH)))
        figure.update_layout(title_text=f"{text} …")
        figure.add_annotation(
            text="…",
            hovertext=whole,
            showarrow=False,
            font={"size": 15},
            xref="paper",
            x=1,
            xanchor="right",
            yref="paper",
            y=1,
            yanchor="bottom",
            yshift=34,  # its last line
        )


def without_title(figure: go.Figure) -> go.Figure:
    """Return a figure, now without its title and the room it took: a heading says the same."""
    title = figure.layout.title.text
    if title:
        height = 24 + TITLE_LINE * title.count("<br>")
        margin, whole = figure.layout.margin.t, figure.layout.height
        figure.update_layout(title_text="", margin_t=margin - height, height=whole - height)
    return figure


def curve_look(number: int) -> dict[str, str]:
    """Return colour and dash of a curve: neighbours differ in both, and 36 are all different."""
    turn = number // len(LINES)
    return {"color": LINES[number % len(LINES)], "dash": DASHES[(number + turn) % len(DASHES)]}


def percent(share: float) -> str:
    """Return a share in percent with its four leading digits, however small it is."""
    digits = np.format_float_positional(share * 100 + 0.0, 4, fractional=False, trim="-")
    return f"{digits}%"


def milliseconds(times: pl.Series) -> Floats:
    """Return epoch milliseconds: figures with numbers build 40 times faster than with dates."""
    micros = times.cast(pl.Datetime("us")).dt.epoch("us")
    return np.asarray(micros.to_numpy(), dtype=np.float64) / 1_000.0


def shade(figure: go.Figure, starts: Floats, ends: Floats) -> None:
    """Shade spans of time over all rows of a figure."""
    look = {"yref": "paper", "fillcolor": INK, "opacity": 0.16}
    spans = zip(starts, ends, strict=True)
    figure.update_layout(shapes=[span_of_time(start, end, **look) for start, end in spans])


def span_of_time(start: float, end: float, **look: Any) -> dict[str, Any]:  # noqa: ANN401 - plotly's
    """Return the shape that shades a span of time from top to bottom."""
    where = {"type": "rect", "layer": "below", "xref": "x", "x0": start, "x1": end}
    return {**where, "y0": 0, "y1": 1, "line_width": 0, **look}


def gain_or_loss(values: Floats) -> dict[str, Any]:
    """Return the marker of bars whose colour tells gains from losses."""
    return {"color": np.where(values < 0, LOSS, GAIN), "line_width": 0}


def note(figure: go.Figure, text: str) -> None:
    """Write a small line above the figure, on the right: what was drawn of what.

    Call it last: it stands above the legend, or in the middle of a figure that draws nothing.
    """
    rows = _legend_rows(figure)
    lines = textwrap.wrap(text, NOTE_WIDTH)
    room = (LEGEND_ROW + 2) * max(rows - 1, 0) + NOTE_LINE * max(len(lines) - (not rows), 0)
    margin, whole = figure.layout.margin.t, figure.layout.height
    if not text:
        return
    empty = not figure.data
    figure.add_annotation(
        text="<br>".join(lines),
        xref="paper",
        yref="paper",
        showarrow=False,
        **(
            {"x": 0.5, "y": 0.5, "font": {"size": 13}}
            if empty
            else {
                "x": 1,
                "xanchor": "right",
                "align": "right",
                "font": {"size": 11},
                "y": 1,
                "yanchor": "bottom",
                "yshift": 4 + (LEGEND_ROW + 2) * rows,
            }
        ),
    )
    if empty:
        figure.update_xaxes(visible=False)
        figure.update_yaxes(visible=False)
        return
    figure.update_layout(margin_t=margin + room, height=whole + room)
    for one in figure.layout.annotations:
        if one.hovertext:  # the rest of a title, which moves up with it
            one.yshift += room


SUMMARY: Final = "summary"
"""What the annotation with the summary is called, and the entry of ``layout.meta``."""


def _legend_rows(figure: go.Figure) -> int:
    """Return how many rows the legend takes in a narrow figure; a crowded one stands beside it."""
    able = [trace for trace in figure.data if trace.type in {"scatter", "bar"}]
    names = [trace.name or "" for trace in able if trace.showlegend is not False]
    if not names or (len(figure.data) < 2 and not figure.data[0].showlegend):
        return 0
    if len(names) > CROWDED:
        figure.update_layout(legend={"orientation": "v", "x": 1.01, "y": 1, "yanchor": "top"})
        return 0
    widest = 44 + 7 * max(map(len, names))
    return -(-len(names) // max(NARROW // widest, 1))


Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def min_max_rows(values: Floats, limit: int) -> Indices:
    """Return the rows to draw: first, last, and the extremes of runs of equal length.

    Parameters
    ----------
    values
        Finite numbers in drawing order.
    limit
        Rows returned at most, four or more.

    Returns
    -------
    Indices
        Rising row numbers; all of them where they fit. The first of equal extremes is taken.

    Raises
    ------
    ValueError
        If `limit` is below four.
    """
    if limit < 4:
        raise ValueError(f"limit={limit} must be four or more: first, lowest, highest, last")
    count = len(values)
    if count <= limit:
        return np.arange(count, dtype=np.int64)
    length = -(-count // ((limit - 2) // 2))
    whole = count // length * length
    runs = values[:whole].reshape(-1, length)
    starts = np.arange(0, whole, length)
    tail = values[whole:]
    last = [whole + tail.argmin(), whole + tail.argmax()] if len(tail) else []
    chosen = (starts + runs.argmin(1), starts + runs.argmax(1), last, [0, count - 1])
    return np.unique(np.concatenate(chosen)).astype(np.int64)


def slot_edges(times: Floats, slots: int) -> Indices:
    """Return the first and the last row of each of `slots` equal spans of time.

    Between two of these rows that lie in different slots nothing happened, so a step longer than
    a slot is a real silence: a sample with these rows shows the gaps of the whole, and no others.

    Parameters
    ----------
    times
        Rising times in any unit.
    slots
        How many spans the whole range is cut into; empty ones give no rows.
    """
    if not len(times):
        return np.empty(0, dtype=np.int64)
    cuts = np.linspace(times[0], times[-1], slots + 1)[1:-1]
    firsts = np.unique(np.concatenate(([0], np.searchsorted(times, cuts))))
    firsts = firsts[firsts < len(times)]
    lasts = np.append(firsts[1:], len(times)) - 1
    return np.union1d(firsts, lasts).astype(np.int64)


def rows_to_draw(times: Floats, values: Floats, limit: int) -> Indices:
    """Return the rows that a line of at most `limit` points needs: its spikes and its gaps.

    Parameters
    ----------
    times
        Rising times in any unit.
    values
        Finite numbers, one for each time.
    limit
        Rows returned at most, eight or more: half of them keep spikes, half keep gaps.
    """
    if len(values) <= limit:
        return np.arange(len(values), dtype=np.int64)
    spikes = min_max_rows(values, limit // 2)
    return np.union1d(spikes, slot_edges(times, limit // 4)).astype(np.int64)


def gap_starts(
    times: Floats, factor: float = 50.0, share: float = 0.02, usual: float = 0.0
) -> Indices:
    """Return the rows after which nothing happened for long: a line drawn across would lie.

    A gap is longer than `factor` times the median step and longer than `share` of the whole
    range. The second rule is needed because trades come in bursts: where most steps are
    microseconds, every quiet second is many medians long, and still no gap that an eye could see.

    Parameters
    ----------
    times
        Rising times in any unit. Steps of zero do not count for the median.
    usual
        A step of at most this length is none, whatever the other rules say: where the rows are a
        small part of many, what is a silence among them may be usual among all.
    """
    steps = np.diff(times)
    moving = steps[steps > 0]
    if not len(moving):
        return np.empty(0, dtype=np.int64)
    longest = max(factor * float(np.median(moving)), share * float(times[-1] - times[0]), usual)
    return np.flatnonzero(steps > longest).astype(np.int64)


def downsample(frame: pl.DataFrame, x: str, y: str, n_out: int) -> pl.DataFrame:
    """Return the rows of a frame that a line of at most `n_out` points needs.

    Rows without a finite `y` cannot be drawn and are left out. The first and the last row, and
    the lowest and highest row of every stretch, stay; so do the rows beside each silence.

    Parameters
    ----------
    frame
        Rows in the order of `x`.
    x, y
        Names of the columns to draw; `x` is a time or a number.
    n_out
        Rows returned at most, eight or more.
    """
    drawable = frame.filter(pl.col(x).is_not_null() & pl.col(y).cast(pl.Float64).is_finite())
    places = drawable[x].to_physical().cast(pl.Float64).to_numpy()
    values = drawable[y].cast(pl.Float64).to_numpy()
    return drawable[rows_to_draw(places, values, n_out)]


def reach(sample: pl.DataFrame, start: int, end: int) -> tuple[int, int]:
    """Return what to read for a range of time (us), so that a row on either side is in it.

    The rows of a sample of the whole are rows of the whole: up to the last of them before the
    range, and to the first one after it, there is little more to read than the range itself.
    """
    times = sample["timestamp"].to_physical()
    left = int(times.search_sorted(start, "right")) - 1
    right = int(times.search_sorted(end, "left"))
    low = start if left < 0 else min(int(times[left]), start)
    return low, end if right == len(times) else int(times[right]) + 1


def sample_range(
    chunks: Iterable[pl.DataFrame], start: int, end: int, points: int
) -> tuple[pl.DataFrame, int]:
    """Return the rows that a line over a range of time needs, and how many the range holds.

    Parameters
    ----------
    chunks
        Frames in the order of time: timestamp (us), price and others.
    start, end
        The half-open range, us. The row before it and the one after it are returned with it: the
        line reaches the edges.
    points
        Rows returned of the range at most, eight or more.
    """
    before: list[pl.DataFrame] = []
    inside: list[pl.DataFrame] = []
    after: list[pl.DataFrame] = []
    count = 0
    for chunk in chunks:
        times = chunk["timestamp"].to_physical()
        low, high = (int(times.search_sorted(edge, "left")) for edge in (start, end))
        count += high - low
        before = [chunk.slice(low - 1, 1)] if low else before
        inside.append(downsample(chunk.slice(low, high - low), "timestamp", "price", points))
        if high < chunk.height and not after:
            after = [chunk.slice(high, 1)]
    if not inside:
        return pl.DataFrame(schema={"timestamp": UTC_MICROS, "price": pl.Float64}), 0
    drawn = downsample(pl.concat(inside), "timestamp", "price", points)
    return pl.concat([*before, drawn, *after]), count


@dataclass(frozen=True, slots=True)
class View:
    """A part of a chart's time, which is drawn from its own rows and one on either side.

    Attributes
    ----------
    start, end : int
        The half-open range, us since 1970.
    ticks, whole : int
        How many ticks it holds, of how many.
    usual : float
        Steps between ticks that are common in the whole, ms: no silence.
    bases : mapping of str to float
        First price of each symbol: changes go on being measured from it.
    panels : tuple of str
        Rows that the whole chart has, for charts that leave out what a session does not have.
    """

    start: int
    end: int
    ticks: int
    whole: int
    usual: float = 0.0
    bases: Mapping[str, float] = field(default_factory=dict)
    panels: tuple[str, ...] = ()

    @property
    def edges(self) -> tuple[float, float]:
        """Return start and end in ms since 1970."""
        return self.start / 1_000, self.end / 1_000

    def rows(self, frame: pl.DataFrame, beside: int = 0) -> pl.DataFrame:
        """Return the rows of a frame in the view, and so many more on either side."""
        times = frame["timestamp"].to_physical()
        low, high = (int(times.search_sorted(edge, "left")) for edge in (self.start, self.end))
        low = max(low - beside, 0)
        return frame.slice(low, high + beside - low)

    def gaps(self, gaps: pl.DataFrame) -> pl.DataFrame:
        """Return those of the gaps (start, end: ms) of which a part is in the view."""
        start, end = self.edges
        return gaps.filter(pl.col("end") > start, pl.col("start") < end)

    def note(self, drawn: int) -> str:
        """Return what is in view, and what of it was drawn."""
        if not self.ticks:
            return f"no ticks in view, of {self.whole:,}"
        text = f"{self.ticks:,} of {self.whole:,} ticks in view"
        return f"{text}, {drawn:,} drawn" if drawn < self.ticks else text

    def fit(self, figure: go.Figure) -> None:
        """Show this part of the time."""
        figure.update_xaxes(range=list(self.edges))


def usual_step(first: int, last: int, rows: int) -> float:
    """Return the longest step (ms) that is common among rows between two times (us)."""
    return USUAL * (last - first) / max(rows, 1) / 1_000


USUAL: Final = 50
"""Mean steps: as many as `gap_starts` asks medians for a gap."""


IMAGES: Final = (".svg", ".png", ".pdf", ".jpg", ".jpeg", ".webp")


def save(figure: go.Figure, path: str | Path, **options: Any) -> Path:  # noqa: ANN401 - plotly's
    """Save a chart as a file, by its suffix, and return its path.

    Parameters
    ----------
    figure
        What `result.plot()` and the functions of this module return.
    path
        ``.html`` is a page of its own that is zoomed and hovered, and needs no network (5 MB).
        ``.svg``, ``.png``, ``.pdf``, ``.jpg`` and ``.webp`` are images: they need the package
        kaleido and a Chrome or Chromium.
    **options
        Of plotly's ``write_html`` or ``write_image``, such as ``width``, ``height``, ``scale``.

    Raises
    ------
    InvalidParameter
        For another suffix, or where an image cannot be made; with what to do.

    Examples
    --------
    >>> from fxlab import charts
    >>> result = fxlab.backtest(ticks, "sma_cross", {"fast": 5, "slow": 20})
    >>> charts.save(result.plot(), folder / "run.html").name
    'run.html'
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix == ".html":
        figure.write_html(target, **options)
    elif suffix in IMAGES:
        figure.write_image(target, **options)
    else:
        raise InvalidParameter(
            f"{str(target)!r:.200} is no file for a chart; name it .html or {', '.join(IMAGES)}"
        )
    return target
