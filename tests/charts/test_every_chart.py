"""What holds of every chart, whichever function drew it."""

from __future__ import annotations

import html
import json
import math
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import plotly.io as pio
import polars as pl
import pytest
from chart_examples import books, candles, chart_names, examples, prices, ticks
from markets import random_walk

import fxlab
from fxlab import charts
from fxlab.backtester.report._tearsheet import embed
from fxlab.charts import _style
from fxlab.charts._style import (
    CONFIG,
    PERCENT_TICKS,
    PLOTLY,
    TITLE_LINES,
    TITLE_WIDTH,
    without_title,
)
from fxlab.errors import InvalidParameter
from fxlab.widgets._figures import FigureOutput

EXAMPLES = examples()


def test_every_public_chart_has_an_example():
    assert sorted(EXAMPLES) == sorted(chart_names())


def from_html(text):
    """Return the config that a call of plotly.js is given: the last object of the call."""
    found = [one.start() for one in re.finditer('{"displaylogo"', text)]
    assert len(found) == 1
    return json.JSONDecoder().raw_decode(text, found[0])[0]


def shown_in_a_notebook(figure):
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pio.renderers, "default", "plotly_mimetype")
        patch.setattr(
            "plotly.io._renderers.ipython_display.display", lambda data, **_: shown.append(data)
        )
        patch.setattr("plotly.io._renderers.display_jupyter_version_warnings", lambda: None)
        figure.show()
        figure._ipython_display_()
        shown.append(figure._repr_mimebundle_())
    first, *others = (data[PLOTLY]["config"] for data in shown if PLOTLY in data)
    assert len(shown) == 4  # below what the cell shows stand its words
    assert others == [first, first]
    return first


def written(figure, folder):
    figure.write_html(folder / "figure.html", include_plotlyjs=False)
    return from_html((folder / "figure.html").read_text())


def in_a_panel(figure):
    return in_a_panel_whole(figure)["config"]


