"""A report is complete, safe, and opens without a network."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from markets import random_walk

import fxlab
from fxlab import _html
from fxlab.backtester._frame_source import FrameSource
from fxlab.backtester.report import _tearsheet
from fxlab.backtester.report._tearsheet import embed, write_report
from fxlab.backtester.strategy import strategy
from fxlab.charts import price_chart

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def result():
    return fxlab.backtest(random_walk(20_000), "sma_cross", {"fast": 5, "slow": 10})


@pytest.fixture(scope="module")
def written(result, tmp_path_factory):
    return write_report(result, tmp_path_factory.mktemp("reports") / "new folder")


def without_scripts(text):
    """Return a page as it is without what its script elements hold."""
    return re.sub(r"<script>.*?</script>", "<script></script>", text, flags=re.DOTALL)


def test_the_page_is_one_file_named_after_the_run_with_its_script_once(result, written):
    assert written.name == f"{result.run_id}.html"
    assert [path.name for path in written.parent.iterdir()] == [written.name]
    assert written.read_text().count("* plotly.js v") == 1
    assert written.stat().st_size < 6_000_000


def test_a_reader_finds_all_that_is_needed_to_judge_and_repeat_the_run(result, written):
    text = written.read_text()
    wanted = [
        *("sma_cross", "fast = 5", "slow = 10", "allow_short = no"),
        *(result.fingerprint, result.run_id, result.data_session_id, "TICKS"),
        *(f"{result.ticks:,}", str(result.execution), "capital 10,000.00", "polars "),
        "too short to annualise",
    ]
    for part in wanted:
        assert part in text, part
    for name in result.metrics:
        assert f">{name.replace('_', ' ')}<" in text


def test_the_page_names_no_network_address(written):
    text = without_scripts(written.read_text())
    assert re.findall(r"(?:https?:|wss?:|ftp:)?//[\w.]+\.\w+", text) == []
    assert re.findall(r"(?:src|href)=", text) == []
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; script-src 'unsafe-inline' ")


def test_the_first_trades_are_shown_and_the_rest_counted(result, written):
    assert result.trades.height > 200
    text = written.read_text()
    assert f"The first 200 of {result.trades.height:,} round trips" in text
    assert f"The first 200 of {result.fills.height:,} fills" in text
    trades = text.split("<h2>Trades</h2>")[1].split("</table>")[0]
    assert trades.count("<tr>") == 201


def test_the_chart_is_in_words_too(result, written):
    words = re.search(r"<h2>In words</h2>\n.*?<p[^>]*>(.*?)</p>", written.read_text())[1]
    assert f"to {result.metrics['final_equity']:,.2f}" in words
    assert f"{result.fills.height:,} fills" in words


def test_writing_again_changes_nothing(result, written):
    before = written.read_bytes()
    assert write_report(result, written.parent) == written
    assert written.read_bytes() == before


def test_a_failed_write_leaves_nothing_behind(result, tmp_path, monkeypatch):
    monkeypatch.setattr(_tearsheet, "render", lambda _: "\ud800")  # no UTF-8 for it
    with pytest.raises(UnicodeEncodeError):
        write_report(result, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_trades_has_a_report():
    ran = fxlab.backtest(random_walk(100), "sma_cross")
    text = _tearsheet.render(ran)
    said = [
        *("No round trips.", "No fills.", "There were no fills.", "No closed trades."),
        *("No drawdown:", "No returns:", "No position was held", "No orders were made."),
    ]
    for sentence in said:
        assert sentence in text, sentence
    assert text.count("<script>Plotly.newPlot") == 1  # prices; there is nothing else to draw
    assert "NaN%" not in without_scripts(text)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_run_of_a_tick_or_two_has_a_report(rows):
    ran = fxlab.backtest(random_walk(rows), "buy_and_hold")
    text = _tearsheet.render(ran)
    assert f"{rows} tick{'s' * (rows > 1)} of TICKS" in text
    assert "No closed trades." in text


GAP_MINUTES = ((10, 20), (30, 35))


@pytest.fixture(scope="module")
def with_gaps():
    ticks = random_walk(20_000)
    start = ticks["timestamp"][0]
    times = [[start + timedelta(minutes=minute) for minute in pair] for pair in GAP_MINUTES]
    gaps = pl.DataFrame(times, schema=["from_time", "to_time"], orient="row")
    both = pl.concat([ticks.with_columns(symbol=pl.lit(name)) for name in ("BTC", "ETH")])
    return fxlab.backtest(
        FrameSource(both, gaps=gaps), "sma_cross", {"fast": 5, "slow": 40, "allow_short": True}
    )


SECTIONS = (
    "In words",
    "Price, equity, drawdown",
    "Figures",
    "Drawdowns",
    "Returns",
    "Returns by month",
    "Hours and days",
    "Trades against time and risk",
    "Exposure",
    "Orders that did not fill",
    "Trades",
    "Fills",
    "What made this run",
)


def test_every_section_is_there_in_reading_order(written):
    assert tuple(re.findall(r"<h2>(.*?)</h2>", written.read_text())) == SECTIONS


def test_blind_time_is_a_section_where_there_are_gaps(with_gaps):
    text = _tearsheet.render(with_gaps)
    blind = text.split("<h2>Time in gaps</h2>")[1].split("</section>")[0]
    assert "2 known gaps of the recording in the run: 15m 0s" in blind
    assert "trades were open in a gap" in blind
    assert len(with_gaps.plot().layout.shapes) == 2


def test_the_drawdown_table_is_that_of_the_result(result, written):
    text = written.read_text().split("<h2>Drawdowns</h2>")[1].split("</section>")[0]
    assert f">{100 * result.drawdowns['depth'][0]:.2f}%<" in text
    assert text.count("<tr>") == 1 + result.drawdowns.height


def test_months_are_shaded_by_their_size(written):
    text = written.read_text().split("<h2>Returns by month</h2>")[1].split("</section>")[0]
    assert text.count("<th ") == 14 + 1
    assert re.search(r'style="background:rgba\([\d,]+,0\.55\)">-?[\d.]+%<', text)


def test_unfilled_orders_are_counted_by_reason(result):
    orders = result.orders.head(4).with_columns(
        qty=pl.Series([1.0, 0.0, 0.0, 0.0]),
        status=pl.Series(["filled", "late", "no liquidity", "late"]),
    )
    changed = replace(result)
    vars(changed)["orders"] = orders  # instead of the table that would be made
    text = _tearsheet.render(changed)
    section_ = text.split("<h2>Orders that did not fill</h2>")[1].split("</section>")[0]
    assert "3 of 4 orders ended with nothing executed" in section_
    cells = re.findall(r"<td[^>]*>(.*?)</td>", section_)
    assert cells == ["late", "2", "50.0", "no liquidity", "1", "25.0"]


def test_a_long_report_stays_small_beside_its_script(written):
    from plotly.offline import get_plotlyjs

    assert len(written.read_text()) - len(get_plotlyjs()) < 400_000


def test_figures_have_the_height_that_the_page_keeps_free(result):
    for name, figure in result.figures().items():
        made = embed(figure, name, "")
        room = (figure.layout.meta or {}).get("room", 0)  # of the words, which are text here
        assert f"height:{figure.layout.height - room}px" in made


def test_figures_of_a_run_are_named_and_of_few_points(result):
    figures = result.figures()
    assert list(figures) == [
        *("run", "equity", "returns", "months", "hours", "weekdays", "trades", "exposure")
    ]
    for figure in figures.values():
        for trace in figure.data:
            assert len(trace.x if trace.x is not None else ()) <= 5_000


def test_styles_of_cells_leave_and_styles_in_text_stay():
    text = '" style="text-align:left'
    made = _html.table(pl.DataFrame({"x": [text]}), right=("x",), inline=False)
    assert '<td class="n">&#34; style=&#34;text-align:left</td>' in made
    assert ' style="' not in made


def test_several_symbols_keep_their_column():
    both = pl.concat([random_walk(3_000, 1, symbol="BTC"), random_walk(3_000, 2, symbol="ETH")])
    text = _tearsheet.render(fxlab.backtest(both, "sma_cross", {"fast": 5, "slow": 10}))
    assert ">BTC<" in text.split("<h2>Trades</h2>")[1]


def test_nothing_hostile_survives():
    def hold(*, word: str = HOSTILE) -> fxlab.Signals:
        return fxlab.Signals(target=pl.lit(1.0), lookback=0)

    hostile = replace(strategy.get(hold), name=HOSTILE)
    ran = fxlab.backtest(random_walk(50, symbol=HOSTILE), hostile)
    text = _tearsheet.render(ran)
    assert "<img" not in without_scripts(text)
    scripts = re.findall(r"<script.*?</script>", text, re.DOTALL)
    assert text.count("</script>") == len(scripts)
    assert scripts[0].removeprefix("<script>").lstrip().startswith("/**\n* plotly.js v")
    assert all(script.startswith("<script>Plotly.newPlot(") for script in scripts[1:])


def test_parts_escape_what_they_are_given():
    tiles = _html.part("tiles", [(HOSTILE, HOSTILE, HOSTILE)])
    figure = _html.part("figure", "chart", 1, [HOSTILE], HOSTILE)
    content = [HOSTILE, tiles, figure, _html.paragraphs([HOSTILE]), _html.part("caveats", HOSTILE)]
    made = _html.page("page", title=HOSTILE, sections=[(HOSTILE, content)], plotly="")
    assert "<img" not in without_scripts(made)
    assert made.count("<script>") == made.count("</script>") == 1
    assert made.count("&lt;img") == 10


def test_an_embedded_figure_reads_back():
    figure = price_chart(pl.DataFrame(schema={"timestamp": pl.Datetime("us"), "price": pl.Float64}))
    figure.update_layout(title_text="</script><!-- & \u2028")
    made = embed(figure, "chart", "a fallback")
    call = re.search(r"Plotly\.newPlot\(\"chart\", \.\.\.(.*)\);</script>", made)[1]
    assert "<" not in call
    assert json.loads(call)[1]["title"]["text"] == "</script><!-- & \u2028"
    assert "<noscript>a fallback</noscript>" in made
