"""The twin itself, on markets small enough to work out by hand.

Times are row numbers (µs), capital is 1,000, and there is no fee unless a test says so; the sums
stand beside the figures.
"""

from __future__ import annotations

import math

import pytest
from twin import drawdown, replay, replay_leg
from twin_market import (
    Exits,
    Flag,
    Rate,
    Reason,
    Status,
    TwinBook,
    TwinDecision,
    TwinRow,
    TwinTerms,
)

CAPITAL = 1_000.0
BUY, SELL, FLAT = TwinDecision(1.0), TwinDecision(-1.0), TwinDecision(0.0)


def prints(prices, decisions, *, leg="A", **more):
    """Return one trade a microsecond; decisions by row number; None is no trade then."""
    return [
        TwinRow(now, leg, float(price), decision=decisions.get(now), **more)
        for now, price in enumerate(prices)
        if price is not None
    ]


def run(rows, legs="A", **terms):
    return replay(rows, list(legs), TwinTerms(**terms), CAPITAL)


def waiting(delay):
    return lambda _leg, _count, _row: delay


def fills(result):
    return [(fill.time, fill.price, fill.qty) for fill in result.fills]


def statuses(result):
    return [order.status for order in result.orders]


def reasons(result):
    return [fill.reason for fill in result.fills]


# ---- Market orders at prints ----


def test_a_market_order_fills_at_the_next_print_and_keeps_its_fee_back():
    result = run(prints([90, 100, 110], {0: BUY}), taker=0.25)
    # 1000 / (100 * 1.25) = 8; fee 8 * 100 * 0.25 = 200; cash 0; 8 * 110 = 880
    assert fills(result) == [(1, 100.0, 8.0)]
    assert (result.fills[0].fee, result.cash["A"], result.equity) == (200.0, 0.0, 880.0)
    (trade,) = result.trades
    assert (trade.exited_at, trade.pnl, trade.fees) == (None, 880.0 - 1_000.0, 200.0)
    assert (trade.low, trade.high) == (100.0, 110.0)


def test_a_rebate_is_not_spent_in_advance():
    result = run(prints([100, 100], {0: BUY}), taker=-0.25)
    # 1000 / 100 = 10; rebate 250
    assert fills(result) == [(1, 100.0, 10.0)]
    assert result.equity == 1_250.0


def test_latency_waits_for_a_row_that_is_late_enough():
    for delay, row in ((0, 1), (1, 1), (2, 2), (3, 3)):
        result = run(prints([100] * 5, {0: BUY}), delay=waiting(delay))
        assert [fill.time for fill in result.fills] == [row]
        assert result.orders[0].ready_at == delay


def test_drawn_latency_is_asked_for_order_by_order():
    rows = prints([100] * 8, {0: BUY, 3: FLAT})
    result = run(rows, delay=lambda _leg, count, _row: [2, 1][count])
    assert [(order.decided_at, order.ready_at) for order in result.orders] == [(0, 2), (3, 4)]


def test_slippage_is_against_us_and_rounded_to_a_tick_against_us():
    rows = prints([100, 100, 100], {0: BUY, 1: FLAT})
    # 100 * 1.001 = 100.1, up to 100.5; 100 * 0.999 = 99.9, down to 99.5
    result = run(rows, slippage=0.001, tick_size={"A": 0.5})
    assert [fill.price for fill in result.fills] == [100.5, 99.5]
    plain = run(rows, slippage=0.001)
    assert [fill.price for fill in plain.fills] == pytest.approx([100.1, 99.9], rel=1e-15)


def test_a_price_on_the_grid_stays_as_it_is():
    rows = prints([0.3, 0.3], {0: BUY})  # 3 * 0.1 is 0.30000000000000004
    assert run(rows, tick_size={"A": 0.1}).fills[0].price == 0.3


def test_impact_grows_with_the_square_root_of_notional():
    # 1,000 of notional against 4,000: sqrt(1/4) = 1/2 of 0.02
    result = run(prints([100, 100], {0: BUY}), impact=0.02, impact_notional=4_000.0)
    assert result.fills[0].price == pytest.approx(101.0, rel=1e-15)
    assert result.fills[0].qty == pytest.approx(1_000 / 101.0)


def test_a_flip_sizes_the_new_side_by_what_closing_leaves():
    rows = prints([100, 100, 125, 100], {0: BUY, 1: SELL})
    result = run(rows)
    # long 10; at 125 worth 1250; short 1250 / 125 = 10: sells 20 in one fill
    assert fills(result) == [(1, 100.0, 10.0), (2, 125.0, -20.0)]
    first, second = result.trades
    assert (first.direction, first.exited_at, first.pnl) == (1, 2, 250.0)
    assert (second.direction, second.entered_at, second.pnl) == (-1, 2, 250.0)
    assert result.equity == 1_500.0


