"""The shipped strategies, each against the plain loop that its docstring describes."""

from __future__ import annotations

import re
import statistics
from dataclasses import replace
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from markets import SMALL, random_walk

import fxlab
from fxlab import errors
from fxlab.backtester._frame_source import FrameSource
from fxlab.backtester._source import with_price_ticks
from fxlab.backtester.strategy._decisions import decide
from fxlab.backtester.strategy.signals import Signals
from fxlab.backtester.strategy.strategy import Bounds, get, names

DESIGNED = [
    "sma_cross", "ema_cross", "mean_reversion", "breakout", "momentum", "book_imbalance",
    "vwap_reversion", "buy_and_hold",
]  # fmt: skip
EXITS = ("stop_loss", "take_profit", "trailing_stop")


def decided(name, frame, **parameters):
    """Return {row: target} of all rows with one, repeats and warm-up left out."""
    signals = get(name).signals({**SMALL[name], **parameters})
    found = decide(signals, "X", with_price_ticks(frame, 2))
    return dict(zip(found["row"].tolist(), found["target"].tolist(), strict=True))


def changes(targets, warmup=0, *, repeats=False):
    """Return {row: target} of a list of targets, as the engine takes them."""
    found, last = {}, None
    for row, target in enumerate(targets):
        if target is None or row < warmup:
            continue
        if repeats or target != last:
            found[row] = target
        last = target
    return found


def cents(frame):
    return [round(price * 100) for price in frame["price"]]


def sma_cross(frame, fast, slow):
    ticks, targets, before = cents(frame), [], None
    for i in range(len(ticks)):
        now = None
        if i >= slow - 1:
            means = [Fraction(sum(ticks[i - n + 1 : i + 1]), n) for n in (fast, slow)]
            now = (means[0] > means[1]) - (means[0] < means[1])
        known = now is not None and before is not None
        targets.append(
            1.0 if known and before <= 0 < now else 0.0 if known and now < 0 <= before else None
        )
        before = now
    return changes(targets)


def ema_cross(frame, fast, slow):
    prices = frame["price"].to_list()
    means, above, targets = [prices[0]] * 2, None, []
    for price in prices:
        means = [m + 2 / (n + 1) * (price - m) for m, n in zip(means, (fast, slow), strict=True)]
        was, above = above, means[0] > means[1]
        targets.append(float(above) if was is not None and above != was else None)
    return changes(targets, slow)


def fade(prices, averages, entry_bps):
    """Return long below, short above, flat when the price meets its average again."""
    margin, targets, side = entry_bps / 10_000, [], None
    for price, average in zip(prices, averages, strict=True):
        if average is None:
            targets.append(None)
            side = None
            continue
        was, side = side, (price > average) - (price < average)
        if price < average * (1 - margin):
            targets.append(1.0)
        elif price > average * (1 + margin):
            targets.append(-1.0)
        else:
            targets.append(0.0 if was is not None and was * side <= 0 and was != 0 else None)
    return targets


def mean_reversion(frame, window, entry_bps):
    ticks = cents(frame)
    sums = [
        None if i < window - 1 else sum(ticks[i - window + 1 : i + 1]) for i in range(len(ticks))
    ]
    return changes(fade([tick * window for tick in ticks], sums, entry_bps))


def vwap_reversion(frame, anchor_hours, entry_bps):
    averages, hour = [], None
    for moment, price, volume in frame.select("timestamp", "price", "volume").iter_rows():
        if moment.hour // anchor_hours != hour:
            hour, total, weight = moment.hour // anchor_hours, 0.0, 0.0
        total, weight = total + price * volume, weight + volume
        averages.append(total / weight)
    return changes(fade(frame["price"].to_list(), averages, entry_bps))


def momentum(frame, window, threshold_bps):
    ticks, targets = cents(frame), []
    margin = threshold_bps / 10_000
    for i in range(len(ticks)):
        if i < window:
            targets.append(None)
            continue
        now, then = ticks[i], ticks[i - window]
        was = None if i == window else ticks[i - 1] - ticks[i - 1 - window]
        gone = was is not None and ((now <= then and was > 0) or (now >= then and was < 0))
        if now > then * (1 + margin):
            targets.append(1.0)
        elif now < then * (1 - margin):
            targets.append(0.0)
        else:
            targets.append(0.0 if gone else None)
    return changes(targets)


def book_imbalance(frame, threshold):
    targets, before = [], None
    for bid, ask in frame.select("bid_qty_1", "ask_qty_1").iter_rows():
        now = (bid - ask) / (bid + ask)
        if abs(now) > threshold:
            targets.append(1.0 if now > 0 else -1.0)
        else:
            turned = before is not None and (now <= 0 < before or before < 0 <= now)
            targets.append(0.0 if turned else None)
        before = now
    return changes(targets)


