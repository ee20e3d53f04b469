"""The replay panel without a browser: clicks arrive, and what is shown is the truth."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from fake_clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from markets import START, random_walk

import fxlab
from fxlab._times import from_micros
from fxlab.charts._style import PLOTLY
from fxlab.replayer._cursor import ReplayBatch
from fxlab.widgets import KeyGuard, ReplayPanel
from fxlab.widgets._figures import RollingSeries
from fxlab.widgets._replay_panel import MARKERS, POINTS, SPEEDS, LiveChart, PlaybackControls

SMALL = {"fast": 5, "slow": 20}


@pytest.fixture(scope="module")
def session(lab, unique):
    made = unique("panel_replay")
    walks = [random_walk(2_000, seed, symbol=name) for seed, name in enumerate("AB")]
    ticks = pl.concat(walks).select("timestamp", "symbol", "seq", "price", "volume")
    lab.import_frames({"prices": ticks}, session_id=made)
    return lab.session(made)


def open_panel(lab, session, **options):
    clock = FakeClock()
    panel = ReplayPanel(lab, session_id=session.id, clock=clock, **options)
    panel.strategy.set_parameters(SMALL)
    return panel, clock


@pytest.fixture
def panel(lab, session):
    return open_panel(lab, session)


def expected(session):
    return fxlab.backtest(session, "sma_cross", SMALL, execution=fxlab.Execution(latency="0ms"))


# ---- a whole run -----------------------------------------------------------------------------


def test_play_gives_the_result_of_the_backtest(panel, session):
    bench, _ = panel
    bench.transport.play.click()  # without an event loop it runs to its end here
    assert bench.result.fingerprint == expected(session).fingerprint
    assert bench.result.equity.equals(expected(session).equity)
    assert bench.replay.state == "finished"
    assert bench.transport.play.description == "Play"
    assert bench.transport.stop.disabled
    assert "all of it was replayed at 2025-01-01 00:" in bench.message.value


def test_the_picture_and_the_figures_are_of_the_last_moment(panel, session):
    bench, _ = panel
    bench.transport.play.click()
    (live,) = bench.stage.children
    traces = {trace.name: trace for trace in live.figure.data}
    kept = live.output.outputs[0]["data"][PLOTLY]["data"]  # what a saved notebook has
    assert kept == json.loads(live.figure.to_json())["data"]
    words = live.output.outputs[1]["data"]["text/plain"]
    assert f"fills ({live.figure.layout.yaxis.title.text}): " in words
    assert "A: " in words
    assert set(traces) == {"A", "B", "buy", "sell", "equity"}
    result = expected(session)
    assert traces["equity"].y[-1] == result.metrics["final_equity"]
    for symbol in "AB":
        prices = pl.concat(session.scan_ticks(symbol))["price"]
        assert traces[symbol].y[-1] == prices[-1] / prices[0] - 1
        assert min(traces[symbol].y) == prices.min() / prices[0] - 1
        assert len(traces[symbol].x) <= 2 * POINTS
    bought = result.fills.filter(pl.col("qty") > 0).height
    assert len(traces["buy"].x) == min(bought, MARKERS)
    assert bench.transport.bar.value == bench.transport.place.value == 1.0
    assert "100.0%" in bench.transport.line.value
    assert f"{result.fills.height:,} fills" in bench.figures.value
    assert "final equity" in bench.figures.value


def test_a_picture_is_drawn_at_most_five_times_a_second(panel, monkeypatch):
    bench, clock = panel
    drawn = []
    monkeypatch.setattr(LiveChart, "show", lambda _: drawn.append(clock.now()))
    bench.transport.play.click()
    assert len(drawn) > 100
    assert np.diff(drawn)[:-1].min() > 0.199


def test_the_speed_of_the_slider_is_the_speed(panel):
    bench, clock = panel
    bench.transport.speed.value = 100
    began = clock.now()
    clock.after(3, lambda: setattr(bench.transport.speed, "value", 20))
    bench.transport.play.click()
    assert bench.replay.speed == pytest.approx(20)
    first, last = bench.replay.bounds
    rest = (last - first).total_seconds() - 300
    assert clock.now() - began == pytest.approx(3 + rest / 20, abs=0.5)


def test_ticks_alone_can_be_replayed(lab, session):
    bench, _ = open_panel(lab, session, strategy=None)
    assert not bench.trade.value
    assert bench._forms.layout.display == "none"
    bench.transport.play.click()
    (live,) = bench.stage.children
    assert [trace.name for trace in live.figure.data] == ["A", "B"]
    assert bench.result is None
    assert "equity" not in bench.figures.value
    assert "all of it was replayed" in bench.message.value


def test_only_the_chosen_symbols_are_replayed(panel):
    bench, _ = panel
    bench.picker.symbol_list.set_state({"index": [1]})
    bench.transport.play.click()
    assert bench.replay.symbols == bench.result.symbols == ("B",)
    assert bench.stage.children[0].figure.data[0].y[0] > 1  # one symbol is drawn as it is


# ---- pause, place, stop ----------------------------------------------------------------------


def test_pause_and_resume(panel):
    bench, clock = panel
    button, offered = bench.transport.play, []
    button.observe(lambda change: offered.append(change["new"]), "description")
    bench.transport.speed.value = 100
    began = clock.now()
    clock.after(1, button.click)
    clock.after(501, button.click)
    button.click()
    assert offered == ["Pause", "Resume", "Pause", "Play"]
    first, last = bench.replay.bounds
    assert clock.now() - began == pytest.approx(500 + (last - first).total_seconds() / 100, abs=0.5)


def test_moving_the_place_jumps_and_the_result_is_whole(panel, session):
    bench, clock = panel
    bench.transport.speed.value = 20
    states = []
    clock.after(1, lambda: bench.transport.place.set_state({"value": 0.8}))
    clock.after(2, lambda: bench.transport.place.set_state({"value": 0.1}))
    clock.after(3, lambda: states.append(bench.transport.place.value))
    bench.transport.play.click()
    first, last = bench.replay.bounds
    length = (last - first).total_seconds()
    assert states[0] == pytest.approx(0.1 + 20 / length, abs=0.02)
    assert bench.result.fingerprint == expected(session).fingerprint
    (live,) = bench.stage.children
    drawn = {trace.name: trace for trace in live.figure.data}["A"].x[0]
    assert drawn / 1_000 == pytest.approx(first.timestamp() + 0.1 * length, abs=1)


def test_the_slider_moves_along_and_is_not_taken_for_a_hand(panel, monkeypatch):
    bench, _ = panel
    sought = []
    monkeypatch.setattr(bench, "_on_place", sought.append)
    places = []
    bench.transport.place.observe(lambda change: places.append(change["new"]), "value")
    bench.transport.play.click()
    assert len(places) > 50
    assert places == sorted(places)
    assert bench.replay.result.ticks == 4_000
    assert sought == []


def test_play_begins_where_the_slider_stands(panel, session):
    bench, clock = panel
    bench.transport.place.set_state({"value": 0.5})
    began = clock.now()
    bench.transport.speed.value = 100
    bench.transport.play.click()
    first, last = bench.replay.bounds
    assert clock.now() - began == pytest.approx((last - first).total_seconds() / 200, abs=0.5)
    assert bench.result.fingerprint == expected(session).fingerprint
    began = clock.now()
    bench.transport.play.click()  # from the end: once more, from the beginning
    assert clock.now() - began == pytest.approx((last - first).total_seconds() / 100, abs=0.5)


def test_stop_shows_the_result_up_to_there(panel, session):
    bench, clock = panel
    clock.after(4, bench.transport.stop.click)
    bench.transport.play.click()
    assert bench.replay.state == "stopped"
    assert 0 < bench.result.ticks < 4_000
    assert bench.result.last == bench.replay.result.last
    assert "stopped at 2025-01-01 00:00:" in bench.message.value
    assert bench.transport.play.description == "Play"


def test_stop_before_the_first_tick_is_no_error(panel):
    bench, _ = panel
    bench.transport.stop.click()  # nothing runs yet
    bench.transport.play.click()
    assert bench.replay.state == "finished"


# ---- what goes wrong -------------------------------------------------------------------------


def test_nothing_chosen_is_said_in_the_panel(panel):
    bench, _ = panel
    bench.picker.symbol_list.set_state({"index": []})
    bench.transport.play.click()
    assert "no symbol is chosen" in bench.transport.note.value
    assert bench.replay is None
    assert bench.transport.play.description == "Play"


def test_a_rule_that_is_broken_is_said_in_the_panel(panel):
    bench, _ = panel
    bench.strategy.controls["fast"].value = 900
    bench.transport.play.click()
    assert "fast=900 must be below slow=20" in bench.message.value
    assert bench.result is None


def test_every_list_keeps_its_keys_and_every_control_has_a_label(panel):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    bench, _ = panel
    assert isinstance(bench.children[-1], KeyGuard)
    silent = {"HTML", "Label", "Message", "SessionOverview", "HBox", "VBox", "Box", "LiveFigure"}
    for widget in walk(bench):
        if hasattr(widget, "description") and type(widget).__name__ not in silent:
            assert widget.description, widget


def test_a_panel_reads_as_text(panel, session):
    bench, _ = panel
    assert repr(bench).startswith(f"<ReplayPanel>\n<SessionPicker {session.id}: A, B")


# ---- beside an event loop --------------------------------------------------------------------


def test_clicks_are_heard_while_it_runs(lab, session):
    """On the machine's own clock: at this speed it would take minutes."""
    bench = ReplayPanel(lab, session_id=session.id)
    bench.strategy.set_parameters(SMALL)
    bench.transport.speed.value = 10

    async def until(holds):
        while not holds():  # noqa: ASYNC110 - another thread makes it so
            await asyncio.sleep(0.01)

    async def story():
        bench.transport.play.click()
        await until(lambda: bench.replay.progress > 0)
        bench.transport.play.click()
        assert bench.replay.state == "paused"
        bench.transport.place.set_state({"value": 0.5})
        await until(lambda: bench.replay.time_progress > 0.49)
        assert bench.replay.state == "paused"
        bench.transport.play.click()
        assert bench.replay.state == "running"
        bench.transport.stop.click()
        await until(lambda: bench.transport.play.description == "Play")

    asyncio.run(asyncio.wait_for(story(), 120))
    assert bench.result.ticks < 4_000
    assert "stopped at" in bench.message.value