def test_a_flip_pays_the_closing_fee_before_it_sizes():
    rows = prints([100, 100, 100], {0: BUY, 1: SELL})
    result = run(rows, taker=0.25)
    # long 8, cash 0. closing: 800 - 200 = 600. short 600 / 125 = 4.8: sells 12.8 for a fee of 320
    assert result.fills[1].qty == pytest.approx(-12.8)
    assert result.fills[1].fee == pytest.approx(320.0)
    closed, opened = result.trades
    assert (closed.fees, opened.fees) == (pytest.approx(400.0), pytest.approx(120.0))


def test_a_flip_that_leaves_nothing_only_closes():
    rows = prints([100, 100, 50, 50], {0: TwinDecision(1.5), 1: TwinDecision(-0.5)})
    result = run(rows, taker=0.5, max_leverage=2.0)
    # 1500 / 150 = 10 bought, fee 500: cash -500. at 50 equity is 0 before the closing fee
    assert statuses(result) == [Status.FILLED, Status.FILLED]
    assert fills(result)[1] == (2, 50.0, -10.0)
    assert (result.equity, result.ruined_at) == (-250.0, 2)
    richer = run(
        prints([100, 100, 60, 60], {0: TwinDecision(1.5), 1: TwinDecision(-0.5)}), taker=0.5
    )
    # at 60 equity is 100, closing costs 300: only the close
    assert fills(richer)[1] == (2, 60.0, -10.0)
    assert statuses(richer) == [Status.FILLED, Status.FILLED]
    assert richer.equity == -200.0


def test_every_decision_has_its_end():
    rows = prints([100] * 6, {0: BUY, 1: FLAT, 3: SELL, 5: BUY})
    result = run(rows, delay=waiting(2))
    assert [(order.status, order.done_at) for order in result.orders] == [
        (Status.REPLACED, 1),  # 0: long, replaced before it was due
        (Status.UNCHANGED, 1),  # 1: flat, as held
        (Status.FILLED, 5),  # 3: short
        (Status.OPEN, 5),  # 5: long, on the last row
    ]


def test_a_lost_account_is_liquidated_and_trades_no_more():
    result = run(prints([100, 100, 300, 300, 300, 300], {0: SELL, 3: BUY}))
    # short 10 at 100; at 300 equity is 2000 - 3000 = -1000
    assert reasons(result) == [Reason.SIGNAL, Reason.LIQUIDATION]
    assert statuses(result) == [Status.FILLED, Status.FILLED, Status.NO_EQUITY]
    assert result.equity == -1_000.0


def test_a_reversal_of_a_lost_position_closes_it_first():
    targets = {0: BUY, 1: SELL, 3: BUY}
    result = run(prints([1, 1, 2, 3, 4, 5], targets))
    # 1000 at 1; at 2 short 1000, cash 4000; at 3 equity is 1000, at 4 it is 0
    assert fills(result) == [(1, 1.0, 1_000.0), (2, 2.0, -2_000.0), (4, 4.0, 1_000.0)]
    assert reasons(result) == [Reason.SIGNAL] * 3
    assert (result.equity, result.ruined_at) == (0.0, 4)
    worse = run(prints([1, 1, 2, 3, 4.5, 5], targets))
    assert fills(worse)[2] == (4, 4.5, 1_000.0)  # below zero the same
    assert worse.equity == -500.0


def test_what_is_worth_nothing_beside_the_account_is_no_trade():
    prices = [71.36, 71.36, 70.6536, 70.6536, 70.86556079999998, 70.6536, 70.6536]
    for shared in (False, True):
        terms = {"max_leverage": 100.0, "rebalance": 1e-3, "shared_cash": shared}
        result = run(prints(prices, {0: TwinDecision(100.0)}), **terms)
        # out of its band at 70.87; when the order is due the price is that of the last fill again
        assert statuses(result) == [Status.FILLED, Status.FILLED, Status.UNCHANGED]


def test_prices_of_the_grid_are_filled_as_they_are_however_fine_it_is():
    for price, tick in ((150_000.02, 0.01), (1.00000002, 1e-8), (70_000.001, 0.001), (0.3, 0.1)):
        for decision in (BUY, SELL):
            result = run(prints([price, price], {0: decision}), tick_size={"A": tick})
            assert result.fills[0].price == price
    off = run(prints([1.00000002, 1.000000025], {0: BUY}), tick_size={"A": 1e-8})
    assert off.fills[0].price == 1.00000003


def test_lots_are_floored_and_the_closing_part_of_a_flip_is_exact():
    rows = prints([300, 300, 200, 200], {0: BUY, 1: SELL})
    result = run(rows, lot_size={"A": 1.0})
    # 3.33 -> 3, cash 100. at 200: equity 700, short 3.5 -> 3: sells 3 + 3
    assert [fill.qty for fill in result.fills] == [3.0, -6.0]
    nothing = run(rows, lot_size={"A": 4.0})
    assert statuses(nothing)[0] == Status.TOO_SMALL