@pytest.mark.parametrize("seed", range(4))
def test_trend_strategies_are_their_loops(seed):
    frame = random_walk(400, seed)
    assert decided("sma_cross", frame) == sma_cross(frame, 3, 8)
    assert decided("ema_cross", frame) == ema_cross(frame, 3, 8)
    assert decided("momentum", frame) == momentum(frame, 7, 6.0)
    assert decided("buy_and_hold", frame, exposure=-0.5) == {0: -0.5}


@pytest.mark.parametrize("seed", range(4))
def test_strategies_of_return_are_their_loops(seed):
    frame = random_walk(400, seed)
    assert decided("mean_reversion", frame) == mean_reversion(frame, 6, 8.0)
    assert decided("vwap_reversion", frame) == vwap_reversion(frame, 1, 8.0)


@pytest.mark.parametrize("seed", range(4))
def test_the_breakout_leaves_by_the_shorter_channel(seed):
    frame = random_walk(400, seed)
    ticks = cents(frame)
    targets = [
        None
        if i < 9
        else 1.0
        if ticks[i] > max(ticks[i - 9 : i])
        else 0.0
        if ticks[i] < min(ticks[i - 4 : i])
        else None
        for i in range(400)
    ]
    assert decided("breakout", frame) == changes(targets)


def test_the_bracket_opens_and_leaves_the_rest_to_its_exits():
    frame = random_walk(400, 2)
    ticks = cents(frame)
    targets = [
        None
        if i < 9
        else 1.0
        if ticks[i] > max(ticks[i - 9 : i])
        else -1.0
        if ticks[i] < min(ticks[i - 9 : i])
        else None
        for i in range(400)
    ]
    assert decided("bracket_breakout", frame) == changes(targets, repeats=True)
    signals = get("bracket_breakout").signals(
        {"stop_bps": 25.0, "profit_bps": 0.0, "trail_bps": 50.0, "hold_seconds": 90.0}
    )
    assert [getattr(signals, name) for name in EXITS] == [0.0025, None, 0.005]
    assert (signals.max_holding_us, signals.reentry) == (90_000_000, "signal")
    assert get("bracket_breakout").signals().max_holding is None


@pytest.mark.parametrize("seed", range(4))
def test_the_imbalance_is_that_of_the_shown_quantities(seed):
    frame = random_walk(400, seed)
    assert decided("book_imbalance", frame) == book_imbalance(frame, 0.3)


def test_an_empty_book_leans_nowhere():
    frame = random_walk(5).with_columns(bid_qty_1=0.0, ask_qty_1=pl.lit(None, pl.Float64))
    assert decided("book_imbalance", frame) == {}


def test_bollinger_bands_are_those_of_the_closes_of_ended_bars():
    frame = random_walk(600, 4)
    bars = {}
    for row, (moment, price) in enumerate(frame.select("timestamp", "price").iter_rows()):
        bar = bars.setdefault(int(moment.timestamp()) // 2, [row, None])
        bar[1] = price
    first_rows, closes = zip(*bars.values(), strict=True)
    targets = [None] * 600
    side = None
    for i in range(3, len(closes) - 1):
        window = closes[i - 3 : i + 1]
        middle, band = statistics.fmean(window), statistics.pstdev(window)
        was, side = side, (closes[i] > middle) - (closes[i] < middle)
        if abs(closes[i] - middle) > band:
            targets[first_rows[i + 1]] = 1.0 if closes[i] < middle else -1.0
        elif was is not None and was != 0 and was * side <= 0:
            targets[first_rows[i + 1]] = 0.0
    assert decided("bollinger_bars", frame) == changes(targets)
    assert len(changes(targets)) > 10


# ---- all of them ---------------------------------------------------------------------------


def test_the_designed_ones_are_there_and_all_have_small_parameters():
    shipped = {n for n in names() if get(n).function.__module__.startswith("fxlab.backtester.")}
    assert set(DESIGNED) < shipped == set(SMALL)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_each_says_its_idea_its_parameters_with_ranges_and_its_source(name):
    strategy = get(name)
    assert strategy.title.endswith(".")
    assert re.search(r"References\n-+\n.+\((19|20)\d\d\), \"", strategy.doc)
    for parameter in strategy.parameters.values():
        assert parameter.doc != parameter.name
        if parameter.kind in (int, float):
            assert isinstance(parameter.bounds, Bounds)
            for bound in (parameter.bounds.minimum, parameter.bounds.maximum):
                assert parameter.check(parameter.kind(bound)) == bound


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"buy_and_hold"}))
def test_each_decides_often_and_on_nothing_but_what_it_says(name):
    signals = get(name).signals(SMALL[name])
    frame = with_price_ticks(random_walk(800, 6), 2)
    whole = decide(signals, "X", frame)
    assert len(whole) > 10
    assert set(np.unique(whole["target"])) <= {-1.0, 0.0, 1.0}
    needed = frame.select(sorted({"timestamp", *signals.roots} & set(frame.columns)))
    if signals.every is None:
        assert decide(signals, "X", needed).tobytes() == whole.tobytes()


