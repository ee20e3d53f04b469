"""hftbacktest: prints turned into events, a strategy compiled as a loop over its feed.

It matches against a book, not against prints. So each print becomes a bid at its price and an
ask one price unit above, and the strategy hears of a print when the next one happens: its order
then meets the book of that next print. Making the events is not timed.
"""

from __future__ import annotations

import numpy as np
from hftbacktest import (
    BUY_EVENT,
    DEPTH_EVENT,
    EXCH_EVENT,
    GTC,
    LOCAL_EVENT,
    MARKET,
    SELL_EVENT,
    TRADE_EVENT,
    BacktestAsset,
    ROIVectorMarketDepthBacktest,
)
from hftbacktest.types import event_dtype
from market import CAPITAL, FAST, SLOW, STOP_LOSS, TAKE_PROFIT, TICKS_A_UNIT, Market, Outcome
from numba import njit

LOT = 1e-6
PLENTY = 1e9
FEED = 2  # what `wait_next_feed` returns when there is something to hear
A_DAY_NS = 86_400_000_000_000
ROOM = 100.0  # beyond the lowest and highest price; its book is an array over this range


class Events:
    """The market as its array of events."""

    def __init__(self, market: Market) -> None:
        self.fee = market.fee
        self.last = float(market.price[-1])
        self.range = float(market.price.min()) - ROOM, float(market.price.max()) + ROOM
        self.events = _events(market)

    def one_run(self) -> Outcome:
        """Return trades and final equity of the crossover."""
        return self._run(exits=False)

    def exits(self) -> Outcome:
        """Return the run with take-profit and stop-loss, both sent as market orders."""
        return self._run(exits=True)

    def _run(self, *, exits: bool) -> Outcome:
        low, high = self.range
        asset = (
            BacktestAsset()
            .data([self.events])
            .linear_asset(1.0)
            .constant_order_latency(1, 1)
            .risk_adverse_queue_model()
            .no_partial_fill_exchange()
            .trading_value_fee_model(self.fee, self.fee)
            .tick_size(1 / TICKS_A_UNIT)
            .lot_size(LOT)
            .last_trades_capacity(16)
            .roi_lb(low)
            .roi_ub(high)
        )
        feed = ROIVectorMarketDepthBacktest([asset])
        trades, money, units = _trade(
            feed, FAST, SLOW, self.fee, CAPITAL, exits, TAKE_PROFIT, STOP_LOSS
        )
        feed.close()
        return Outcome(int(trades), float(CAPITAL + money + units * self.last))


def _events(market: Market) -> np.ndarray:
    """Return three events a print: its bid, its ask, and the print as heard one print later."""
    stamp = market.time * 1_000
    taker = np.where(market.taker > 0, BUY_EVENT, SELL_EVENT)
    events = np.zeros((market.rows, 3), event_dtype)
    events["exch_ts"] = stamp[:, None]
    events["local_ts"] = stamp[:, None]
    events["qty"] = PLENTY
    events["px"] = market.price[:, None]
    events["ev"][:, 0] = DEPTH_EVENT | BUY_EVENT | EXCH_EVENT
    events["ev"][:, 1] = DEPTH_EVENT | SELL_EVENT | EXCH_EVENT
    events["px"][:, 1] = (market.whole + 1) / TICKS_A_UNIT
    events["ev"][:, 2] = TRADE_EVENT | LOCAL_EVENT | taker
    events["qty"][:, 2] = market.volume
    events["local_ts"][:-1, 2] = stamp[1:]
    return events.reshape(-1)[:-1]  # the last print would be heard after the end


@njit
def _trade(feed, fast, slow, fee, capital, exits, take, stop):  # noqa: PLR0917
    """Return closed trades, money made net of fees, and units held at the end."""
    seen = np.zeros(slow, np.int64)
    heard = sum_fast = sum_slow = before = trades = 0
    number = 1
    units = entry = 0.0
    while feed.wait_next_feed(False, A_DAY_NS) == FEED:  # noqa: FBT003 - its own signature
        prints = feed.last_trades(0)
        if len(prints) == 0:
            continue
        price = prints[len(prints) - 1].px
        feed.clear_last_trades(0)
        now = np.int64(round(price * TICKS_A_UNIT))
        if heard >= fast:
            sum_fast -= seen[(heard - fast) % slow]
        if heard >= slow:
            sum_slow -= seen[heard % slow]
        seen[heard % slow] = now
        sum_fast += now
        sum_slow += now
        heard += 1
        if heard < slow:
            continue
        ahead = sum_fast * slow - sum_slow * fast
        golden = heard > slow and ahead > 0 and before <= 0
        leave = heard > slow and ahead < 0 and before >= 0
        if exits:
            leave = price >= entry * (1.0 + take) or price <= entry * (1.0 - stop)
        before = ahead
        if golden and units == 0.0:
            state = feed.state_values(0)
            cash = capital + state.balance - state.fee
            units = np.floor(cash / (price * (1.0 + fee)) / LOT) * LOT
            feed.submit_buy_order(0, number, price, units, GTC, MARKET, True)  # noqa: FBT003
            entry = feed.orders(0).get(number).exec_price_tick / TICKS_A_UNIT
        elif leave and units > 0.0:
            feed.submit_sell_order(0, number, price, units, GTC, MARKET, True)  # noqa: FBT003
            units = 0.0
            trades += 1
        else:
            continue
        feed.clear_inactive_orders(0)
        number += 1
    state = feed.state_values(0)
    return trades, state.balance - state.fee, state.position