def test_a_notional_that_is_too_small_is_refused_but_closing_is_not():
    rows = prints([100, 100, 100, 10, 10], {0: TwinDecision(0.5), 2: FLAT})
    assert statuses(run(rows, min_notional={"A": 501.0}))[0] == Status.TOO_SMALL
    result = run(rows, min_notional={"A": 500.0})  # closing 5 * 10 = 50
    assert [fill.qty for fill in result.fills] == [5.0, -5.0]


def test_close_at_end_sells_at_the_mark_worse_by_slippage():
    result = run(prints([100, 100, 200], {0: BUY}), slippage=0.25, close_at_end=True)
    # 1000 / 125 = 8; sold at 200 * 0.75 = 150: 1200
    assert fills(result) == [(1, 125.0, 8.0), (2, 150.0, -8.0)]
    assert reasons(result) == [Reason.SIGNAL, Reason.END]
    assert (result.equity, result.trades[0].pnl) == (1_200.0, 200.0)


# ---- Exits ----


def with_exits(target=1.0, **exits):
    return TwinDecision(target, Exits(**exits))


def test_a_stop_loss_triggers_on_a_print_and_fills_at_the_next():
    rows = prints([100, 100, 76, 75, 70, 80], {0: with_exits(stop_loss=0.25)})
    result = run(rows)
    # level 75: reached at row 3, sold at row 4
    assert fills(result) == [(1, 100.0, 10.0), (4, 70.0, -10.0)]
    order = result.orders[1]
    assert (order.reason, order.decided_at, order.target) == (Reason.STOP_LOSS, 3, 0.0)
    assert result.trades[0].reason == Reason.STOP_LOSS


def test_a_short_stops_above():
    rows = prints([100, 100, 124, 125, 130], {0: with_exits(-1.0, stop_loss=0.25)})
    assert fills(run(rows)) == [(1, 100.0, -10.0), (4, 130.0, 10.0)]


def test_the_row_of_a_fill_triggers_nothing():
    rows = prints([100, 100, 50, 200], {0: with_exits(stop_loss=0.25)})
    late = run(rows, delay=waiting(2))  # bought at 50 itself
    assert fills(late) == [(2, 50.0, 20.0)]


def test_a_stop_looks_at_the_average_entry():
    more = with_exits(1.0, stop_loss=0.25)
    rows = prints([100, 100, 200, 200, 150, 110, 110], {0: with_exits(0.5), 2: more})
    # 5 at 100; at 200 worth 1500: wants 7.5, buys 2.5 more: entry (500 + 500) / 7.5 = 133.3
    assert run(rows).trades[0].entry_price == pytest.approx(1_000 / 7.5)
    assert [fill.time for fill in run(rows).fills] == [1, 3]  # 110 is above 100
    deeper = prints([100, 100, 200, 200, 150, 100, 90], {0: with_exits(0.5), 2: more})
    assert [fill.time for fill in run(deeper).fills] == [1, 3, 6]


def test_a_trailing_stop_follows_the_best_price_since_the_entry():
    rows = prints([100, 100, 200, 160, 150, 140], {0: with_exits(trailing_stop=0.25)})
    # best 200, level 150: reached at row 4
    assert fills(run(rows)) == [(1, 100.0, 10.0), (5, 140.0, -10.0)]
    at_once = prints([100, 100, 75, 70], {0: with_exits(trailing_stop=0.25)})
    assert run(at_once).fills[1].time == 3  # best is the entry


def test_a_short_trails_below():
    rows = prints([100, 100, 40, 49, 50, 60], {0: with_exits(-1.0, trailing_stop=0.25)})
    assert [fill.time for fill in run(rows).fills] == [1, 5]


def test_a_position_is_held_no_longer_than_allowed():
    result = run(prints([100] * 8, {0: BUY}), max_holding=3)
    assert reasons(result) == [Reason.SIGNAL, Reason.MAX_HOLDING]
    assert [fill.time for fill in result.fills] == [1, 5]  # 1 + 3 = 4, filled at the next row


def test_a_take_profit_fills_at_its_level_once_a_print_goes_through():
    rows = prints([100, 100, 125, 126, 90], {0: with_exits(take_profit=0.25)})
    result = run(rows, taker=0.25, maker=0.125)
    # 8 bought; sold at 125 for a fee of 8 * 125 / 8 = 125
    assert fills(result) == [(1, 100.0, 8.0), (3, 125.0, -8.0)]
    assert (result.fills[1].fee, result.fills[1].maker) == (125.0, True)
    order = result.orders[1]
    assert (order.decided_at, order.ready_at, order.done_at) == (1, 1, 3)
    touched = run(rows, taker=0.25, maker=0.125, touch=True)
    assert touched.fills[1].time == 2


def test_a_short_takes_profit_below():
    rows = prints([100, 100, 75, 74], {0: with_exits(-1.0, take_profit=0.25)})
    assert fills(run(rows)) == [(1, 100.0, -10.0), (3, 75.0, 10.0)]


