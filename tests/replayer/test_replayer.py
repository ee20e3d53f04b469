"""A replay is a backtest in its own time: same rows, same bits, at the right moments."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from fake_clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st
from markets import SMALL, START, markets, random_walk

import fxlab
from fxlab._times import from_micros, to_micros
from fxlab.backtester._frame_source import FrameSource
from fxlab.backtester._state import KernelState
from fxlab.errors import (
    EmptySession,
    InvalidInput,
    InvalidParameter,
    InvalidTicks,
    InvalidTimeRange,
    SymbolNotFound,
)

SMA = {"strategy": "sma_cross", "parameters": {"fast": 3, "slow": 8}}
AT_ONCE = math.inf


def two_symbols(rows=400):
    walks = [random_walk(rows, seed, symbol=name) for seed, name in enumerate("AB")]
    return pl.concat(walks).select("timestamp", "symbol", "seq", "price", "volume")


def clockwork(times_us, prices=None):
    """Return ticks at given microseconds after the start."""
    prices = prices or [100.0 + number for number in range(len(times_us))]
    stamps = pl.Series(START + np.array(times_us)).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"timestamp": stamps, "price": prices})


def merged(batches):
    return pl.concat([batch.frame for batch in batches])


def fills_of(batches):
    """Return the fills that were handed out; a jump back takes all earlier ones with it."""
    return pl.concat([batch.fills for batch in batches])


def assert_same(result, expected):
    for name in ("orders", "fills", "trades", "equity"):
        assert getattr(result, name).equals(getattr(expected, name)), name
    assert result.metrics.table().equals(expected.metrics.table())
    assert result.fingerprint == expected.fingerprint
    assert (result.ticks, result.first, result.last) == (
        expected.ticks,
        expected.first,
        expected.last,
    )


# ---- what comes ------------------------------------------------------------------------------


@given(markets(symbols=3), st.integers(1, 40), st.integers(1, 40))
def test_every_tick_comes_once_and_in_order(market, batch_size, chunk_rows):
    market = market.drop("wanted")
    batches = list(
        fxlab.replay(market, speed=AT_ONCE, batch_size=batch_size, chunk_rows=chunk_rows)
    )
    expected = market.select("timestamp", "symbol", "seq", "price").sort(
        "timestamp", "symbol", maintain_order=True
    )
    assert merged(batches).equals(expected)
    assert max(batch.frame.height for batch in batches) <= batch_size
    assert [batch.number for batch in batches] == list(range(len(batches)))
    assert batches[-1].progress == batches[-1].time_progress == 1.0


def test_a_batch_shows_what_the_ticks_have():
    batch = next(fxlab.replay(two_symbols(), speed=AT_ONCE, batch_size=50))
    assert batch.frame.columns == ["timestamp", "symbol", "seq", "price", "volume"]
    assert batch.frame.height == 50
    assert batch.timestamp == batch.frame["timestamp"][-1]
    last = dict(batch.frame.group_by("symbol").agg(pl.col("price").last()).iter_rows())
    assert batch.prices == last
    assert (batch.equity, batch.positions, batch.fills) == (None, None, None)


def test_symbols_may_have_different_columns():
    """A symbol with trades beside one with quotes: each brings its own columns."""

    class Mixed(FrameSource):
        def scan_ticks(self, symbol, **options):
            for chunk in super().scan_ticks(symbol, **options):
                yield chunk.rename({"volume": "bid_qty_1"}) if symbol == "B" else chunk

    batches = list(fxlab.replay(Mixed(two_symbols()), speed=AT_ONCE, chunk_rows=50, batch_size=9))
    assert len({tuple(batch.frame.schema.items()) for batch in batches}) == 1
    frame = merged(batches)
    assert set(frame.columns) == {"timestamp", "symbol", "seq", "price", "volume", "bid_qty_1"}
    assert frame.filter(symbol="B")["volume"].null_count() == 400
    assert frame.filter(symbol="B")["bid_qty_1"].null_count() == 0


def test_a_part_can_be_replayed():
    ticks = two_symbols()
    start, end = ticks["timestamp"].sort()[200], ticks["timestamp"].sort()[500]
    replay = fxlab.replay(ticks, speed=AT_ONCE, symbols="B", start=start, end=end)
    wanted = ticks.filter(
        (pl.col("symbol") == "B") & pl.col("timestamp").is_between(start, end, closed="left")
    )
    assert merged(replay)["seq"].equals(wanted["seq"])
    assert replay.symbols == ("B",)
    assert replay.progress == 1.0


def test_progress_goes_up_by_rows_and_by_time():
    ticks = clockwork([0, 1_000_000, 2_000_000, 10_000_000])
    replay = fxlab.replay(ticks, speed=AT_ONCE, batch_size=1)
    assert (replay.progress, replay.time_progress) == (0.0, 0.0)
    assert [(b.progress, b.time_progress) for b in replay] == [
        (0.25, 0.0), (0.5, 0.1), (0.75, 0.2), (1.0, 1.0),
    ]  # fmt: skip


def test_a_symbol_that_ends_early_is_reported_and_the_others_go_on():
    short = random_walk(50, 1, symbol="SHORT")
    long = random_walk(400, 2, symbol="LONG")
    replay = fxlab.replay(pl.concat([short, long]), speed=AT_ONCE, batch_size=20, **SMA)
    batches = list(replay)
    (reported,) = [batch for batch in batches if "SHORT" in batch.ended]
    assert short["timestamp"][-1] in reported.frame.filter(symbol="SHORT")["timestamp"]
    assert reported.number < len(batches) - 1
    assert replay.ended["SHORT"] == short["timestamp"][-1] <= reported.timestamp
    assert batches[-1].ended == ("LONG",)
    assert batches[-1].prices["SHORT"] == short["price"][-1]
    assert_same(replay.result, fxlab.backtest(pl.concat([short, long]), *SMA.values()))


def test_a_symbol_without_a_tick_in_the_range_ends_at_once():
    late = random_walk(50, 1, symbol="LATE").with_columns(pl.col("timestamp") + pl.duration(days=1))
    early = random_walk(50, 2, symbol="EARLY")
    ticks = pl.concat([late, early])
    replay = fxlab.replay(ticks, speed=AT_ONCE, end="2025-01-01T12:00", batch_size=10)
    assert [batch.ended for batch in replay] == [("LATE",), (), (), (), ("EARLY",)]


# ---- the same as the backtest ----------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("batch_size", [1, 37])
def test_the_result_is_that_of_the_backtest(name, batch_size):
    ticks = pl.concat([random_walk(400, seed, symbol=name) for seed, name in enumerate("AB")])
    terms = fxlab.Execution(taker_bps=3, slippage_bps=1, latency="250ms")
    run = {"strategy": name, "parameters": SMALL[name], "execution": terms, "capital": 500.0}
    replay = fxlab.replay(ticks, speed=50, batch_size=batch_size, clock=FakeClock(), **run)
    batches = list(replay)
    expected = fxlab.backtest(ticks, **run)
    assert_same(replay.result, expected)
    assert fills_of(batches).equals(expected.fills)
    assert batches[-1].equity == expected.metrics["final_equity"]
    assert batches[-1].fills_count == expected.fills.height
    assert replay.result is replay.result


@given(markets(symbols=2), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.5, 3.0, 1e6]))
def test_no_cut_and_no_speed_changes_a_bit(market, batch_size, chunk_rows, speed):
    def wanted() -> fxlab.Signals:
        return fxlab.Signals(target=pl.col("wanted"), lookback=0)

    replay = fxlab.replay(
        market,
        speed=speed,
        strategy=wanted,
        batch_size=batch_size,
        chunk_rows=chunk_rows,
        interval="30s",
        clock=FakeClock(),
    )
    batches = list(replay)
    expected = fxlab.backtest(market, wanted)
    assert_same(replay.result, expected)
    assert fills_of(batches).equals(expected.fills)


def test_the_running_equity_is_that_of_a_backtest_up_to_there():
    ticks = random_walk(300)
    for batch in fxlab.replay(ticks, speed=2, clock=FakeClock(), interval="20s", **SMA):
        if batch.progress > 0.1 and batch.frame.height:
            so_far = fxlab.backtest(
                ticks, *SMA.values(), end=batch.timestamp + timedelta(microseconds=1)
            )
            assert batch.equity == so_far.metrics["final_equity"]
            assert batch.prices == {"TICKS": ticks["price"][so_far.ticks - 1]}
            held = so_far.fills["position"][-1] if so_far.fills.height else 0.0
            assert batch.positions == {"TICKS": held}


@pytest.mark.parametrize("shared_cash", [False, True])
@pytest.mark.parametrize("batch_size", [1, 37])
def test_fills_from_books_exits_and_gaps_are_those_of_the_backtest(shared_cash, batch_size):
    """Books come between the ticks and are fed to the ledger, too; batches show ticks only."""

    def nervous() -> fxlab.Signals:
        rising = pl.col("price").diff() > 0
        return fxlab.Signals(
            target=pl.when(rising).then(1.0).otherwise(-0.5), stop_loss=2e-4, lookback=1
        )

    ticks = two_symbols()
    side = pl.col("price")
    books = random_walk(900, 5).select(
        "timestamp",
        (side - 0.01).alias("bid_price_1"),
        pl.lit(3.0).alias("bid_qty_1"),
        (side + 0.01).alias("ask_price_1"),
        pl.lit(3.0).alias("ask_qty_1"),
    )
    books = pl.concat([books.with_columns(symbol=pl.lit(name)) for name in "AB"])
    hole = from_micros(START + 30_000_000), from_micros(START + 40_000_000)
    gaps = pl.DataFrame({"from_time": [hole[0]], "to_time": [hole[1]]})
    source = FrameSource(ticks, books=books, gaps=gaps)
    terms = fxlab.Execution(fill="book", latency="20ms", shared_cash=shared_cash, max_leverage=2)
    run = {"strategy": nervous, "execution": terms}
    replay = fxlab.replay(source, batch_size=batch_size, clock=FakeClock(), **run)
    batches = list(replay)
    expected = fxlab.backtest(source, **run)
    assert expected.fills.height > 50
    assert_same(replay.result, expected)
    assert fills_of(batches).equals(expected.fills)
    assert merged(batches).height == 800
    assert max(batch.frame.height for batch in batches) <= batch_size
    assert batches[-1].progress == 1.0


def test_a_strategy_that_looks_at_everything_before_is_replayed_too():
    def above_all() -> fxlab.Signals:
        return fxlab.Signals(target=(pl.col("price") >= pl.col("price").cum_max()).cast(pl.Float64))

    ticks = two_symbols()
    replay = fxlab.replay(ticks, speed=AT_ONCE, strategy=above_all, chunk_rows=10)
    assert merged(replay).height == 800
    assert_same(replay.result, fxlab.backtest(ticks, above_all))


def test_no_more_is_read_than_is_needed():
    """Memory is bounded by chunks: a chunk of each symbol at hand, and the next one."""
    read = {"A": 0, "B": 0}

    class Counted(FrameSource):
        def scan_ticks(self, symbol, **options):
            for chunk in super().scan_ticks(symbol, **options):
                read[symbol] += chunk.height
                yield chunk

    source = Counted(two_symbols())
    replay = fxlab.replay(source, speed=AT_ONCE, chunk_rows=20, batch_size=10, **SMA)
    read.update(A=0, B=0)  # what counting took
    for batch in replay:
        out = batch.progress * replay.total
        assert max(read.values()) <= out / 2 + 100
        assert sum(read.values()) >= out


# ---- at the right moments --------------------------------------------------------------------


def deliveries(replay, clock):
    """Return (wall seconds since the first batch, batch) of each batch."""
    first = None
    for batch in replay:
        first = clock.now() if first is None else first
        yield clock.now() - first, batch


@pytest.mark.parametrize("speed", [0.5, 1, 10, 100])
@pytest.mark.parametrize("batch_size", [1, 25])
@pytest.mark.parametrize("oversleep", [0.0, 0.3])
def test_ticks_come_when_they_are_due(speed, batch_size, oversleep):
    """Waits that take 30 % longer than asked do not add up."""
    ticks, clock = random_walk(500), FakeClock(oversleep)
    replay = fxlab.replay(ticks, speed=speed, batch_size=batch_size, clock=clock)
    late = 1e-6 + (1 + oversleep) * 0.1
    for wall, batch in deliveries(replay, clock):
        due = (batch.frame["timestamp"].to_physical() - START - _first(ticks)) / 1e6 / speed
        assert (due <= wall + 2e-6).all()
        assert (due >= wall - late).all()
        assert batch.lag <= oversleep * 0.1 + 1e-6
    over = (ticks["timestamp"][-1] - ticks["timestamp"][0]).total_seconds() / speed
    assert over - 1e-6 <= clock.now() - 1_000.0 <= over + late


def _first(ticks):
    return to_micros(ticks["timestamp"][0]) - START


def test_a_batch_that_is_full_does_not_wait_for_the_interval():
    ticks, clock = clockwork([0, 10_000, 20_000, 30_000]), FakeClock()
    replay = fxlab.replay(ticks, batch_size=1, interval="10s", clock=clock)
    assert [wall for wall, _ in deliveries(replay, clock)] == pytest.approx([0, 0.01, 0.02, 0.03])


def test_what_the_first_rows_take_is_no_market_time(monkeypatch):
    """The first rows may wait for a compiler; the market waits with them."""
    ticks, clock = clockwork([0, 1_000_000, 2_000_000]), FakeClock()
    replay = fxlab.replay(ticks, clock=clock, **SMA)
    slow = KernelState.replay

    def compiling(self, *rows):
        clock.time += 60.0 * (self.first is None)
        slow(self, *rows)

    monkeypatch.setattr(KernelState, "replay", compiling)
    batches = list(replay)
    assert [batch.frame.height for batch in batches if batch.frame.height] == [1, 1, 1]
    assert clock.now() - 1_000 == pytest.approx(62)
    assert max(batch.lag for batch in batches) == 0


def test_the_clock_ticks_in_a_quiet_market():
    ticks, clock = clockwork([0, 10_000_000]), FakeClock()
    batches = list(fxlab.replay(ticks, interval="1s", clock=clock))
    assert [batch.frame.height for batch in batches] == [1, *[0] * 9, 1]
    assert [batch.timestamp for batch in batches] == [
        from_micros(START + second * 1_000_000) for second in range(11)
    ]
    assert batches[5].frame.schema == batches[0].frame.schema
    assert batches[5].time_progress == 0.5
    assert batches[5].prices == {"TICKS": 100.0}


def test_a_slow_reader_is_told_and_loses_nothing():
    ticks, clock = clockwork(list(range(0, 10_000_000, 10_000))), FakeClock()
    replay = fxlab.replay(ticks, batch_size=10, clock=clock)
    lags = []
    for batch in replay:
        assert batch.frame.height <= 10
        lags.append(batch.lag)
        if batch.number < 20:
            clock.time += 0.25  # each batch holds 0.1 s
    assert lags[0] == 0
    assert lags[19] == pytest.approx(19 * 0.15, abs=0.11)
    assert lags[-1] == pytest.approx(0, abs=1e-5)  # it has caught up
    assert replay.progress == 1.0


def test_the_speed_can_change_while_it_runs():
    ticks, clock = clockwork(list(range(0, 60_000_000, 100_000))), FakeClock()
    replay = fxlab.replay(ticks, clock=clock)
    clock.after(10, lambda: setattr(replay, "speed", 10))
    clock.after(13, lambda: setattr(replay, "speed", 2))
    assert replay.speed == 1
    list(replay)
    assert replay.speed == 2
    assert clock.now() - 1_000 == pytest.approx(10 + 3 + (59.9 - 40) / 2, abs=0.2)


def test_nothing_waits_at_infinite_speed():
    clock = FakeClock()
    assert merged(fxlab.replay(random_walk(500), speed=AT_ONCE, clock=clock)).height == 500
    assert clock.waits == 0


# ---- pause, resume, stop ---------------------------------------------------------------------


def test_a_pause_holds_market_time_until_it_goes_on():
    ticks, clock = clockwork(list(range(0, 10_000_000, 100_000))), FakeClock()
    replay = fxlab.replay(ticks, clock=clock)
    clock.after(3, replay.pause)
    clock.after(1_003, replay.resume)
    seen = [(batch.timestamp, wall) for wall, batch in deliveries(replay, clock)]
    walls = [wall for _, wall in seen]
    assert walls[-1] == pytest.approx(1_000 + 9.9, abs=0.15)
    assert not [wall for wall in walls if 3.05 < wall < 1_002.95]
    paused = [stamp for stamp, wall in seen if wall <= 3.05][-1]
    assert paused == pytest.approx(from_micros(START + 3_000_000), abs=timedelta(seconds=0.15))


def test_states_follow_each_other():
    replay = fxlab.replay(random_walk(300), speed=AT_ONCE)
    states = [replay.state]
    next(replay)
    states.append(replay.state)
    replay.pause()
    states.append(replay.state)
    replay.resume()
    list(replay)
    states.append(replay.state)
    assert states == ["ready", "running", "paused", "finished"]
    assert next(replay, "no more") == "no more"


def test_a_replay_may_begin_paused():
    clock = FakeClock()
    replay = fxlab.replay(clockwork([0, 1_000_000]), clock=clock)
    replay.pause()
    clock.after(50, replay.resume)
    batches = list(replay)
    assert clock.now() - 1_000 == pytest.approx(51)
    assert merged(batches).height == 2


def test_a_stopped_replay_has_the_result_up_to_there():
    ticks = two_symbols()
    replay = fxlab.replay(ticks, speed=AT_ONCE, start="2025-01-01", batch_size=30, **SMA)
    seen = []
    for batch in replay:
        seen.append(batch)
        if batch.number == 9:
            replay.stop()
    assert len(seen) == 10
    assert replay.state == "stopped"
    end = seen[-1].timestamp + timedelta(microseconds=1)
    assert_same(replay.result, fxlab.backtest(ticks, *SMA.values(), end=end))
    with pytest.raises(InvalidInput, match="was stopped; start another one"):
        replay.seek(seen[0].timestamp)


def test_leaving_a_with_block_stops():
    with fxlab.replay(random_walk(300), speed=AT_ONCE, batch_size=10) as replay:
        next(replay)
    assert replay.state == "stopped"
    with fxlab.replay(random_walk(30), speed=AT_ONCE) as replay:
        list(replay)
    assert replay.state == "finished"


def test_there_is_no_result_before_the_end_or_without_a_strategy():
    replay = fxlab.replay(random_walk(300), speed=AT_ONCE, **SMA)
    next(replay)
    with pytest.raises(InvalidInput, match=r"at 33\.3%; its result is there after the last"):
        _ = replay.result
    stopped = fxlab.replay(random_walk(300), **SMA)
    stopped.stop()
    with pytest.raises(InvalidInput, match="stopped before its first tick"):
        _ = stopped.result
    plain = fxlab.replay(random_walk(300), speed=AT_ONCE)
    list(plain)
    with pytest.raises(InvalidInput, match="without a strategy has no result"):
        _ = plain.result


def test_a_result_is_there_once_all_ticks_are_out():
    ticks = random_walk(300)
    for batch in (replay := fxlab.replay(ticks, speed=AT_ONCE, batch_size=7, **SMA)):
        if batch.progress == 1.0:
            break
    assert_same(replay.result, fxlab.backtest(ticks, *SMA.values()))


def test_another_thread_ends_a_wait():
    """On the machine's own clock: without `stop` this market would last for ages."""
    replay = fxlab.replay(clockwork([0, 10**15]), speed=1e-3)
    reached = threading.Event()

    def read():
        for _ in replay:
            reached.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert reached.wait(120)
    replay.pause()
    replay.speed = 2e-3
    replay.stop()
    reader.join(120)
    assert not reader.is_alive()


