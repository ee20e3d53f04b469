"""The twin's money: legs, orders, round trips, and how a fill changes them."""

from __future__ import annotations

from dataclasses import dataclass

from twin_market import (
    FORCED,
    NO_EXITS,
    PLAIN,
    Exits,
    Flag,
    Reason,
    Status,
    TwinBook,
    TwinFill,
    TwinOrder,
    TwinResult,
    TwinTerms,
    TwinTrade,
)


def sign(value: float) -> int:
    """Return 1, 0 or -1."""
    return (value > 0) - (value < 0)


@dataclass
class Order:
    """An order on its way, or resting."""

    target: float
    reason: Reason
    decided_at: int
    ready_at: int
    exits: Exits = NO_EXITS
    limit: float | None = None
    resting: bool = False
    remaining: float = 0.0  # of a resting order, signed
    ahead: float = 0.0  # quantity that is served first
    traded: float = 0.0  # signed
    money: float = 0.0  # signed
    fees: float = 0.0
    due: float = 0.0  # fees before the least of them


@dataclass
class Trip:
    """A round trip that is open."""

    direction: int
    entered_at: int
    best: float
    low: float
    high: float
    bought: float = 0.0
    paid: float = 0.0
    sold: float = 0.0
    received: float = 0.0
    fees: float = 0.0
    funding: float = 0.0

    @property
    def entry(self) -> float:
        """Return the average price of what was bought into the position."""
        return self.paid / self.bought

    def see(self, price: float) -> None:
        """Note a price that the position met: of a row, or of a fill of its own."""
        self.low, self.high = min(self.low, price), max(self.high, price)


@dataclass
class Leg:
    """One symbol's money, position, order and memory."""

    name: str
    cash: float
    qty: float = 0.0
    mark: float = 0.0
    wanted: float = 0.0
    held: float | None = 0.0  # None: an order that ended half-way
    order: Order | None = None
    orders_made: int = 0
    book: TwinBook | None = None
    gap_end: int | None = None
    trip: Trip | None = None
    exits: Exits = NO_EXITS
    armed_at: int = 0
    forced_out_at: int | None = None
    changed: bool = False  # the position, at this row
    opened: bool = False  # the round trip, at this row

    @property
    def equity(self) -> float:
        """Return what the leg is worth at its mark."""
        return self.cash + self.qty * self.mark