def test_a_take_profit_is_rounded_passively():
    rows = prints([100, 100, 126, 129], {0: with_exits(take_profit=0.25)})
    assert fills(run(rows, tick_size={"A": 10.0}))[1:] == []  # 125 up to 130
    assert fills(run(rows, tick_size={"A": 4.0}))[1] == (3, 128.0, -10.0)


def test_a_take_profit_ends_a_stop_on_its_way_and_leaves_the_strategys_order():
    both = with_exits(stop_loss=0.25, take_profit=0.25)
    rows = prints([100, 100, 100, 75, 130, 130], {0: both})
    result = run(rows, delay=lambda _leg, count, _row: [0, 9][count])
    assert statuses(result) == [Status.FILLED, Status.UNCHANGED, Status.FILLED]
    assert reasons(result) == [Reason.SIGNAL, Reason.TAKE_PROFIT]
    rows = prints([100, 100, 100, 130, 130], {0: both, 2: TwinDecision(0.5)})
    result = run(rows, delay=lambda _leg, count, _row: [0, 2][count])
    # sold 10 at 125 = 1250; the strategy's order then buys half: 625 / 130
    assert reasons(result) == [Reason.SIGNAL, Reason.TAKE_PROFIT, Reason.SIGNAL]
    assert result.fills[2].qty == pytest.approx(625 / 130)


def test_a_take_profit_ends_a_resting_order_that_was_sized_for_its_position():
    rows = prints(
        [100, 100, 100, 130, 200], {0: with_exits(take_profit=0.25), 1: buy_at(150.0, 0.0)}
    )
    result = run(rows)
    assert statuses(result) == [Status.FILLED, Status.REPLACED, Status.FILLED]
    assert result.positions["A"] == 0.0


def test_a_newer_decision_replaces_a_stop_which_fires_again():
    rows = prints([100, 100, 70, 70, 70, 70], {0: with_exits(stop_loss=0.25), 3: TwinDecision(0.5)})
    result = run(rows, delay=lambda _leg, count, _row: [0, 3, 0, 0][count])
    assert [(o.reason, o.status) for o in result.orders] == [
        (Reason.SIGNAL, Status.FILLED),
        (Reason.STOP_LOSS, Status.REPLACED),
        (Reason.SIGNAL, Status.FILLED),  # at row 4, without a stop of its own
    ]
    keeps = {0: with_exits(stop_loss=0.25), 3: with_exits(0.5, stop_loss=0.25)}
    rows = prints([100, 100, 70, 70, 70, 70, 70], keeps)
    again = run(rows, delay=lambda _leg, count, _row: [0, 3, 0, 0][count])
    assert reasons(again) == [Reason.SIGNAL, Reason.SIGNAL, Reason.STOP_LOSS]


def test_after_a_forced_exit_only_news_enters_again_unless_any_signal_may():
    always = dict.fromkeys(range(9), with_exits(stop_loss=0.25))
    rows = prints([100, 100, 75, 75, 75, 75], always)
    assert reasons(run(rows)) == [Reason.SIGNAL, Reason.STOP_LOSS]
    assert reasons(run(rows, reenter=True)) == [Reason.SIGNAL, Reason.STOP_LOSS, Reason.SIGNAL]


def test_a_cooldown_refuses_entries_and_remembers_nothing_of_them():
    always = dict.fromkeys(range(3, 9), BUY) | {0: with_exits(0.5, stop_loss=0.25)}
    rows = prints([100, 100, 75, 75, 75, 75, 75, 75], always)
    result = run(rows, cooldown=3)
    # the stop decided at row 2 fills at row 3; entries are refused at rows 3, 4, 5
    assert statuses(result)[2:] == [Status.COOLING_DOWN] * 3 + [Status.FILLED]
    assert result.orders[5].decided_at == 6


# ---- Limit orders ----


def buy_at(limit, target=1.0, **exits):
    return TwinDecision(target, Exits(**exits), limit)


def test_a_limit_order_that_the_market_meets_on_arrival_is_a_taker():
    result = run(prints([100, 100], {0: buy_at(125.0)}), taker=0.25, maker=-0.1)
    # sized at its limit: 1000 / (125 * 1.25) = 6.4, bought at 100
    assert fills(result) == [(1, 100.0, 6.4)]
    assert (result.fills[0].maker, result.fills[0].fee) == (False, 160.0)


def test_a_limit_order_rests_until_a_print_goes_through():
    rows = prints([100, 100, 80, 79, 90], {0: buy_at(80.0)})
    result = run(rows, maker=0.25)
    # 1000 / (80 * 1.25) = 10
    assert fills(result) == [(3, 80.0, 10.0)]
    assert (result.fills[0].maker, result.fills[0].fee) == (True, 200.0)
    assert run(rows, maker=0.25, touch=True).fills[0].time == 2


def test_a_limit_order_sells_above():
    rows = prints([100, 100, 125, 126], {0: buy_at(125.0, -1.0)})
    assert fills(run(rows)) == [(3, 125.0, -8.0)]