# ---- seek ------------------------------------------------------------------------------------


def moment(ticks, row):
    return ticks["timestamp"].sort()[row]


@pytest.mark.parametrize("way", [[500], [200], [500, 100], [100, 700, 100, 650]])
@pytest.mark.parametrize("speed", [AT_ONCE, 500.0])
def test_whatever_was_sought_the_result_is_that_of_the_whole(way, speed):
    ticks = two_symbols()
    replay = fxlab.replay(ticks, speed=speed, batch_size=30, clock=FakeClock(), **SMA)
    goals, goal = [moment(ticks, row) for row in way], None
    first_after = None
    for batch in replay:
        if batch.sought:
            assert batch.timestamp == goal
            assert batch.frame.is_empty()
            so_far = fxlab.backtest(ticks, *SMA.values(), end=goal)
            assert batch.equity == so_far.metrics["final_equity"]
            first_after = None
        elif batch.frame.height and first_after is None:
            first_after = batch.frame["timestamp"][0]
            assert first_after == (goal or ticks["timestamp"].min())
        if goals and batch.number % 3 == 2:
            goal = goals.pop(0)
            replay.seek(goal)
    assert goals == []
    assert_same(replay.result, fxlab.backtest(ticks, *SMA.values()))


def test_a_jump_brings_the_fills_on_the_way():
    ticks = two_symbols()
    expected = fxlab.backtest(ticks, *SMA.values()).fills
    forward = fxlab.replay(ticks, speed=AT_ONCE, **SMA)
    batches = [next(forward)]
    forward.seek(moment(ticks, 600))
    assert fills_of([*batches, *forward]).equals(expected)
    backward = fxlab.replay(ticks, speed=AT_ONCE, **SMA)
    for _ in range(5):
        next(backward)
    backward.seek(moment(ticks, 50))
    assert fills_of(backward).equals(expected)