@pytest.mark.parametrize("name", chart_names())
def test_no_figure_offers_to_send_data_anywhere(name, tmp_path):
    figure = EXAMPLES[name]
    ways = {
        "notebook": shown_in_a_notebook(figure),
        "to_html": from_html(figure.to_html(include_plotlyjs=False)),
        "_repr_html_": from_html(figure._repr_html_()),
        "write_html": written(figure, tmp_path),
        "report": from_html(embed(figure, "chart", "")),
        "panel": in_a_panel(figure),
        "config of one's own": from_html(
            figure.to_html({"scrollZoom": True}, include_plotlyjs=False)
        ),
    }
    for way, config in ways.items():
        assert config["showSendToCloud"] is False, way
        assert not config.get("plotlyServerURL"), way  # plotly takes it out of pages itself
        assert config["displaylogo"] is CONFIG["displaylogo"], way
        assert config["toImageButtonOptions"]["format"] == "png", way
    assert ways["config of one's own"]["scrollZoom"] is True
    # Whoever hands the figure to plotly without a config gets no such button either.
    assert "sendChartToCloud" in figure.layout.template.layout.modebar.remove


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(colour, ground):
    low, high = sorted((luminance(colour), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


def colours(node, *path):
    """Yield (path, colour) of all hex colours in a figure's JSON."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from colours(value, *path, key)
    elif isinstance(node, list):
        for value in node:
            yield from colours(value, *path)
    elif isinstance(node, str) and re.fullmatch("#[0-9a-f]{6}", node):
        yield path, node


WHITE, LAB_DARK, PAGE_DARK = "#ffffff", "#111111", "#14171b"
SOLID = {"hoverlabel", "colorscale"}
"""Text on a ground of its own, and cells, whose values are written in or shown on hover."""


@pytest.mark.parametrize("name", chart_names())
def test_text_and_lines_stand_out_from_white_and_from_black(name):
    found = json.loads(EXAMPLES[name].to_json())
    template = found["layout"].pop("template")["layout"]
    seen = [*colours(found), *colours(template)]
    text = {colour for path, colour in seen if "font" in " ".join(path) and not SOLID & {*path}}
    assert text
    for colour in text:
        assert contrast(colour, WHITE) >= 4.5, colour
        assert contrast(colour, LAB_DARK) >= 4, colour  # no ink has 4.5 on both
    lines = {
        colour
        for path, colour in seen
        if path[-1] in {"color", "colorway"}
        and "font" not in " ".join(path)
        and not SOLID & {*path}
        and path[-3:-1] != ("marker", "line")  # rims, which part markers that overlap
        and not (name == "heatmap_chart" and "shapes" in path)  # a frame, white around black
    }
    assert lines
    for colour in lines:
        for ground in (WHITE, LAB_DARK, PAGE_DARK):
            assert contrast(colour, ground) >= 3, (colour, ground)


def test_no_colour_is_written_beside_the_house_style():
    """A colour that is no constant of the style would escape the rule above."""
    for path in set(Path(charts.__file__).parent.glob("*.py")) - {Path(_style.__file__)}:
        allowed = {"#ffffff", "#1c2026"} if path.name == "_sweeps.py" else {"#fff"}
        assert set(re.findall('"(#[0-9a-f]+)"', path.read_text())) <= allowed, path.name


def nice_steps(low, high):
    """Return ticks as an axis has them: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    return np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step


def percent_label(value):
    """Return what d3 makes of `PERCENT_TICKS`."""
    whole, _, digits = f"{value * 100 + 0.0:,.9f}".partition(".")
    return f"{whole}.{digits}".rstrip("0").rstrip(".")


@pytest.mark.parametrize("width", [10.0**power for power in range(-6, 4)])
@pytest.mark.parametrize("low", [0.0, -0.5, 1.0])
def test_labels_of_an_axis_differ_however_narrow_it_is(width, low):
    assert PERCENT_TICKS == ",.9~%"
    ticks = nice_steps(low, low + width)
    labels = [percent_label(tick) for tick in ticks]
    assert len({*labels}) == len(labels) >= 3


@pytest.mark.parametrize("name", chart_names())
def test_no_axis_has_a_format_of_few_digits(name):
    text = EXAMPLES[name].to_json()
    assert set(re.findall(r'"tickformat":"(.*?)"', text)) <= {PERCENT_TICKS}


LONG = "sma_cross(" + ", ".join(f"name_{n}=123456" for n in range(6)) + ") on exec_20240808_2354"


@pytest.mark.parametrize("name", chart_names())
def test_a_long_title_is_wrapped_and_takes_no_room_of_the_plot(name):
    assert len(LONG) >= 120
    long, short = examples(title=LONG)[name], EXAMPLES[name]
    lines = long.layout.title.text.split("<br>")
    assert max(map(len, lines)) <= TITLE_WIDTH
    assert " ".join(lines) == LONG
    more = long.layout.height - short.layout.height
    assert more == long.layout.margin.t - short.layout.margin.t > 0
    bare = without_title(long)
    assert bare.layout.height - bare.layout.margin.t == short.layout.height - short.layout.margin.t
    assert not bare.layout.title.text


def test_an_endless_title_is_cut_and_whole_on_hover():
    title = " ".join(["<word>"] * 80)
    figure = charts.price_chart(prices(), title=title)
    assert figure.layout.title.text.count("<br>") == TITLE_LINES - 1
    assert figure.layout.title.text.endswith("&gt; …")
    (whole,) = (one.hovertext for one in figure.layout.annotations if one.hovertext)
    assert whole.replace("<br>", " ") == html.escape(title)


def caption(figure):
    """Return the summary that stands below the plot."""
    (found,) = (one for one in figure.layout.annotations if one.name == "summary")
    return found


@pytest.mark.parametrize("name", chart_names())
def test_every_chart_says_below_it_what_is_seen(name):
    title = "runs of <b>ABC</b> & more"
    figure = examples(title=title)[name]
    words = charts.summary(figure)
    assert words.startswith(f"{title}. ")
    below = caption(figure)
    facts = html.unescape(below.text.replace("<br>", " "))
    assert re.search(r"\d.* to .*\d", facts)
    assert words.endswith(f"{facts}.")
    for one in figure.layout.annotations:  # the note above says how much was drawn
        if one is not below and not one.hovertext:
            assert html.unescape(one.text.replace("<br>", " ")) in words
    lines = below.text.split("<br>")
    assert max(map(len, lines)) <= _style.NOTE_WIDTH
    room = -below.yshift + _style.NOTE_LINE * len(lines)
    assert (below.y, below.yref, below.yanchor) == (0, "paper", "top")
    assert figure.layout.margin.b >= room
    page = embed(figure, "chart", "")
    assert f'aria-label="{html.escape(words)}"'.replace("&quot;", "&#34;") in page
    assert "<b>ABC" not in page.split("<script>")[0]


@pytest.mark.parametrize("name", chart_names())
def test_where_its_width_is_known_to_others_the_words_are_text_that_wraps(name):
    figure = EXAMPLES[name]
    facts = caption(figure).text.replace("<br>", " ")
    before = figure.to_dict()["layout"]
    height, bottom = figure.layout.height, figure.layout.margin.b or 40
    output = FigureOutput()
    output.show(figure)
    chart, below = (one["data"] for one in output.outputs)
    assert below["text/html"].endswith(f">{facts}</div>")
    assert below["text/plain"] == html.unescape(facts)
    layout = chart[PLOTLY]["layout"]
    assert "summary" not in [one.get("name") for one in layout["annotations"]]
    assert height - layout["height"] == bottom - layout["margin"]["b"] >= 0
    page = embed(figure, "chart", "")
    assert below["text/html"] in page
    assert f"height:{layout['height']}px" in page
    assert figure.to_dict()["layout"] == before


def in_a_panel_whole(figure):
    output = FigureOutput()
    output.show(figure)
    return output.outputs[0]["data"][PLOTLY]


def test_a_summary_has_the_figures_of_what_was_drawn():
    words = charts.summary(EXAMPLES["result_chart"])
    one = prices().filter(symbol="BTC_USDT")["price"]
    assert f"{one.min():.6g}".rstrip("0").rstrip(".") in words
    assert "2024-08-08 00:00:00 to 00:06:39 UTC" in words
    assert "400 ticks" in words
    assert "6 fills (price): 100" in words
    assert "60 trades (return, net): " in charts.summary(EXAMPLES["trades_chart"])
    assert "sell volume in 60 bars: 1" in charts.summary(EXAMPLES["candles_chart"])
    assert "5 more" in charts.summary(EXAMPLES["comparison_chart"])
    assert "cells: 33.3 to 100" in charts.summary(EXAMPLES["depth_chart"])


def test_a_summary_counts_gaps_and_is_of_the_part_that_is_drawn():
    whole = prices().filter(symbol="BTC_USDT")
    start = whole["timestamp"][0]
    hole = (pl.col("timestamp") < start + timedelta(seconds=100)) | (
        pl.col("timestamp") > start + timedelta(seconds=200)
    )
    assert "; 1 gap." in charts.summary(charts.price_chart(whole.filter(hole), title="x"))
    assert "gap" not in charts.summary(charts.price_chart(whole, title="x"))


def test_a_figure_of_much_adds_little_to_a_notebook():
    """Each has the data of many ticks, books or trades; what a notebook keeps of it is bounded."""
    walk, late = random_walk(100_000), ticks(20_000)
    ran = fxlab.backtest(walk, "sma_cross", {"fast": 5, "slow": 20})
    assert ran.fills.height > 5_000
    bounds = [
        (charts.price_chart(late), 26_000),
        (ran.plot(), 70_000),
        (charts.trades_chart(ran.trades), 60_000),
        (charts.candles_chart(candles(3_000)), 50_000),
        (charts.session_chart(late, candles=candles(3_000), books=books(20_000)), 85_000),
        (charts.depth_chart(books(20_000)), 145_000),
    ]
    for figure, most in bounds:
        output = FigureOutput()
        output.show(figure)
        assert len(json.dumps(output.outputs)) < most, figure.layout.title.text


def test_a_chart_with_nothing_to_show_says_why():
    figure = charts.price_chart(prices().clear(), title="empty")
    assert charts.summary(figure).startswith("empty. ")
    assert "no ticks" in charts.summary(figure)
    assert not [one for one in figure.layout.annotations if one.name == "summary"]


def test_a_chart_is_saved_as_a_page_of_its_own(tmp_path):
    path = charts.save(EXAMPLES["price_chart"], tmp_path / "prices.HTML")
    text = path.read_text(encoding="utf-8")
    assert "* plotly.js v" in text
    assert "An example" in text
    assert "BTC_USDT: -1% to" in text


def test_an_image_of_a_chart_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr("plotly.io._kaleido.kaleido_available", lambda: False)
    figure = EXAMPLES["price_chart"]
    for make in (
        lambda: charts.save(figure, tmp_path / "a.svg"),
        lambda: figure.write_image(tmp_path / "a.png"),
        lambda: figure.to_image("svg"),
    ):
        with pytest.raises(
            InvalidParameter, match=r"needs the package kaleido.* save it as \.html"
        ):
            make()
    assert not list(tmp_path.iterdir())


def test_an_image_is_made_by_plotly_with_its_options(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("plotly.io.write_image", lambda *args, **more: asked.append((args, more)))
    figure = EXAMPLES["price_chart"]
    assert charts.save(figure, str(tmp_path / "a.png"), scale=3) == tmp_path / "a.png"
    assert asked == [((figure, tmp_path / "a.png"), {"scale": 3})]


@pytest.mark.parametrize("name", ["a", "a.txt", "a.html.zip"])
def test_a_file_that_is_none_for_a_chart_is_refused(name, tmp_path):
    with pytest.raises(InvalidParameter, match=r"is no file for a chart; name it \.html or \.svg"):
        charts.save(EXAMPLES["price_chart"], tmp_path / name)