def test_a_limit_price_is_rounded_passively():
    rows = prints([100, 100, 85, 79], {0: buy_at(89.0)})
    assert fills(run(rows, tick_size={"A": 10.0})) == [(3, 80.0, 12.5)]
    rows = prints([100, 100, 115, 121], {0: buy_at(111.0, -1.0)})
    assert run(rows, tick_size={"A": 10.0}).fills[0].price == 120.0


def test_a_limit_order_does_not_fill_at_the_row_of_its_arrival():
    rows = prints([100, 70, 90], {0: buy_at(80.0)})
    assert fills(run(rows)) == [(1, 70.0, 12.5)]  # the market is better: a taker
    late = run(prints([100, 70, 90, 90], {0: buy_at(80.0)}), delay=waiting(2))
    assert statuses(late) == [Status.OPEN]


def test_a_resting_order_is_replaced_by_a_decision_and_by_a_stop():
    rows = prints([100] * 6, {0: buy_at(80.0), 3: FLAT})
    assert statuses(run(rows)) == [Status.REPLACED, Status.UNCHANGED]
    rows = prints([100, 100, 100, 75, 75], {0: with_exits(stop_loss=0.25), 1: buy_at(150.0, 0.0)})
    result = run(rows)
    assert statuses(result) == [Status.FILLED, Status.REPLACED, Status.FILLED]
    assert reasons(result)[1] == Reason.STOP_LOSS


# ---- Gaps ----


def test_an_order_bridges_no_gap_unless_it_may():
    rows = prints([100, None, None, 100, 100], {0: BUY})
    assert statuses(run(rows, gaps=(("A", 2),))) == [Status.GAP]
    assert statuses(run(rows, gaps=(("A", 0),))) == [Status.FILLED]
    assert statuses(run(rows, gaps=(("B", 2),))) == [Status.FILLED]
    allowed = run(rows, gaps=(("A", 2),), across_gaps=True)
    assert allowed.fills[0].flags == Flag.GAP


def test_a_gap_cancels_a_resting_order_and_only_marks_a_stop():
    rows = prints([100, 100, 100, 70, 70], {0: buy_at(80.0)})
    assert statuses(run(rows, gaps=(("A", 3),))) == [Status.GAP]
    rows = prints([100, 100, 70, 70], {0: with_exits(stop_loss=0.25)})
    result = run(rows, gaps=(("A", 3),))
    assert statuses(result) == [Status.FILLED, Status.FILLED]
    assert result.fills[1].flags == Flag.GAP


# ---- Books ----


def book(now, bids=((99.0, 9.0),), asks=((101.0, 9.0),), leg="A"):
    return TwinRow(now, leg, book=TwinBook(now, tuple(bids), tuple(asks)))


def trade(now, price=100.0, decision=None, volume=0.0, taker=0, leg="A"):
    return TwinRow(now, leg, price, None, volume, taker, 0, decision)


def in_book(*rows, **terms):
    return run(list(rows), book=True, **terms)


def test_a_market_order_walks_the_levels():
    asks = ((80.0, 5.0), (120.0, 100.0))
    result = in_book(book(0, ((79.0, 9.0),), asks), trade(1, 80, BUY), trade(2, 80))
    # about 1000 / 80 = 12.5: (5 * 80 + 7.5 * 120) / 12.5 = 104; 1000 / 104 = 9.615 at its average
    qty = 1_000 / 104
    assert result.fills[0].qty == pytest.approx(qty)
    assert result.fills[0].price == pytest.approx((400 + (qty - 5) * 120) / qty)
    assert result.fills[0].flags == Flag(0)


def test_the_book_is_the_one_before_the_row_and_is_known_at_equal_times():
    rows = [book(0), trade(1, 100, BUY), book(2, ((49.0, 9.0),), ((50.0, 99.0),)), trade(3)]
    assert in_book(*rows).fills[0].price == 101.0  # row 2 brings the order into the book before it
    # At equal times trades come before books.
    rows = [book(0), trade(1, 100, BUY), trade(2), book(2, ((49.0, 9.0),), ((50.0, 99.0),))]
    assert in_book(*rows).fills[0].price == 101.0


def test_what_the_levels_do_not_hold_is_left_or_filled_at_the_last_and_flagged():
    rows = [book(0, asks=((100.0, 2.0), (125.0, 2.0))), trade(1, 100, BUY), trade(2), trade(3)]
    result = in_book(*rows)
    assert statuses(result) == [Status.FILLED_IN_PART]
    assert fills(result) == [(2, 112.5, 4.0)]
    assert result.fills[0].flags == Flag.PARTIAL
    result = in_book(*rows, last_level=True)
    # about 10: (200 + 8 * 125) / 10 = 120; 1000 / 120 = 8.33 at (200 + 6.33 * 125) / 8.33
    assert result.fills[0].qty == pytest.approx(25 / 3)
    assert result.fills[0].price == pytest.approx((200 + (25 / 3 - 2) * 125) / (25 / 3))
    assert (statuses(result), result.fills[0].flags) == ([Status.FILLED], Flag.BEYOND_DEPTH)