def test_a_seek_is_heard_while_paused_and_after_the_end():
    ticks, clock = two_symbols(), FakeClock()
    replay = fxlab.replay(ticks, speed=100, clock=clock)
    next(replay)
    replay.pause()
    replay.seek(moment(ticks, 400))
    shown = next(replay)
    assert (shown.sought, shown.timestamp, replay.state) == (True, moment(ticks, 400), "paused")
    assert replay.position == moment(ticks, 400)
    clock.after(5, replay.resume)
    assert merged(replay)["timestamp"][0] == moment(ticks, 400)
    replay.seek(moment(ticks, 790))
    assert merged(replay)["timestamp"].to_list() == [
        time for time in ticks["timestamp"].sort() if time >= moment(ticks, 790)
    ]
    assert replay.state == "finished"


def test_a_stop_in_the_middle_of_a_jump_has_the_result_up_to_the_new_place(monkeypatch):
    ticks = two_symbols()
    replay = fxlab.replay(ticks, speed=AT_ONCE, chunk_rows=50, **SMA)
    for _ in range(5):
        next(replay)
    replay.seek(moment(ticks, 300))
    skipped = KernelState.replay

    def stopping(self, *rows):
        skipped(self, *rows)
        replay.stop()

    monkeypatch.setattr(KernelState, "replay", stopping)
    assert list(replay) == []
    monkeypatch.undo()
    assert_same(replay.result, fxlab.backtest(ticks, *SMA.values(), end=moment(ticks, 300)))


