"""Why a side's trades or equity are not those of exact arithmetic, and the proof of it.

A reason is believed only if exact arithmetic under the side's own rule gives the side's own
figure; otherwise the difference is reported as unexplained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import exact
import numpy as np
from exact import CONTRACT, Rule
from market import PAIRS, Market, Outcome
from works import BARE, OURS, Task

CLOSE = 1e-9  # relative; sides multiply in different orders
RULES = {
    "hftbacktest": (
        Rule(ask_ticks=1, lot=1e-6, sized_at_decision=True, stop_delay=1, profit_delay=1),
        (
            "buys one price unit above the print (a book has a spread), sizes by the print that "
            "decided, in lots of 1e-6; both exits are market orders, filled one print later"
        ),
    ),
    "backtesting.py": (Rule(lot=1e-8), "units are whole satoshis"),
}
OUR_EXITS = (
    Rule(stop_delay=1, profit_at_level=True),
    "the take-profit rests at its level until a print goes through; a stop fills one later",
)
Work = Callable[..., Outcome]


@dataclass(frozen=True)
class Verdict:
    """How a side's outcome compares with exact arithmetic."""

    agrees: bool
    reason: str
    expected: Outcome


def judge(task: Task, side: object, market: Market, outcome: Outcome) -> Verdict:
    """Compare an outcome with the contract, and with the side's own rule if it differs."""
    if outcome.equities is not None:
        return _judge_sweep(market, outcome)
    work = exact.exits if task.method.startswith("exits") else exact.one_run
    contract = work(market)
    if _same(outcome, contract):
        return Verdict(agrees=True, reason="", expected=contract)
    for expected, reason in _own(task, side, market, work):
        if _same(outcome, expected):
            return Verdict(agrees=False, reason=reason, expected=contract)
    reason = f"UNEXPLAINED: exact arithmetic gives {contract.trades} / {contract.equity:.6f}"
    return Verdict(agrees=False, reason=reason, expected=contract)


def _own(task: Task, side: object, market: Market, work: Work) -> Iterator[tuple[Outcome, str]]:
    """Yield what exact arithmetic finds under the side's rule, then with its own crosses too."""
    rule, text = RULES.get(task.side, (CONTRACT, ""))
    if task.method == "exits" and task.side in (OURS, BARE):
        rule, text = OUR_EXITS
    yield work(market, rule), text
    if hasattr(side, "crosses"):
        found = side.crosses()
        moved = sum(map(len, map(np.setxor1d, found, exact.crosses(market))))
        rounded = (
            f"its rounded averages put crosses on other rows ({moved} rows differ; exact ties of "
            f"both averages: {exact.ties(market)})"
        )
        yield work(market, rule, decided=found), "; ".join(filter(None, (rounded, text)))


def _same(one: Outcome, two: Outcome) -> bool:
    return one.trades == two.trades and abs(one.equity - two.equity) <= CLOSE * abs(two.equity)


def _judge_sweep(market: Market, outcome: Outcome) -> Verdict:
    true = exact.sweep(market)
    off = np.abs(outcome.equities / true.equities - 1.0)
    wrong = int(np.count_nonzero(off > CLOSE))
    text = f"{wrong} of {len(PAIRS)} equities differ, the most by {off.max():.1e} of it"
    if outcome.trades is not None and outcome.trades != true.trades:
        wrong, text = wrong + 1, f"{text}; trades of all pairs {outcome.trades}, not {true.trades}"
    return Verdict(agrees=wrong == 0, reason=text if wrong else "", expected=true)