def test_a_flip_in_the_book_is_two_fills_that_walk_on():
    bids = ((100.0, 4.0), (80.0, 8.0), (50.0, 90.0))
    rows = [book(0, ((90.0, 9.0),), ((110.0, 99.0),)), trade(1, 100, BUY), book(2), trade(3)]
    rows += [book(4, bids, ((120.0, 9.0),)), trade(5, 110, SELL), trade(6, 110)]
    result = in_book(*rows, slippage=0.0)
    first = 1_000 / 110  # 9.09 bought
    # closed at (4 * 100 + 5.09 * 80) / 9.09; the rest of the level at 80 is 2.909, then 50
    price = (400 + (first - 4) * 80) / first
    assert fills(result)[1] == (6, pytest.approx(price), pytest.approx(-first))
    equity = first * price
    about, left = equity / 80, 12 - first
    average = (left * 80 + (about - left) * 50) / about
    qty = equity / average
    price = (left * 80 + (qty - left) * 50) / qty
    assert fills(result)[2] == (6, pytest.approx(price), pytest.approx(-qty))
    assert [trade.direction for trade in result.trades] == [1, -1]
    assert len(result.orders) == 2


def test_a_flip_that_cannot_close_whole_does_not_open():
    rows = [book(0), trade(1, 100, TwinDecision(0.5)), trade(2)]
    rows += [book(3, ((99.0, 1.0),)), trade(4, 100, SELL), trade(5)]
    result = in_book(*rows)
    assert statuses(result) == [Status.FILLED, Status.FILLED_IN_PART]
    assert result.fills[1].qty == -1.0
    assert result.positions["A"] == pytest.approx(500 / 101 - 1)


def test_stale_and_empty_books_are_refused():
    rows = [book(0), trade(7, 100, BUY), trade(8)]
    assert statuses(in_book(*rows, max_book_age=6)) == [Status.STALE_BOOK]
    assert statuses(in_book(*rows, max_book_age=7)) == [Status.FILLED_IN_PART]
    assert statuses(in_book(*rows[1:])) == [Status.STALE_BOOK]
    rows = [book(0, asks=()), trade(1, 100, BUY), trade(2)]
    assert statuses(in_book(*rows)) == [Status.NO_LIQUIDITY]
    rows = [book(0, asks=((101.0, 0.0),)), trade(1, 100, BUY), trade(2)]
    assert statuses(in_book(*rows)) == [Status.NO_LIQUIDITY]


def test_one_empty_side_is_marked_at_the_last_price():
    rows = [book(0, bids=(), asks=((100.0, 99.0),)), trade(1, 50, SELL), trade(2, 50)]
    assert statuses(in_book(*rows)) == [Status.NO_LIQUIDITY]
    rows = [book(0, bids=(), asks=((100.0, 99.0),)), trade(1, 50, BUY), trade(2, 50)]
    assert fills(in_book(*rows)) == [(2, 100.0, 10.0)]


def test_a_limit_order_takes_the_levels_no_worse_than_it_and_rests_with_the_others():
    asks = ((100.0, 2.0), (125.0, 3.0), (126.0, 50.0))
    rows = [book(0, ((90.0, 1.0),), asks), trade(1, 100, buy_at(125.0)), trade(2, 126)]
    rows += [trade(3, 125), trade(4, 124)]
    result = in_book(*rows, taker=0.25, maker=0.25)
    # 1000 / (125 * 1.25) = 6.4: takes 5 at 115, rests with 1.4
    assert fills(result) == [(2, 115.0, 5.0), (4, 125.0, pytest.approx(1.4))]
    assert [fill.maker for fill in result.fills] == [False, True]
    (order,) = result.orders
    assert (order.status, order.qty) == (Status.FILLED, pytest.approx(6.4))
    assert order.price == pytest.approx((575 + 175) / 6.4)


def test_a_resting_order_fills_when_the_opposite_best_goes_through():
    rows = [book(0), trade(1, 100, buy_at(80.0)), trade(2)]
    assert statuses(in_book(*rows, book(3, ((70.0, 1.0),), ((80.0, 9.0),)))) == [Status.OPEN]
    result = in_book(*rows, book(3, ((70.0, 1.0),), ((79.0, 9.0),)))
    assert fills(result) == [(3, 80.0, 12.5)]


def resting_in_queue(*rows, bids=((80.0, 8.0), (70.0, 1.0)), limit=80.0):
    start = [book(0, bids), trade(1, 100, buy_at(limit)), trade(2)]
    return in_book(*start, *rows, queue=True, touch=True)