def test_the_latest_of_several_seeks_counts():
    ticks = two_symbols()
    replay = fxlab.replay(ticks, speed=AT_ONCE)
    for row in (100, 700, 300):
        replay.seek(moment(ticks, row))
    assert next(replay).timestamp == moment(ticks, 300)
    assert merged(replay)["timestamp"][0] == moment(ticks, 300)


def test_market_time_goes_on_from_the_new_place():
    ticks, clock = clockwork(list(range(0, 60_000_000, 100_000))), FakeClock()
    replay = fxlab.replay(ticks, clock=clock)
    clock.after(10, lambda: replay.seek(from_micros(START + 50_000_000)))
    list(replay)
    assert clock.now() - 1_000 == pytest.approx(10 + 9.9, abs=0.15)


def test_a_symbol_that_ended_is_back_after_a_jump_behind_its_end():
    short, long = random_walk(50, 1, symbol="SHORT"), random_walk(400, 2, symbol="LONG")
    replay = fxlab.replay(pl.concat([short, long]), speed=AT_ONCE)
    list(replay)
    assert set(replay.ended) == {"SHORT", "LONG"}
    replay.seek(short["timestamp"][10])
    next(replay)
    assert replay.ended == {}


# ---- asynchronous ----------------------------------------------------------------------------