@dataclass
class Account:
    """All legs, the assumptions, and what has been written down."""

    legs: dict[str, Leg]
    terms: TwinTerms
    base: float
    result: TwinResult
    peak: float

    # ---- Worth ----

    @property
    def total(self) -> float:
        """Return the equity of the account."""
        return self.base + sum(leg.equity for leg in self.legs.values())

    def of_others(self, leg: Leg) -> float:
        """Return a shared account's equity without one leg; 0 where legs have their own."""
        if not self.terms.shared_cash:
            return 0.0
        return self.base + sum(other.equity for other in self.legs.values() if other is not leg)

    def basis(self, leg: Leg, mark: float) -> float:
        """Return the equity that a leg is sized by, the leg marked at `mark`."""
        return self.of_others(leg) + leg.cash + leg.qty * mark

    def follow(self, now: int) -> None:
        """Compare equity with its peak, and with nothing."""
        equity = self.total
        if equity <= 0 and self.result.ruined_at is None:
            self.result.ruined_at = now
        self.peak = max(self.peak, equity)
        self.result.max_drawdown = min(self.result.max_drawdown, equity / self.peak - 1)

    # ---- Fills ----

    def fill(
        self,
        leg: Leg,
        order: Order,
        now: int,
        change: float,
        price: float,
        rate: float,
        flags: Flag = PLAIN,
        *,
        maker: bool = False,
    ) -> None:
        """Trade a signed quantity at a price; the fee is a share of its notional, and the fixed."""
        first = order.traded == 0
        order.due += abs(change) * (price * rate + self.terms.fee_per_unit.get(leg.name, 0.0))
        order.due += self.terms.fee_per_order.get(leg.name, 0.0) if first else 0.0
        least = self.terms.min_fee.get(leg.name, 0.0)
        cost = (max(order.due, least) if least else order.due) - order.fees
        leg.cash -= change * price + cost
        order.traded += change
        order.money += change * price
        order.fees += cost
        self._move(leg, order, now, change, price, cost)
        leg.changed = True
        if leg.qty != 0:
            leg.armed_at = now
            if order.reason not in FORCED:
                leg.exits = order.exits
        if order.reason in FORCED:
            leg.forced_out_at = now
        flags |= Flag.GAP if self.across(leg, order) else PLAIN
        fill = TwinFill(
            leg=leg.name,
            time=now,
            decided_at=order.decided_at,
            reason=order.reason,
            maker=maker,
            target=order.target,
            price=price,
            qty=change,
            fee=cost,
            position=leg.qty,
            flags=flags,
        )
        self.result.fills.append(fill)

    def across(self, leg: Leg, order: Order) -> bool:
        """Return whether a hole of the recording ended after the order was decided."""
        return leg.gap_end is not None and leg.gap_end > order.decided_at

    def _move(
        self, leg: Leg, order: Order, now: int, change: float, price: float, cost: float
    ) -> None:
        closing = 0.0
        if leg.qty * change < 0:
            closing = sign(change) * min(abs(change), abs(leg.qty))
            self._reduce(leg, order, now, closing, price, cost * (closing / change))
        opening = change - closing
        if opening != 0:
            self._enlarge(leg, now, opening, price, cost * (opening / change))

    def _enlarge(self, leg: Leg, now: int, change: float, price: float, cost: float) -> None:
        if leg.trip is None:
            leg.trip = Trip(sign(change), now, best=price, low=price, high=price)
            leg.opened = True
        leg.trip.see(price)
        leg.qty += change
        leg.trip.bought += abs(change)
        leg.trip.paid += abs(change) * price
        leg.trip.fees += cost

    def _reduce(
        self, leg: Leg, order: Order, now: int, change: float, price: float, cost: float
    ) -> None:
        leg.trip.see(price)
        leg.qty += change
        leg.trip.sold += abs(change)
        leg.trip.received += abs(change) * price
        leg.trip.fees += cost
        if leg.qty == 0:
            self.write_trade(leg, now, order.reason)
            leg.trip, leg.exits = None, NO_EXITS

    # ---- What is written down ----

    def write_trade(self, leg: Leg, exited_at: int | None, reason: Reason | None) -> None:
        """Write down a round trip, an open one at its mark."""
        trip = leg.trip
        if leg.qty != 0:
            trip.see(leg.mark)
        sold = trip.sold + abs(leg.qty)
        received = trip.received + abs(leg.qty) * leg.mark
        trade = TwinTrade(
            leg=leg.name,
            direction=trip.direction,
            entered_at=trip.entered_at,
            exited_at=exited_at,
            reason=reason,
            qty=trip.bought,
            entry_price=trip.entry,
            exit_price=received / sold,
            fees=trip.fees,
            funding=trip.funding,
            pnl=trip.direction * (received - trip.paid) - trip.fees - trip.funding,
            low=trip.low,
            high=trip.high,
        )
        self.result.trades.append(trade)

    def end(self, leg: Leg, status: Status, now: int) -> None:
        """End the leg's order and write down what became of it."""
        order = leg.order
        leg.order = None
        if status in {Status.FILLED, Status.FILLED_IN_PART}:
            leg.held = order.target
        elif order.traded != 0:
            leg.held = None
        self._write_order(leg, status, order, now)

    def note(self, leg: Leg, status: Status, target: float, now: int) -> None:
        """Write down a decision that makes no order."""
        self._write_order(leg, status, Order(target, Reason.SIGNAL, now, now), now)

    def _write_order(self, leg: Leg, status: Status, order: Order, now: int) -> None:
        written = TwinOrder(
            leg=leg.name,
            status=status,
            reason=order.reason,
            decided_at=order.decided_at,
            ready_at=order.ready_at,
            done_at=now,
            target=order.target,
            price=order.money / order.traded if order.traded else None,
            qty=order.traded,
            fee=order.fees,
            position=leg.qty,
        )
        self.result.orders.append(written)
