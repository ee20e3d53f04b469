"""Of every fill and trade the few numbers that figures are made of: what a point keeps on its way.

A ledger's records are ten times as large; a sweep of hundreds of points could not keep them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fxlab.backtester import records
from fxlab.backtester.trade_figures import Closed, Executed

_NO_FILLS = np.empty(0, records.FILL)
_NO_TRADES = np.empty(0, records.TRADE)
_NO_ORDERS = np.empty(0, records.ORDER)


@dataclass(slots=True)
class Tally:
    """Takes the kernel's records as they come; the figures are those of all of them at once."""

    fills: list[Executed] = field(
        default_factory=lambda: [Executed.of_records(_NO_FILLS, _NO_ORDERS)]
    )
    trades: list[Closed] = field(default_factory=lambda: [Closed.of_records(_NO_TRADES)])
    unfilled: int = 0
    size: int = 0
    """Bytes kept."""

    def take(self, written: Mapping[str, Iterable[np.ndarray]]) -> None:
        """Take lists of `ORDER`, `FILL` and `TRADE` records by name."""
        for orders in written["orders"]:
            self.unfilled += Executed.of_records(_NO_FILLS, orders).unfilled or 0
        for fills in written["fills"]:
            executed = Executed.of_records(fills, _NO_ORDERS)
            self.fills.append(executed)
            self.size += executed.notional.nbytes + executed.fees.nbytes + len(fills)
        for trades in written["trades"]:
            closed = Closed.of_records(trades)
            self.trades.append(closed)
            self.size += 3 * closed.pnl.nbytes

    @property
    def executed(self) -> Executed:
        """Return the fills."""
        makers = [one.maker for one in self.fills if one.maker is not None]
        return Executed(
            notional=np.concatenate([one.notional for one in self.fills]),
            fees=np.concatenate([one.fees for one in self.fills]),
            maker=np.concatenate(makers),
            unfilled=self.unfilled,
        )

    @property
    def closed(self) -> Closed:
        """Return the closed round trips."""
        return Closed(
            pnl=np.concatenate([one.pnl for one in self.trades]),
            notional=np.concatenate([one.notional for one in self.trades]),
            seconds=np.concatenate([one.seconds for one in self.trades]),
        )