def test_the_queue_is_moved_by_trades_at_the_price():
    result = resting_in_queue(
        trade(3, 80, volume=5.0, taker=-1),  # 8 -> 3
        trade(4, 80, volume=9.0, taker=1),  # bought from the other side
        trade(5, 80, volume=4.0, taker=0),  # 3 -> -1: one is ours
        trade(6, 80, volume=2.5, taker=-1),
        trade(7, 79.5, volume=0.5, taker=-1),  # through: the rest
    )
    assert fills(result) == [(5, 80.0, 1.0), (6, 80.0, 2.5), (7, 80.0, 9.0)]
    (order,) = result.orders
    assert (order.status, order.done_at, order.qty) == (Status.FILLED, 7, 12.5)


def test_the_queue_is_moved_by_a_shrinking_level():
    three = ((80.0, 3.0), (70.0, 1.0))
    more = ((80.0, 99.0), (70.0, 1.0))
    result = resting_in_queue(book(3, three), book(4, more), trade(5, 80, volume=4.0, taker=-1))
    assert fills(result) == [(5, 80.0, 1.0)]
    assert statuses(result) == [Status.OPEN]


def test_where_a_queue_begins():
    one = trade(3, 80, volume=1.0, taker=-1)
    assert fills(resting_in_queue(one, bids=((79.0, 5.0),))) == [(3, 80.0, 1.0)]  # the best
    assert fills(resting_in_queue(one, bids=((81.0, 1.0), (79.0, 5.0)))) == [(3, 80.0, 1.0)]
    assert fills(resting_in_queue(one, bids=())) == [(3, 80.0, 1.0)]
    deep = ((90.0, 1.0), (85.0, 1.0))
    assert fills(resting_in_queue(one, bids=deep)) == []
    seen = book(3, ((90.0, 1.0), (80.0, 2.0)))
    result = resting_in_queue(seen, trade(4, 80, volume=3.0, taker=-1), bids=deep)
    assert fills(result) == [(4, 80.0, 1.0)]


def test_a_partly_filled_order_says_so_when_it_is_replaced_or_meets_a_gap():
    part = trade(3, 80, volume=9.0, taker=-1)
    result = resting_in_queue(part, trade(4, 90, FLAT), trade(5, 90), book(6))
    assert statuses(result) == [Status.PARTLY_REPLACED, Status.FILLED]
    assert [fill.qty for fill in result.fills] == [1.0, -1.0]
    rows = [book(0, ((80.0, 8.0),)), trade(1, 100, buy_at(80.0)), trade(2), part, trade(9)]
    result = in_book(*rows, queue=True, gaps=(("A", 8),))
    assert [(order.status, order.qty) for order in result.orders] == [(Status.GAP, 1.0)]


def quote(now, bid, ask, decision=None, size=99.0):
    levels = TwinBook(now, ((bid, size),), ((ask, size),))
    return TwinRow(now, "A", (bid + ask) / 2, levels, decision=decision)


def test_quotes_fill_at_bid_and_ask_and_trigger_on_what_closing_would_get():
    rows = [quote(0, 99, 101, with_exits(stop_loss=0.25)), quote(1, 98, 102), quote(2, 75.5, 76.5)]
    rows += [quote(3, 75.0, 80.0), quote(4, 60, 61)]
    result = run(rows, book=True)
    # bought at the ask of row 0, 101: level 75.75: the bid of row 2 is below, its mid is above
    assert [(fill.time, fill.price) for fill in result.fills] == [(1, 101.0), (3, 75.5)]
    at_mid = run(rows)
    assert at_mid.fills[0].price == 100.0


def test_a_take_profit_in_a_book_needs_the_bid_to_go_through():
    rows = [book(0), trade(1, 100, with_exits(take_profit=0.25)), trade(2)]
    level = 101 * 1.25
    rises = ((3, level), (4, level + 0.5))
    result = in_book(*rows, *(book(now, ((at, 1.0),), ((at + 1, 1.0),)) for now, at in rises))
    assert fills(result)[1] == (4, level, -9.0)


# ---- Funding, liquidation, rebalancing ----


def test_funding_is_paid_on_the_last_mark_before_the_row():
    rows = prints([100, 100, 125, 250], {0: BUY})
    rates = (Rate(0, "A", 0.5, -0.5), Rate(3, "A", 0.1, -0.1), Rate(9, "A", 0.5, -0.5))
    result = run(rows, funding=rates)
    # nothing held at 0; at 3: 10 * 125 * 0.1 = 125; the end comes before 9
    assert result.trades[0].funding == 125.0
    assert (result.equity, result.trades[0].pnl) == (2_375.0, 1_375.0)
    short = run(prints([100, 100, 125, 125], {0: SELL}), funding=(Rate(3, "A", 0.1, -0.1),))
    assert (short.trades[0].funding, short.equity) == (-125.0, 875.0)


def test_a_leveraged_position_is_liquidated_with_its_own_fee():
    rows = prints([100, 100, 64, 62, 60], {0: TwinDecision(2.0)})
    result = run(rows, max_leverage=2.0, maintenance=0.2, liquidation=0.25, delay=waiting(1))
    # 20 at 100, cash -1000. at 64: 280 > 0.2 * 1280 = 256; at 62: 240 <= 248
    order = result.orders[1]
    assert (order.reason, order.decided_at, order.ready_at) == (Reason.LIQUIDATION, 3, 3)
    assert fills(result)[1] == (4, 60.0, -20.0)
    assert result.fills[1].fee == 300.0
    assert result.equity == -100.0