def test_asynchronous_reading_gives_the_same():
    ticks = two_symbols()
    replay = fxlab.replay(ticks, speed=20, clock=FakeClock(), **SMA)

    async def read():
        return [batch async for batch in replay]

    assert merged(asyncio.run(read())).height == 800
    assert_same(replay.result, fxlab.backtest(ticks, *SMA.values()))


def test_the_event_loop_runs_while_a_chunk_is_read():
    """The source waits for the loop: read in the loop's own thread, it would wait in vain."""
    loop_ran = threading.Event()

    class Slow(FrameSource):
        def scan_ticks(self, symbol, **options):
            chunks = super().scan_ticks(symbol, **options)

            def patient():
                if threading.current_thread() is not threading.main_thread():
                    assert loop_ran.wait(120)
                yield from chunks

            return patient()

    async def read():
        reading = asyncio.ensure_future(anext(fxlab.replay(Slow(random_walk(50)), speed=AT_ONCE)))
        await asyncio.sleep(0)
        loop_ran.set()
        return await reading

    assert asyncio.run(asyncio.wait_for(read(), 60)).frame.height == 50


def test_a_cancelled_task_loses_no_batch():
    ticks = random_walk(600)
    replay = fxlab.replay(ticks, speed=AT_ONCE, batch_size=10)
    seen = []

    async def impatient(turns):
        reading = asyncio.ensure_future(anext(replay))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
            seen.append(await reading)

    async def story():
        for number in range(60):
            await impatient(number % 7)
        seen.extend([batch async for batch in replay])

    asyncio.run(story())
    assert merged(seen).equals(merged(fxlab.replay(ticks, speed=AT_ONCE)))