# ---- the parts -------------------------------------------------------------------------------


def test_a_trail_stays_small_and_keeps_its_spikes():
    trail = RollingSeries(100)
    rng = np.random.default_rng(1)
    values = rng.normal(size=50_000)
    values[31_234], values[40_001] = 50.0, -60.0
    for start in range(0, len(values), 37):
        x = np.arange(start, min(start + 37, len(values)), dtype=float)
        trail.add(x, values[start : start + 37])
        assert len(trail.x) == len(trail.y) <= 200 + 37
    assert (trail.x[0], trail.x[-1]) == (0, 49_999)
    assert (trail.y.max(), trail.y.min()) == (50.0, -60.0)
    assert (np.diff(trail.x) > 0).all()
    trail.clear()
    assert len(trail.x) == 0


@given(st.lists(st.none() | st.lists(st.floats(-1e6, 1e6), max_size=40), max_size=12))
def test_a_trail_keeps_the_ends_and_the_extremes_of_whatever_was_added(chunks):
    """None begins an empty line."""
    trail, added = RollingSeries(8), []
    for chunk in chunks:
        if chunk is None:
            trail.clear()
            added = []
            continue
        trail.add(np.arange(len(added), len(added) + len(chunk), dtype=float), np.array(chunk))
        added += chunk
        assert len(trail.x) == len(trail.y) <= 16
        assert [added[int(x)] for x in trail.x] == trail.y.tolist()
        assert (np.diff(trail.x) > 0).all()
        if added:
            assert (trail.x[0], trail.x[-1]) == (0, len(added) - 1)
            assert (trail.y.min(), trail.y.max()) == (min(added), max(added))


