"""The assumptions of a backtest about costs and time, as a form."""

from __future__ import annotations

import ipywidgets as w

from fxlab.backtester.execution import Execution
from fxlab.widgets.style import label_width, with_help


class ExecutionForm(w.VBox):
    """Fee, slippage, latency and capital; `value` is the `Execution` they make."""

    def __init__(self) -> None:
        default = Execution()
        labels = ("Fee, bps", "Slippage, bps", "Latency", "Capital")
        shared = {"style": label_width(labels), "layout": {"width": "13rem"}}
        fee, slippage, latency, capital = labels
        self.taker_bps = w.BoundedFloatText(
            default.taker_bps, min=-100.0, max=1_000.0, step=0.5, description=fee, **shared
        )
        self.slippage_bps = w.BoundedFloatText(
            default.slippage_bps, min=0.0, max=1_000.0, step=0.5, description=slippage, **shared
        )
        self.latency = w.Text("0ms", description=latency, **shared)
        self.capital_text = w.BoundedFloatText(
            10_000.0, min=0.0, max=1e15, description=capital, **shared
        )
        super().__init__(
            [
                with_help(self.taker_bps, "of notional, per fill; below 0 a rebate"),
                with_help(self.slippage_bps, "how far fills are worse than prints"),
                with_help(self.latency, "decision to market: 50ms, 1.5s"),
                with_help(self.capital_text, "money at the start"),
            ]
        )

    @property
    def value(self) -> Execution:
        """Return the assumptions.

        Raises
        ------
        InvalidParameter
            If the latency is no duration.
        """
        return Execution(
            taker_bps=self.taker_bps.value,
            slippage_bps=self.slippage_bps.value,
            latency=self.latency.value,
        )

    @property
    def capital(self) -> float:
        """Return the money at the start."""
        return float(self.capital_text.value)
