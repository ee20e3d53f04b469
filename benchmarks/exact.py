"""What exact arithmetic finds, and what it finds under a peer's own fill rule.

A peer whose equity differs is not thereby explained. Here the contract of `market` is carried out
once more, from whole numbers and apart from every side, with the peer's rule as a parameter: if
that gives the peer's own figure, the rule is the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from market import CAPITAL, FAST, PAIRS, SLOW, STOP_LOSS, TAKE_PROFIT, TICKS_A_UNIT, Market, Outcome

WINDOW = 1_024
LARGEST_WINDOW = 1 << 16


@dataclass(frozen=True)
class Rule:
    """How fills depart from the contract; the default does not.

    Attributes
    ----------
    ask_ticks
        What a buyer pays above the print, in price units of 0.01.
    lot
        Units are rounded down to multiples of it; 0 keeps them as they are.
    sized_at_decision
        The entry is sized by the print that decided it, not by the one it fills at.
    stop_delay, profit_delay
        Rows between the print that touches a level and the fill.
    profit_at_level
        The take-profit fills at its own level, once a print goes through it.
    """

    ask_ticks: int = 0
    lot: float = 0.0
    sized_at_decision: bool = False
    stop_delay: int = 0
    profit_delay: int = 0
    profit_at_level: bool = False


CONTRACT = Rule()
Crosses = tuple[np.ndarray, np.ndarray]


def crosses(market: Market, fast: int = FAST, slow: int = SLOW) -> Crosses:
    """Return the rows of golden and of death crosses, found without a division."""
    total = np.concatenate([[0], np.cumsum(market.whole)])
    of_fast = total[slow:] - total[slow - fast : len(total) - fast]
    of_slow = total[slow:] - total[:-slow]
    ahead = np.sign(of_fast * slow - of_slow * fast)
    now, before = ahead[1:], ahead[:-1]
    golden = np.flatnonzero((now > 0) & (before <= 0)) + slow
    death = np.flatnonzero((now < 0) & (before >= 0)) + slow
    return golden, death


def ties(market: Market, fast: int = FAST, slow: int = SLOW) -> int:
    """Return at how many rows both means are exactly equal: where a rounded mean goes wrong."""
    total = np.concatenate([[0], np.cumsum(market.whole)])
    of_fast = total[slow:] - total[slow - fast : len(total) - fast]
    return int(np.count_nonzero(of_fast * slow == (total[slow:] - total[:-slow]) * fast))


def one_run(market: Market, rule: Rule = CONTRACT, decided: Crosses | None = None) -> Outcome:
    """Return trades and final equity of the crossover; `decided` puts a peer's crosses in."""
    account = _Account(market, rule)
    golden, death = decided or crosses(market)
    rows = sorted([(int(i), True) for i in golden] + [(int(i), False) for i in death])
    for row, rises in rows:
        if row + 1 == market.rows:
            break
        if rises and not account.units:
            account.enter(row)
        elif not rises and account.units:
            account.leave(market.price[row + 1])
    return account.outcome()


def sweep(market: Market) -> Outcome:
    """Return the final equities of all pairs, and the trades of all of them together."""
    found = [one_run(market, decided=crosses(market, *pair)) for pair in PAIRS]
    equities = np.array([each.equity for each in found])
    return Outcome.of_pairs(equities, sum(each.trades for each in found))


def exits(market: Market, rule: Rule = CONTRACT, decided: Crosses | None = None) -> Outcome:
    """Return trades and final equity of golden entries with take-profit and stop-loss."""
    account = _Account(market, rule)
    row = 0
    for cross in (decided or crosses(market))[0]:
        if cross < row or cross + 1 == market.rows:
            continue
        account.enter(int(cross))
        upper = account.entry * (1.0 + TAKE_PROFIT)
        lower = account.entry * (1.0 - STOP_LOSS)
        touched = _first_touch(market.price, cross + 2, upper, lower, rule.profit_at_level)
        if touched is None:
            break
        profit = market.price[touched] > lower
        row = touched + (rule.profit_delay if profit else rule.stop_delay)
        if row >= market.rows:
            break
        account.leave(upper if profit and rule.profit_at_level else market.price[row])
    return account.outcome()


class _Account:
    """Cash and units, under a rule."""

    def __init__(self, market: Market, rule: Rule) -> None:
        self.market, self.rule = market, rule
        self.cash, self.units, self.entry, self.trades = CAPITAL, 0.0, 0.0, 0

    def enter(self, decided: int) -> None:
        """Buy with all cash at the row after the decision."""
        price, fee = self.market.price, self.market.fee
        self.entry = price[decided + 1] + self.rule.ask_ticks / TICKS_A_UNIT
        at = price[decided] if self.rule.sized_at_decision else self.entry
        self.units = self.cash / (at * (1.0 + fee))
        if self.rule.lot:
            self.units = math.floor(self.units / self.rule.lot) * self.rule.lot
        self.cash -= self.units * self.entry * (1.0 + fee)

    def leave(self, price: float) -> None:
        """Sell everything."""
        self.cash += self.units * price * (1.0 - self.market.fee)
        self.units = 0.0
        self.trades += 1

    def outcome(self) -> Outcome:
        """Return what is left, open units marked at the last price."""
        return Outcome(self.trades, float(self.cash + self.units * self.market.price[-1]))


def _first_touch(
    price: np.ndarray,
    start: int,
    upper: float,
    lower: float,
    through: bool,  # noqa: FBT001
) -> int | None:
    """Return the first row at or after `start` that touches a level, looked for in windows."""
    size = WINDOW
    while start < len(price):
        part = price[start : start + size]
        hit = ((part > upper) if through else (part >= upper)) | (part <= lower)
        at = int(hit.argmax())
        if hit[at]:
            return start + at
        start += size
        size = min(size * 2, LARGEST_WINDOW)
    return None