def batch(rows, *, sought=False, fills=None, second=0):
    moment = from_micros(START + second * 1_000_000)
    frame = pl.DataFrame(
        {"timestamp": [moment] * rows, "symbol": ["A"] * rows, "price": [100.0 + second] * rows},
        schema_overrides={"timestamp": pl.Datetime("us", "UTC"), "symbol": pl.String},
    )
    return ReplayBatch(
        number=0, timestamp=moment, frame=frame, progress=0.5, time_progress=0.5, lag=0.0,
        prices={"A": 100.0 + second}, sought=sought, equity=1_000.0 + second, positions={"A": 1.0},
        fills=fills, fills_count=0,
    )  # fmt: skip


def fill(second, qty):
    return pl.DataFrame(
        {"symbol": ["A"], "timestamp": [from_micros(START + second * 1_000_000)],
         "qty": [qty], "price": [100.0]},
    )  # fmt: skip


def test_a_jump_begins_a_new_picture():
    chart = LiveChart(("A",), trading=True)
    chart.add(batch(3, fills=fill(0, 1.0)))
    chart.show()
    drawn = {trace.name: trace for trace in chart.live.figure.data}
    assert [len(drawn[name].x) for name in ("A", "buy", "sell", "equity")] == [3, 1, 0, 1]
    chart.add(batch(0, sought=True, second=50, fills=fill(40, 1.0)))
    chart.add(batch(1, second=51, fills=fill(51, -1.0)))
    chart.show()
    assert [len(drawn[name].x) for name in ("A", "buy", "sell", "equity")] == [1, 0, 1, 2]


def test_only_the_newest_fills_are_drawn():
    chart = LiveChart(("A",), trading=True)
    for second in range(MARKERS + 50):
        chart.add(batch(1, second=second, fills=fill(second, 1.0)))
    chart.show()
    drawn = {trace.name: trace for trace in chart.live.figure.data}["buy"]
    assert len(drawn.x) == MARKERS
    assert from_micros(int(drawn.x[-1]) * 1_000) == datetime(2025, 1, 1, 0, 7, 29, tzinfo=UTC)


def test_titles_are_text():
    chart = LiveChart(("A",), trading=False, title="<b>bold</b>")
    assert chart.live.figure.layout.title.text == "&lt;b&gt;bold&lt;/b&gt;"


def test_the_controls_tell_what_was_done():
    told = []
    controls = PlaybackControls(told.append, lambda: told.append("stop"), told.append, told.append)
    assert controls.stop.disabled
    controls.play.click()
    controls.offer("Pause")
    assert not controls.stop.disabled
    controls.play.click()
    controls.speed.set_state({"index": SPEEDS.index(50.0)})
    controls.show(0.25, 0.5, "half <way>")
    controls.place.set_state({"value": 0.75})
    controls.place.set_state({"value": 0.5})
    controls.stop.click()
    assert told == ["Play", "Pause", 50.0, 0.75, 0.5, "stop"]
    assert "half &lt;way&gt;" in controls.line.value
    assert controls.bar.value == 0.25
