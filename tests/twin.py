"""An independent backtester: slow, plain, and written from the rules alone.

It shares no code with the kernel: objects instead of arrays, one symbol after the other, the
portfolio summed afterwards. The kernel must agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class TwinFill:
    """One execution."""

    time: int
    decided_at: int
    price: float
    qty: float
    fee: float


@dataclass
class TwinLeg:
    """One symbol's money, position and history."""

    cash: float
    position: float = 0.0
    exposure: float = 0.0  # the target that the position was traded to
    fills: list[TwinFill] = field(default_factory=list)
    path: list[tuple[int, float]] = field(default_factory=list)


def replay_leg(times, prices, targets, *, capital, fee, slippage, latency):
    """Replay one symbol: lists of µs, prices and targets (None keeps)."""
    leg = TwinLeg(capital)
    last_target, order = 0.0, None  # order = (decided_at, target)
    for now, price, target in zip(times, prices, targets, strict=True):
        if order is not None and now >= order[0] + latency:
            _execute(leg, now, price, order, fee, slippage)
            order = None
        leg.path.append((now, leg.cash + leg.position * price))
        if target is not None and target != last_target:
            last_target = target
            order = None if target == leg.exposure else (now, target)
    return leg


def _execute(leg, now, price, order, fee, slippage):
    decided_at, target = order
    worth = leg.cash + leg.position * price
    kept_back = 1 + fee if fee > 0 else 1.0
    naive = target * worth / (price * kept_back) - leg.position
    direction = (naive > 0) - (naive < 0)
    paid = price * (1 + direction * slippage)
    if target == 0:
        qty = -leg.position
    else:
        flips = leg.position * target < 0
        if flips:  # what closing the old side leaves
            worth = leg.cash + leg.position * paid - abs(leg.position) * paid * fee
        if worth <= 0:
            return
        qty = target * worth / (paid * kept_back) - leg.position
    if qty * direction <= 0:
        return
    cost = abs(qty) * paid * fee
    leg.exposure = target
    leg.cash -= qty * paid + cost
    leg.position = 0.0 if target == 0 else leg.position + qty
    leg.fills.append(TwinFill(now, decided_at, paid, qty, cost))


def drawdown(path):
    """Return the deepest fall from a peak over (time, equity) points."""
    peak, worst = path[0][1], 0.0
    for _, equity in path:
        peak = max(peak, equity)
        worst = min(worst, equity / peak - 1)
    return worst


def cross_targets(ticks, fast, slow):
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
