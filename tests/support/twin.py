"""An independent backtester: slow, plain, and written from the rules alone.

It shares no code with the engine: objects instead of arrays, one row at a time. The engine must
agree with it. `Twin.step` is the life of a row; `twin_orders` has the rules of fills,
`twin_account` the money, `twin_market` what goes in and comes out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from twin_account import Leg, Order, sign
from twin_market import (
    FORCED,
    NO_EXITS,
    Exits,
    Rate,
    Reason,
    Status,
    TwinDecision,
    TwinResult,
    TwinRow,
    TwinTerms,
    merge,
)
from twin_orders import Market, reached


@dataclass
class Twin(Market):
    """A backtest that is running."""

    funding: list[Rate] = field(default_factory=list)  # still to come
    edge: int | None = None
    now: int = 0

    def step(self, row: TwinRow) -> None:
        """Process one row. §3."""
        leg = self.legs[row.leg]
        leg.changed = leg.opened = False
        self.clock(row, leg)
        self.meet(leg, row)
        self.take_profit(leg, row)
        if row.book is not None:
            leg.book = row.book
        if row.price is not None:
            self.mark(leg, row.price)
        if leg.qty != 0 or leg.changed:
            self.follow(row.time)
        self.trigger(leg, row)
        if row.decision is not None and row.price is not None:
            self.decide(leg, row, row.decision)
        self.result.path.append((row.time, self.total))

    # ---- The clock ----

    def clock(self, row: TwinRow, leg: Leg) -> None:
        """Let everything happen whose time has come."""
        interval = self.terms.interval
        next_edge = (row.time // interval + 1) * interval
        self.now = row.time
        self.edge = self.edge or next_edge
        self.pay_funding(until=min(row.time, self.edge - 1))
        if row.time >= self.edge:
            self.result.samples.append((self.edge, self.total))
            self.edge = next_edge
        self.pay_funding(until=row.time)
        passed = [end for name, end in self.terms.gaps if name == leg.name and end <= row.time]
        leg.gap_end = max(passed, default=None)

    def pay_funding(self, until: int) -> None:
        """Charge the rates that are due. §7."""
        while self.funding and self.funding[0].time <= until:
            rate = self.funding.pop(0)
            leg = self.legs[rate.leg]
            if leg.trip is not None:
                paid = abs(leg.qty) * leg.mark * (rate.long if leg.qty > 0 else rate.short)
                leg.cash -= paid
                leg.trip.funding += paid
                self.follow(rate.time)

    def meet(self, leg: Leg, row: TwinRow) -> None:
        """Let an order that was there before meet the row."""
        order = leg.order
        if order is None:
            return
        if order.resting:
            self.meet_resting(leg, order, row)
        elif row.time >= order.ready_at and (self.terms.book or row.price is not None):
            self.execute(leg, order, row)

    def mark(self, leg: Leg, price: float) -> None:
        """Note the last price."""
        leg.mark = price
        if leg.trip is not None:
            leg.trip.see(price)

    # ---- Decisions. §3b ----

    def decide(self, leg: Leg, row: TwinRow, decision: TwinDecision) -> None:
        """Turn a decision into an order, or say why not."""
        target, now = decision.target, row.time
        again = self.terms.reenter and target != 0 and leg.qty == 0 and leg.order is None
        if target == leg.wanted and not again:
            return
        if leg.order is not None and leg.order.reason == Reason.LIQUIDATION:
            leg.wanted = target
            self.note(leg, Status.NO_MARGIN, target, now)
        elif target != 0 and self.cooling(leg, now):
            self.note(leg, Status.COOLING_DOWN, target, now)
        else:
            self.replace(leg, now)
            leg.wanted = target
            if target == leg.held and not again:
                self.note(leg, Status.UNCHANGED, target, now)
            else:
                self.send(leg, row, target, Reason.SIGNAL, decision.exits, decision.limit)

    def cooling(self, leg: Leg, now: int) -> bool:
        """Return whether a forced exit was too short ago."""
        last = leg.forced_out_at
        return last is not None and now < last + self.terms.cooldown

    def send(
        self,
        leg: Leg,
        row: TwinRow,
        target: float,
        reason: Reason,
        exits: Exits,
        limit: float | None = None,
    ) -> None:
        """Put an order on its way."""
        delay = self.terms.delay(leg.name, leg.orders_made, row)
        if reason == Reason.LIQUIDATION:
            delay = 0
        leg.orders_made += 1
        leg.order = Order(target, reason, row.time, row.time + delay, exits, limit)

    def replace(self, leg: Leg, now: int) -> None:
        """End the order on its way, if there is one."""
        if leg.order is not None:
            part = leg.order.traded != 0
            self.end(leg, Status.PARTLY_REPLACED if part else Status.REPLACED, now)

    # ---- Exits. §6 ----

    def take_profit(self, leg: Leg, row: TwinRow) -> None:
        """Fill the limit order that stands at the position's profit target."""
        if leg.qty == 0 or leg.changed or leg.exits.take_profit is None:
            return
        side = -sign(leg.qty)
        level = leg.trip.entry * (1 - side * leg.exits.take_profit)
        level = self.on_tick(leg, level, up=side < 0)
        if not reached(self.through(row, side), level, side, touch=self.terms.touch):
            return
        if leg.order is not None and leg.order.reason != Reason.SIGNAL:
            self.end(leg, Status.UNCHANGED, row.time)
        elif leg.order is not None and leg.order.resting:
            self.replace(leg, row.time)  # it was sized for a position that is no more
        strategys_own = leg.order
        leg.order = Order(0.0, Reason.TAKE_PROFIT, leg.armed_at, leg.armed_at)
        self.fill(leg, leg.order, row.time, -leg.qty, level, self.terms.maker, maker=True)
        self.end(leg, Status.FILLED, row.time)
        leg.order = strategys_own

    def trigger(self, leg: Leg, row: TwinRow) -> None:
        """Send the first exit whose condition holds, if there is a position to leave."""
        price = self.trigger_price(leg, row)
        if leg.trip is None or price is None or leg.opened:
            return
        side, trip = leg.trip.direction, leg.trip
        trip.best = max(trip.best * side, price * side) * side
        if leg.changed:
            return
        if self.liquidation_due(leg):
            self.liquidate(leg, row)
        elif self.beyond(price, trip.entry, leg.exits.stop_loss, side):
            self.force(leg, row, Reason.STOP_LOSS)
        elif self.beyond(price, trip.best, leg.exits.trailing_stop, side):
            self.force(leg, row, Reason.TRAILING_STOP)
        elif self.held_too_long(leg, row.time):
            self.force(leg, row, Reason.MAX_HOLDING)
        else:
            self.rebalance(leg, row)

    def trigger_price(self, leg: Leg, row: TwinRow) -> float | None:
        """Return the price that exits look at: a print, or what closing would get in the book."""
        if self.terms.book and row.price is not None and row.shown is not None:
            return row.shown.bid if leg.qty > 0 else row.shown.ask
        return row.price

    def beyond(self, price: float, start: float, fraction: float | None, side: int) -> bool:
        """Return whether a price lies at or beyond a stop, a fraction away from its start."""
        return fraction is not None and (start * (1 - side * fraction) - price) * side >= 0

    def held_too_long(self, leg: Leg, now: int) -> bool:
        """Return whether the round trip has reached its largest age."""
        longest = self.terms.max_holding
        return longest is not None and now >= leg.trip.entered_at + longest

    def in_account_of(self, leg: Leg) -> list[Leg]:
        """Return the legs that stand in for each other."""
        return list(self.legs.values()) if self.terms.shared_cash else [leg]

    def liquidation_due(self, leg: Leg) -> bool:
        """Return whether equity no longer carries the positions."""
        notional = sum(abs(each.qty) * each.mark for each in self.in_account_of(leg))
        return self.basis(leg, leg.mark) <= self.terms.maintenance * notional

    def liquidate(self, leg: Leg, row: TwinRow) -> None:
        """Close every position that the same equity carries."""
        for each in self.in_account_of(leg):
            if each.qty != 0:
                self.force(each, row, Reason.LIQUIDATION)

    def force(self, leg: Leg, row: TwinRow, reason: Reason) -> None:
        """Send a forced exit, unless one is on its way that is as strong."""
        before = leg.order.reason if leg.order is not None else None
        stronger = reason == Reason.LIQUIDATION and before != Reason.LIQUIDATION
        if before in FORCED and not stronger:
            return
        self.replace(leg, row.time)
        self.send(leg, row, 0.0, reason, NO_EXITS)

    def rebalance(self, leg: Leg, row: TwinRow) -> None:
        """Trade back to the target when exposure has left its band."""
        if self.terms.rebalance is None or leg.order is not None or not leg.held:
            return
        equity = self.basis(leg, leg.mark)
        if equity > 0 and abs(leg.qty * leg.mark / equity - leg.held) > self.terms.rebalance:
            self.send(leg, row, leg.held, Reason.REBALANCE, leg.exits)

    # ---- The end. §8 ----

    def finish(self) -> TwinResult:
        """Write down what is still open."""
        for leg in self.legs.values():
            if leg.order is not None:
                self.end(leg, Status.OPEN, self.now)
            if leg.qty != 0 and self.terms.close_at_end:
                self.sell_out(leg)
                self.follow(self.now)
            if leg.trip is not None:
                self.write_trade(leg, None, None)
            self.result.cash[leg.name] = leg.cash
            self.result.positions[leg.name] = leg.qty
        self.result.equity = self.total
        if self.edge is not None:
            self.result.samples.append((self.edge, self.total))
        return self.result

    def sell_out(self, leg: Leg) -> None:
        """Close a position at its mark."""
        slip = self.slip(abs(leg.qty) * leg.mark)
        at = self.worse(leg, leg.mark, -sign(leg.qty), slip)
        leg.order = Order(0.0, Reason.END, self.now, self.now)
        self.fill(leg, leg.order, self.now, -leg.qty, at, self.terms.taker)
        self.end(leg, Status.FILLED, self.now)