def test_a_pause_is_heard_while_the_loop_sleeps():
    """On the machine's own clock: the loop stops a replay that would last for ages."""
    replay = fxlab.replay(clockwork([0, 10**15]), speed=1e-3)

    async def story():
        await anext(replay)
        reading = asyncio.ensure_future(anext(replay))
        await asyncio.sleep(0.01)
        replay.pause()
        await asyncio.sleep(0.01)
        replay.stop()
        await asyncio.wait_for(asyncio.gather(reading, return_exceptions=True), 120)
        return [batch async for batch in replay]

    assert asyncio.run(story()) == []


# ---- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"speed": 0}, InvalidParameter, "speed=0 is not a speed"),
        ({"speed": -3}, InvalidParameter, "speed=-3 is not a speed"),
        ({"speed": math.nan}, InvalidParameter, "speed=nan is not a speed"),
        ({"speed": "10x"}, InvalidParameter, "speed='10x' is not a speed"),
        ({"batch_size": 0}, InvalidParameter, "batch_size=0 is not a number of ticks; give 1"),
        ({"batch_size": 2.5}, InvalidParameter, "batch_size=2.5 is not a number of ticks"),
        ({"batch_size": True}, InvalidParameter, "batch_size=True is not a number of ticks"),
        ({"interval": 0}, InvalidParameter, "interval=0 would hand out batches without end"),
        ({"interval": "soon"}, InvalidParameter, "interval='soon' is not a duration"),
        ({"symbols": "Q"}, SymbolNotFound, "no symbol named 'Q'"),
        ({"start": "2025-01-02", "end": "2025-01-01"}, InvalidTimeRange, "selects nothing"),
        ({"start": "2030-01-01"}, EmptySession, "its ticks run from 2025-01-01"),
        ({"parameters": {"fast": 3}}, InvalidParameter, "belong to a strategy; name it"),
        ({"execution": fxlab.Execution()}, InvalidParameter, "belong to a strategy; name it"),
        (
            {"strategy": "sma_cross", "parameters": {"fsat": 3}},
            InvalidParameter,
            "did you mean 'fast'",
        ),
    ],
)
def test_what_cannot_be_replayed_is_said_before_the_first_batch(options, error, words):
    with pytest.raises(error, match=words):
        fxlab.replay(two_symbols(), **options)


