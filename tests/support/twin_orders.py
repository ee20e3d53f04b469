"""The twin's market: how a due order trades, at prints, in books, and as a resting limit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from twin_account import Account, Leg, Order, sign
from twin_market import FORCED, PLAIN, Flag, Level, Reason, Status, TwinRow

ROUNDING = Fraction(4, 2**53)  # of a price: a few units in a float's last place
NEARLY = Fraction(64, 2**53)  # of a number of lots
NOISE = 1e-9  # of the money and positions behind an order

Sized = tuple[float, Flag] | Status
"""A signed quantity and its flags, or why there is none."""


@dataclass
class Walk:
    """Takes quantity from the levels of a book, best first."""

    levels: list[list[float]]
    endless: bool  # the last level holds any quantity

    @classmethod
    def over(cls, levels: tuple[Level, ...] | list[Level], *, endless: bool) -> Walk:
        """Start at the best level."""
        return cls([list(level) for level in levels], endless)

    @property
    def best(self) -> float | None:
        """Return the price of the first level that has something left."""
        for price, left in self.levels:
            if left > 0:
                return price
        return self.levels[-1][0] if self.endless and self.levels else None

    def look(self, qty: float) -> tuple[float, float | None, bool]:
        """Return how much of a quantity is missing, the price of the rest, if it is beyond depth.

        The price is the average of all that there is, of nothing the best.
        """
        missing, got, money = qty, 0.0, 0.0
        for price, left in self.levels:
            part = min(left, missing)
            missing -= part
            got += part
            money += part * price
        beyond = self.endless and missing > 0
        if beyond:
            money += missing * self.levels[-1][0]
            got, missing = got + missing, 0.0
        return missing, money / got if got else self.best, beyond

    def take(self, qty: float) -> None:
        """Use up the first `qty`."""
        for level in self.levels:
            part = min(level[1], qty)
            level[1] -= part
            qty -= part


@dataclass
class Market(Account):
    """An account whose orders meet the market (§4 and §5)."""

    def execute(self, leg: Leg, order: Order, row: TwinRow) -> None:
        """Trade a due order, or say why not."""
        if self.barred(leg, order):
            status = Status.GAP
        elif self.terms.book:
            status = self._in_book(leg, order, row)
        else:
            status = self._at_print(leg, order, row)
        if status is not None:
            self.end(leg, status, row.time)

    def barred(self, leg: Leg, order: Order) -> bool:
        """Return whether a hole of the recording forbids the order to trade."""
        allowed = self.terms.across_gaps or order.reason in FORCED
        return self.across(leg, order) and not allowed

    # ---- Costs and prices ----

    def fee(self, order: Order) -> float:
        """Return the taker's fee."""
        extra = self.terms.liquidation if order.reason == Reason.LIQUIDATION else 0.0
        return self.terms.taker + extra

    def slip(self, notional: float) -> float:
        """Return how much worse than the market an order of this size fills."""
        terms = self.terms
        if terms.impact == 0:
            return terms.slippage
        return terms.slippage + terms.impact * math.sqrt(notional / terms.impact_notional)

    def worse(self, leg: Leg, price: float, side: int, slip: float) -> float:
        """Return a price after slippage, rounded to a tick against us."""
        return self.on_tick(leg, price * (1 + side * slip), up=side > 0)

    def on_tick(self, leg: Leg, price: float, *, up: bool) -> float:
        """Return the next price up or down that the venue knows; the nearest, if it is the price.

        In exact fractions of what the tick's digits say.
        """
        tick = exactly(self.terms.tick_size.get(leg.name, 0.0))
        if tick == 0:
            return price
        steps = Fraction(price) / tick
        near = float(round(steps) * tick)
        if abs(Fraction(near) - Fraction(price)) <= ROUNDING * Fraction(price):
            return near
        return float((math.ceil if up else math.floor)(steps) * tick)

    # ---- Sizes ----

    def reserve(self, order: Order) -> float:
        """Return what a unit of notional costs with its fee; a rebate is not spent in advance."""
        resting = self.terms.maker if order.limit is not None else 0.0
        return 1 + max(self.terms.taker, resting, 0.0)

    def naive(self, leg: Leg, order: Order, price: float, equity: float) -> float:
        """Return the change of quantity as if it cost nothing to trade but the fee."""
        if order.target == 0:
            return -leg.qty
        reserve = 1 + max(self.terms.taker, 0.0)
        return self.wanted(leg, order, max(equity, 0.0), price, reserve) - leg.qty

    def wanted(self, leg: Leg, order: Order, equity: float, price: float, reserve: float) -> float:
        """Return the signed position that the target's share of equity pays, fees included."""
        money = abs(order.target) * equity
        return math.copysign(self.units(leg, order, money, price, reserve), order.target)

    def units(self, leg: Leg, order: Order, money: float, price: float, reserve: float) -> float:
        """Return how many units so much money buys: what they cost with every fee fits into it.

        Either the fees by share, unit and order are paid, or the least of an order.
        """
        terms = self.terms
        once = terms.fee_per_order.get(leg.name, 0.0) if order.traded == 0 else 0.0
        by_unit = (money - once) / (price * reserve + terms.fee_per_unit.get(leg.name, 0.0))
        least = terms.min_fee.get(leg.name, 0.0)
        by_least = (money - least + order.fees) / price
        return max(0.0, min(by_unit, by_least) if least else by_unit)

    def noise(self, leg: Leg, price: float) -> float:
        """Return how much money is no more than rounding, beside all that the order stands on."""
        behind = abs(self.of_others(leg)) + abs(leg.cash) + abs(leg.qty) * price
        if self.terms.shared_cash:
            behind += self.elsewhere(leg)
        return NOISE * behind

    def elsewhere(self, leg: Leg) -> float:
        """Return the notional of the other legs' positions."""
        return sum(abs(o.qty) * o.mark for o in self.legs.values() if o is not leg)

    def pointless(
        self, leg: Leg, order: Order, price: float, equity: float, naive: float
    ) -> Status | None:
        """Return why a due order has nothing to do, if it has not.

        What closes always trades, and a change of side closes first.
        """
        if order.target == 0:
            return None if leg.qty != 0 else Status.UNCHANGED
        if equity <= 0 and order.target * leg.qty >= 0:
            return Status.NO_EQUITY
        fees = (self.terms.fee_per_order, self.terms.min_fee)
        if leg.qty == 0 and any(
            abs(order.target) * equity <= fee.get(leg.name, 0.0) for fee in fees
        ):
            return Status.TOO_SMALL
        return Status.UNCHANGED if abs(naive) * price <= self.noise(leg, price) else None

    def size(self, leg: Leg, order: Order, price: float, side: int, equity: float) -> Sized:
        """Return what to trade at a price. A change of side that leaves nothing only closes."""
        if order.target == 0:
            return -leg.qty, PLAIN
        closing = 0.0
        if leg.qty * order.target < 0:  # a change of side is paid from what closing leaves
            closing = -leg.qty
            unit = self.terms.fee_per_unit.get(leg.name, 0.0)
            cost = abs(closing) * (price * self.terms.taker + unit)
            equity = self.of_others(leg) + leg.cash - closing * price - cost
        if equity <= 0:
            return (closing, PLAIN) if closing else Status.NO_EQUITY
        change = self.wanted(leg, order, equity, price, self.reserve(order)) - leg.qty
        if change * side * price <= self.noise(leg, price):
            return Status.UNCHANGED
        start, opening = leg.qty + closing, change - closing
        opening, flags = self._within_power(leg, order, start, opening, price, equity)
        if opening == closing == 0:
            return Status.NO_MARGIN
        opening = self._in_lots(leg, opening)
        if opening == closing == 0:
            return Status.TOO_SMALL
        return self._large_enough(leg, closing + opening, price, flags)

    def _within_power(
        self, leg: Leg, order: Order, start: float, opening: float, price: float, equity: float
    ) -> tuple[float, Flag]:
        """Cut what a shared account cannot carry; what makes a position smaller is never cut."""
        if not self.terms.shared_cash or opening * start < 0:
            return opening, PLAIN
        power = max(0.0, self.terms.max_leverage * equity - self.elsewhere(leg))
        nothing = max(1.0, self.terms.max_leverage) * self.noise(leg, price)
        most = self.units(leg, order, power, price, self.reserve(order))
        if (abs(start + opening) - most) * price * self.reserve(order) <= nothing:
            return opening, PLAIN
        room = most - abs(start)
        if room * price * self.reserve(order) <= nothing:
            room = 0.0
        return math.copysign(room, opening), Flag.LEVERAGE

    def _in_lots(self, leg: Leg, qty: float) -> float:
        """Return the largest number of whole lots within a quantity."""
        lot = exactly(self.terms.lot_size.get(leg.name, 0.0))
        if lot == 0:
            return qty
        lots = Fraction(abs(qty)) / lot
        near = round(lots)
        whole = near if abs(lots - near) <= NEARLY * near else math.floor(lots)
        return math.copysign(float(whole * lot), qty)

    def _large_enough(self, leg: Leg, qty: float, price: float, flags: Flag) -> Sized:
        """Refuse what is below the smallest notional."""
        if abs(qty) * price < self.terms.min_notional.get(leg.name, 0.0):
            return Status.TOO_SMALL
        return qty, flags

    # ---- At the print of a row ----

    def _at_print(self, leg: Leg, order: Order, row: TwinRow) -> Status | None:
        equity = self.basis(leg, row.price)
        naive = self.naive(leg, order, row.price, equity)
        if why := self.pointless(leg, order, row.price, equity, naive):
            return why
        side = sign(naive)
        at = self.worse(leg, row.price, side, self.slip(abs(naive) * row.price))
        limit = None if order.limit is None else self.on_tick(leg, order.limit, up=side < 0)
        sized = self.size(leg, order, at if limit is None else limit, side, equity)
        if isinstance(sized, Status):
            return sized
        change, flags = sized
        if limit is not None and (limit - at) * side < 0:
            return self._rest(leg, order, limit, change)
        self.fill(leg, order, row.time, change, at, self.fee(order), flags)
        return Status.FILLED

    # ---- In the last book known before a row ----

    def _in_book(self, leg: Leg, order: Order, row: TwinRow) -> Status | None:
        if leg.book is not None and not leg.book.usable:
            return Status.BAD_BOOK
        if self._stale(leg, order):
            return Status.STALE_BOOK
        reference = self.reference(leg)
        equity = self.basis(leg, reference)
        naive = self.naive(leg, order, reference, equity)
        if why := self.pointless(leg, order, reference, equity, naive):
            return why
        side = sign(naive)
        slip = self.slip(abs(naive) * reference)
        if order.limit is not None:
            return self._limit_in_book(leg, order, row, side, equity, slip)
        walk = Walk.over(leg.book.against(side), endless=self.terms.last_level)
        if walk.best is None:
            return Status.NO_LIQUIDITY
        return self._walk(leg, order, row, side, walk, reference, slip)

    def _stale(self, leg: Leg, order: Order) -> bool:
        """Return whether the last book is too old to trade against."""
        oldest = self.terms.max_book_age
        if leg.book is None:
            return True
        return oldest is not None and order.ready_at - leg.book.time > oldest

    def reference(self, leg: Leg) -> float:
        """Return the price that marks a leg while it trades in the book: the mid, if there is."""
        bid, ask = leg.book.bid, leg.book.ask
        if bid is None or ask is None:
            return leg.mark  # an order was decided at a price: there is a mark
        return (bid + ask) / 2

    def _walk(
        self,
        leg: Leg,
        order: Order,
        row: TwinRow,
        side: int,
        walk: Walk,
        reference: float,
        slip: float,
    ) -> Status:
        """Close what lies on the other side, then open or change."""
        closes = order.target == 0 or leg.qty * order.target < 0
        if closes:
            whole = self._take(leg, order, row, walk, -leg.qty, slip)
            if order.target == 0 or not whole:
                return Status.FILLED if whole else Status.FILLED_IN_PART
        equity = self.basis(leg, reference)
        if walk.best is None or equity <= 0:
            return Status.FILLED
        about = abs(self.wanted(leg, order, equity, walk.best, self.reserve(order)) - leg.qty)
        average = self.worse(leg, walk.look(about)[1], side, slip)
        sized = self.size(leg, order, average, side, equity)
        if isinstance(sized, Status):
            return Status.FILLED if closes else sized
        whole = self._take(leg, order, row, walk, sized[0], slip, sized[1])
        return Status.FILLED if whole else Status.FILLED_IN_PART

    def _take(
        self,
        leg: Leg,
        order: Order,
        row: TwinRow,
        walk: Walk,
        qty: float,
        slip: float,
        flags: Flag = PLAIN,
    ) -> bool:
        """Trade as much of a signed quantity as the levels hold; tell whether that is all."""
        missing, average, beyond = walk.look(abs(qty))
        got = abs(qty) - missing if missing else abs(qty)
        walk.take(got)
        flags |= Flag.BEYOND_DEPTH if beyond else PLAIN
        flags |= Flag.PARTIAL if missing else PLAIN
        price = self.worse(leg, average, sign(qty), slip)
        self.fill(leg, order, row.time, sign(qty) * got, price, self.fee(order), flags)
        return not missing

    # ---- Limit orders ----

    def _limit_in_book(
        self, leg: Leg, order: Order, row: TwinRow, side: int, equity: float, slip: float
    ) -> Status | None:
        """Size a limit order once; take the levels no worse than it, let the rest rest."""
        limit = self.on_tick(leg, order.limit, up=side < 0)
        sized = self.size(leg, order, limit, side, equity)
        if isinstance(sized, Status):
            return sized
        change, flags = sized
        levels = [level for level in leg.book.against(side) if (limit - level[0]) * side >= 0]
        missing, average, _ = Walk.over(levels, endless=False).look(abs(change))
        if missing < abs(change):
            price = self.worse(leg, average, side, slip)
            price = min(price, limit) if side > 0 else max(price, limit)
            got = side * (abs(change) - missing) if missing else change
            self.fill(leg, order, row.time, got, price, self.fee(order), flags)
        if missing == 0:
            return Status.FILLED
        return self._rest(leg, order, limit, side * missing)

    def _rest(self, leg: Leg, order: Order, limit: float, qty: float) -> None:
        order.limit, order.remaining, order.resting = limit, qty, True
        order.ahead = math.inf if leg.book is None else leg.book.shown(sign(qty), limit)

    def meet_resting(self, leg: Leg, order: Order, row: TwinRow) -> None:
        """See what a row does to an order that rested before it."""
        if self.barred(leg, order):
            self.end(leg, Status.GAP, row.time)
            return
        side = sign(order.remaining)
        price = self.through(row, side)
        if reached(price, order.limit, side, touch=self.terms.touch and not self.terms.queue):
            self._fill_resting(leg, order, row, order.remaining)
        elif self.terms.queue:
            self._advance(leg, order, row, side)

    def through(self, row: TwinRow, side: int) -> float | None:
        """Return the price that may go through a limit: of a print, or of the opposite best."""
        if self.terms.book and row.shown is not None:
            return row.shown.ask if side > 0 else row.shown.bid
        return row.price

    def _advance(self, leg: Leg, order: Order, row: TwinRow, side: int) -> None:
        """Move forward in the queue."""
        if row.shown is not None:
            order.ahead = min(order.ahead, row.shown.shown(side, order.limit))
        elif row.price == order.limit and row.taker in {-side, 0}:
            order.ahead -= row.volume
            if order.ahead < 0:
                part = min(abs(order.remaining), -order.ahead)
                order.ahead = 0.0
                self._fill_resting(leg, order, row, side * part)

    def _fill_resting(self, leg: Leg, order: Order, row: TwinRow, qty: float) -> None:
        self.fill(leg, order, row.time, qty, order.limit, self.terms.maker, maker=True)
        order.remaining -= qty
        if order.remaining == 0:
            self.end(leg, Status.FILLED, row.time)


def exactly(step: float) -> Fraction:
    """Return a decimal step as it is written: 0.1 is a tenth."""
    return Fraction(Decimal(str(step)))


def reached(price: float | None, limit: float, side: int, *, touch: bool) -> bool:
    """Return whether a price went through a limit, or touched it where that is enough."""
    if price is None:
        return False
    return (limit - price) * side > 0 or (touch and price == limit)