def replay(rows: list[TwinRow], legs: list[str], terms: TwinTerms, capital: float) -> TwinResult:
    """Replay the rows of all legs; rows of one leg come in their own order."""
    each = 0.0 if terms.shared_cash else capital / len(legs)
    twin = Twin(
        legs={name: Leg(name, each) for name in legs},
        terms=terms,
        base=capital if terms.shared_cash else 0.0,
        result=TwinResult(capital, capital),
        peak=capital,
        funding=sorted(terms.funding, key=lambda rate: (rate.time, legs.index(rate.leg))),
    )
    for row in merge(rows, legs):
        twin.step(row)
    return twin.finish()


# ---- Plain cases of the above, and of a strategy ----


def replay_leg(
    times: Sequence[int],
    prices: Sequence[float],
    targets: Sequence[float | None],
    *,
    capital: float,
    fee: float,
    slippage: float,
    latency: int,
) -> TwinResult:
    """Replay one symbol's market orders: lists of µs, prices and targets (None keeps)."""
    rows = [
        TwinRow(time, "A", price, decision=None if target is None else TwinDecision(target))
        for time, price, target in zip(times, prices, targets, strict=True)
    ]
    terms = TwinTerms(
        taker=fee, slippage=slippage, delay=lambda _leg, _count, _row: latency, maintenance=-1e300
    )
    return replay(rows, ["A"], terms, capital)


def drawdown(path: list[tuple[int, float]]) -> float:
    """Return the deepest fall from a peak over (time, equity) points."""
    peak, worst = path[0][1], 0.0
    for _, equity in path:
        peak = max(peak, equity)
        worst = min(worst, equity / peak - 1)
    return worst


def cross_targets(ticks: Sequence[int], fast: int, slow: int) -> list[float | None]:
    """Return the sma_cross contract's targets by direct means of integers, row by row."""
    targets, before = [], None
    for i in range(len(ticks)):
        if i < slow - 1:
            targets.append(None)
            continue
        difference = (
            sum(ticks[i - fast + 1 : i + 1]) * slow - sum(ticks[i - slow + 1 : i + 1]) * fast
        )
        golden = before is not None and before <= 0 < difference
        death = before is not None and before >= 0 > difference
        targets.append(1.0 if golden else 0.0 if death else None)
        before = difference
    return targets