def test_a_replay_needs_ticks():
    with pytest.raises(InvalidParameter, match="session_id is required"):
        fxlab.replay("exec_20240808_235413")


@pytest.mark.parametrize(
    ("time", "words"),
    [
        ("2024-12-31T23:59", r"2024-12-31 23:59:00\+00:00 is outside of this replay; seek a time"),
        ("2025-01-09", "is outside of this replay"),
        ("tomorrow", "time='tomorrow' is not a time"),
        (None, "time is missing"),
    ],
)
def test_a_place_outside_of_the_replay_is_refused(time, words):
    replay = fxlab.replay(two_symbols(), speed=AT_ONCE)
    with pytest.raises(InvalidTimeRange, match=words):
        replay.seek(time)
    assert not next(replay).sought


def test_both_ends_can_be_sought():
    ticks = two_symbols()
    replay = fxlab.replay(ticks, speed=AT_ONCE)
    first, last = replay.bounds
    replay.seek(first)
    assert next(replay).progress == 0
    replay.seek(last)
    assert next(replay).timestamp == last == moment(ticks, -1)


def test_ticks_out_of_order_stop_the_replay_with_a_sentence():
    ticks = random_walk(100)
    shuffled = pl.concat([ticks.head(60), ticks.tail(40).reverse()])
    replay = fxlab.replay(shuffled, speed=AT_ONCE, chunk_rows=50, batch_size=10)
    seen = []
    with pytest.raises(InvalidTicks, match="does not come after the row before it"):
        seen.extend(replay)
    assert replay.state == "stopped"
    assert list(replay) == []