def test_a_decision_meets_no_margin_while_a_liquidation_is_on_its_way():
    rows = prints([100, 100, 62, 60, 60], {0: TwinDecision(2.0), 2: BUY, 3: BUY})
    result = run(rows, max_leverage=2.0, maintenance=0.2)
    assert statuses(result) == [Status.FILLED, Status.NO_MARGIN, Status.FILLED]
    assert result.positions["A"] == 0.0


def test_rebalancing_returns_to_the_target_when_exposure_leaves_its_band():
    rows = prints([100, 100, 110, 300, 300], {0: TwinDecision(0.5)})
    result = run(rows, rebalance=0.2)
    # 5 at 100; at 110 exposure 550 / 1050 = 0.524; at 300 1500 / 2000 = 0.75: wants 1000 / 300
    assert reasons(result) == [Reason.SIGNAL, Reason.REBALANCE]
    assert result.fills[1].qty == pytest.approx(1_000 / 300 - 5)
    assert result.orders[1].target == 0.5


# ---- Several legs ----


def test_legs_have_equal_capital_of_their_own():
    rows = prints([100, 100, 200], {0: BUY}) + prints([50, 50, 25], {0: BUY}, leg="B")
    result = run(rows, "AB")
    assert [fill.qty for fill in result.fills] == [5.0, 10.0]
    assert result.equity == 5 * 200 + 10 * 25


def test_shared_cash_is_sized_by_the_whole_account_and_cut_by_its_power():
    rows = prints([100, 100, 100], {0: TwinDecision(0.75)})
    rows += prints([50, 50, 50], {0: TwinDecision(0.5)}, leg="B")
    result = run(rows, "AB", shared_cash=True)
    # A: 750 of 1000; B wants 500, but 1000 - 750 = 250 is left
    assert [fill.qty for fill in result.fills] == [7.5, 5.0]
    assert [fill.flags for fill in result.fills] == [Flag(0), Flag.LEVERAGE]
    full = prints([100, 100], {0: BUY}) + prints([50, 50], {0: BUY}, leg="B")
    assert statuses(run(full, "AB", shared_cash=True)) == [Status.FILLED, Status.NO_MARGIN]


def test_a_shared_account_is_liquidated_as_a_whole():
    rows = prints([100, 100, 40, 40, 40], {0: BUY})
    rows += prints([100, 100, 100, 100, 100], {0: BUY}, leg="B")
    result = run(rows, "AB", shared_cash=True, max_leverage=2.0, maintenance=0.3)
    # both 10 at 100, cash -1000; with A at 40 equity is 400 <= 0.3 * 1400
    assert [(f.leg, f.time, f.reason) for f in result.fills[2:]] == [
        ("B", 2, Reason.LIQUIDATION),
        ("A", 3, Reason.LIQUIDATION),
    ]
    assert result.equity == 400.0


def test_rows_of_legs_are_merged_by_time_then_by_leg():
    rows = prints([50, 50, 50], {0: BUY}, leg="B") + prints([100, 100, 100], {0: BUY})
    assert [fill.leg for fill in run(rows, "AB").fills] == ["A", "B"]
    assert [fill.leg for fill in run(rows, "BA").fills] == ["B", "A"]


# ---- What is followed ----


def test_one_sample_closes_however_many_intervals_passed():
    rows = [
        TwinRow(now, "A", price, decision=BUY if now == 0 else None)
        for now, price in ((0, 100.0), (5, 100.0), (12, 200.0), (45, 50.0), (46, 60.0))
    ]
    result = run(rows, interval=10)
    # the row at 12 closes the interval to 10 before it is read, the row at 45 that to 20
    assert result.samples == [(10, 1_000.0), (20, 2_000.0), (50, 600.0)]
    assert result.max_drawdown == 500 / 2_000 - 1
    assert drawdown([(0, CAPITAL), *result.path]) == result.max_drawdown


def test_funding_comes_before_a_sample_that_closes_later():
    rows = [TwinRow(now, "A", 100.0, decision=BUY if now == 0 else None) for now in (0, 1, 25)]
    result = run(rows, interval=10, funding=(Rate(9, "A", 0.5, 0.0), Rate(10, "A", 0.25, 0.0)))
    assert result.samples == [(10, 500.0), (30, 250.0)]


def test_replay_leg_is_the_plain_case():
    leg = replay_leg([0, 1], [10, 10], [1.0, None], capital=80.0, fee=0.25, slippage=0.0, latency=0)
    assert (leg.fills[0].qty, leg.path[-1]) == (6.4, (1, 64.0))
    assert math.isclose(leg.trades[0].pnl, -16.0)