@pytest.mark.parametrize("name", sorted(n for n in SMALL if get(n).signals().lookback is not None))
def test_each_needs_no_more_rows_than_it_says(name):
    signals = get(name).signals(SMALL[name])
    frame = with_price_ticks(random_walk(300, 8), 2)
    whole = decide(signals, "X", frame)
    for place in range(20, 300, 7):
        begin = max(0, place - (signals.lookback or 0))
        found = decide(signals, "X", frame[begin:], first=place - begin, seen=place)
        later = whole[whole["row"] >= place]
        assert found[len(found) - len(later) :]["target"].tolist() == later["target"].tolist()
        assert (found["row"][len(found) - len(later) :] + place).tolist() == later["row"].tolist()


def test_warm_ups_drop_no_decision_that_was_possible():
    frame = with_price_ticks(random_walk(300, 8), 2)
    for name, given in SMALL.items():
        signals = get(name).signals(given)
        if name in ("ema_cross", "breakout"):  # these may decide early, on half of the evidence
            continue
        cold = Signals(
            target=signals.target, every=signals.every, reentry=signals.reentry, warmup=0
        )
        rows = [decide(each, "X", frame)["row"].tolist() for each in (signals, cold)]
        assert rows[0] == rows[1], name


SHORTCUTS = [
    ("sma_cross", {"fast": 5, "slow": 13, "allow_short": True}),
    ("ema_cross", {"fast": 3, "slow": 8, "allow_short": True}),
    ("ema_cross", {"fast": 30, "slow": 31}),
    ("momentum", {"window": 7, "threshold_bps": 6.0}),
    ("momentum", {"window": 1, "threshold_bps": 0.0, "allow_short": True}),
    ("momentum", {"window": 300, "threshold_bps": 50.0, "allow_short": True}),
    ("mean_reversion", {"window": 6, "entry_bps": 8.0}),
    ("mean_reversion", {"window": 2, "entry_bps": 0.0, "allow_short": False}),
    ("mean_reversion", {"window": 150, "entry_bps": 30.0, "allow_short": False}),
    ("breakout", {"entry": 13, "leave": 5}),
    ("breakout", {"entry": 1, "leave": 1}),
    ("breakout", {"entry": 700, "leave": 90}),
    ("bracket_breakout", {"entry": 9}),
    ("bracket_breakout", {"entry": 9, "allow_short": False, "trail_bps": 7.0}),
    ("bracket_breakout", {"entry": 2, "cooldown_seconds": 1.0}),
]


@pytest.mark.parametrize(("name", "given"), SHORTCUTS)
def test_shortcuts_are_the_targets(name, given):
    frame = with_price_ticks(random_walk(2_000, 9), 2)
    signals = get(name).signals(given)
    slow = replace(signals, events=None)
    assert signals.events is not None
    shared = {}
    for first in (0, 13, 700):
        found = [
            decide(one, "X", frame, first=first, seen=first, shared=shared)
            for one in (signals, slow)
        ]
        assert found[0].tobytes() == found[1].tobytes()
    assert len(found[0]) > 3


def test_all_shortcuts_are_tried_and_leave_the_source_alone():
    there = {name for name in names() if get(name).signals(SMALL.get(name)).events is not None}
    assert there == {name for name, _ in SHORTCUTS}
    assert "ChannelBreak" not in get("breakout").source


def test_book_imbalance_runs_on_trades_with_books_and_on_quotes():
    ticks = random_walk(300, 3)
    quotes = ticks.select(
        "timestamp", "seq", "bid_qty_1", "ask_qty_1",
        bid_price_1=pl.col("price") - 0.01, ask_price_1=pl.col("price") + 0.01,
    )  # fmt: skip
    parameters = {"levels": 3, "threshold": 0.3}  # two of the levels are not there
    for source in (FrameSource(ticks.select("timestamp", "price"), books=quotes), quotes):
        result = fxlab.backtest(source, "book_imbalance", parameters)
        assert result.fills.height > 20


def test_strategies_say_what_a_session_lacks():
    trades = random_walk(50).drop("bid_qty_1", "ask_qty_1")
    lacks = r"book_imbalance' .*has no order books of TICKS"
    with pytest.raises(errors.InvalidParameter, match=lacks):
        fxlab.backtest(trades, "book_imbalance")
    quotes = trades.select("timestamp", bid_price_1=pl.col("price"), ask_price_1=pl.col("price"))
    with pytest.raises(errors.InvalidParameter, match=r"vwap_reversion' .* asks for 'volume'"):
        fxlab.backtest(quotes, "vwap_reversion")