def test_a_replay_reads_as_text():
    replay = fxlab.replay(two_symbols(), speed=AT_ONCE, batch_size=200, **SMA)
    next(replay)
    assert repr(replay).startswith(
        "<Replay of sma_cross on frame: A, B; running at 2025-01-01 00:00:"
    )
    assert repr(replay).endswith("25.0% of 800 ticks, speed inf>")


# ---- sessions --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session(lab, unique):
    made = unique("replay")
    lab.import_frames({"prices": two_symbols(3_000)}, session_id=made)
    return lab.session(made)


@pytest.fixture(scope="module")
def quotes(lab, unique):
    """Store a session of quotes only, some of them with one side."""
    walk = random_walk(500)
    bid = pl.col("price")
    one_sided = pl.int_range(pl.len()) % 7 == 3
    books = walk.select(
        "timestamp",
        pl.lit("EUR/USD").alias("symbol"),
        pl.col("seq").alias("last_update_id"),
        bid.alias("bid_price_1"),
        pl.lit(1.0).alias("bid_qty_1"),
        pl.when(~one_sided).then(bid + 0.02).alias("ask_price_1"),
        pl.when(~one_sided).then(1.0).alias("ask_qty_1"),
    )
    made = unique("quotes")
    lab.import_frames({"orderbook": books}, session_id=made)
    return lab.session(made)


def test_a_session_is_replayed_as_its_backtest_runs(session):
    replay = fxlab.replay(session, speed=AT_ONCE, chunk_rows=1_000, **SMA)
    batches = list(replay)
    expected = fxlab.backtest(session, *SMA.values())
    assert_same(replay.result, expected)
    assert fills_of(batches).equals(expected.fills)
    assert {"volume", "side", "quote_volume"} <= set(batches[0].frame.columns)
    assert replay.result.prices.equals(expected.prices)
    assert replay.result.run.source is session


def test_quotes_are_replayed_on_their_mid(quotes):
    replay = fxlab.replay(quotes, speed=AT_ONCE, **SMA)
    frame = merged(replay)
    assert frame.height == quotes.count_ticks() < quotes.orderbook_count
    assert replay.progress == 1.0
    assert {"bid_price_1", "ask_price_1"} <= set(frame.columns)
    assert_same(replay.result, fxlab.backtest(quotes, *SMA.values()))


@pytest.mark.parametrize("kind", ["session", "quotes", "frame"])
def test_ticks_are_counted_as_they_are_read(kind, request):
    source = FrameSource(two_symbols()) if kind == "frame" else request.getfixturevalue(kind)
    for symbol in source.symbols:
        times = pl.concat(source.scan_ticks(symbol))["timestamp"]
        middle, end = times[len(times) // 3], times[len(times) // 2]
        for span in ({}, {"start": middle}, {"start": middle, "end": end}):
            read = sum(chunk.height for chunk in source.scan_ticks(symbol, **span))
            assert source.count_ticks(symbol, **span) == read > 0
        assert source.count_ticks(symbol, start=datetime(2031, 1, 1, tzinfo=UTC)) == 0
