"""The assumptions of a backtest about costs and time, as one row of a form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w

from fxlab.backtester.execution import Execution
from fxlab.errors import InvalidParameter
from fxlab.html import escape
from fxlab.widgets.style import beside, label_above

if TYPE_CHECKING:
    from fxlab.widgets.picker import SessionPicker

FILLS: Final = (("next trade", "next_trade"), ("order book", "book"))
BOOKS: Final = "orderbook"
OLDEST: Final = "5s"
"""The usual age of a book at most, as `Execution` has it."""


class ExecutionForm(w.VBox):
    """Fill rule, fees, slippage, latency and capital; `value` is the `Execution` they make.

    Attributes
    ----------
    fill
        Cannot be changed while the session that is followed has no order books.
    max_book_age
        Can be changed only while orders fill from books.
    """

    def __init__(self) -> None:
        usual = Execution()
        bps = {"min": -100.0, "max": 1_000.0, "step": 0.5}
        self.fill = w.Dropdown(options=FILLS, value=usual.fill, description="Fill at")
        self.taker_bps = w.BoundedFloatText(usual.taker_bps, description="Fee, bps", **bps)
        self.maker_bps = w.Text("", placeholder="the same", description="Maker fee, bps")
        self.slippage_bps = w.BoundedFloatText(
            usual.slippage_bps, description="Slippage, bps", **{**bps, "min": 0.0}
        )
        self.latency = w.Text("0ms", description="Latency")
        self.max_book_age = w.Text(OLDEST, description="Oldest book")
        self.capital_text = w.BoundedFloatText(10_000.0, min=0.0, max=1e15, description="Capital")
        self.no_books = w.HTML()
        controls = [
            label_above(control, text, width)
            for control, width, text in (
                (self.fill, 8, "a later trade's price, or the order book of that moment"),
                (self.taker_bps, 6, "of market orders, of notional; below 0 a rebate"),
                (self.maker_bps, 7.5, "of limit orders that rested; empty: the same fee"),
                (self.slippage_bps, 7, "how far fills are worse than the print or the book"),
                (self.latency, 9, "decision to market: 50ms, measured, lognormal:20ms,0.5"),
                (self.max_book_age, 6.5, "an older book is not traded against: 5s, none"),
                (self.capital_text, 7.5, "money at the start"),
            )
        ]
        self.fill.observe(lambda _: self._show_books(), "value")
        super().__init__([beside(controls), self.no_books])
        self._show_books()

    def follow(self, picker: SessionPicker) -> None:
        """Offer order books only while the session chosen in a picker has some."""
        picker.observe(lambda change: self.look_at(change["new"]), "value")
        self.look_at(picker.value)

    def look_at(self, session: Any) -> None:  # noqa: ANN401 - a Session, or None
        """Offer order books if the session has some; say so if it has none."""
        has_books = session is None or BOOKS in session.data_types
        words = "" if has_books else f"{session.id} has no order books: orders fill at trades"
        self.no_books.value = f'<span class="fxlab-soft">{escape(words)}</span>' if words else ""
        self.no_books.layout.display = None if words else "none"
        if not has_books:
            self.fill.value = "next_trade"
        self.fill.disabled = not has_books

    @property
    def value(self) -> Execution:
        """Return the assumptions.

        Raises
        ------
        InvalidParameter
            If the latency or the age of a book is no duration, or the maker's fee no number.
        """
        books = self.fill.value == "book"
        return Execution(
            fill=self.fill.value,
            taker_bps=self.taker_bps.value,
            maker_bps=_fee(self.maker_bps.value),
            slippage_bps=self.slippage_bps.value,
            latency=self.latency.value,
            max_book_age=_age(self.max_book_age.value) if books else Execution().max_book_age,
        )

    @property
    def capital(self) -> float:
        """Return the money at the start."""
        return float(self.capital_text.value)

    def _show_books(self) -> None:
        self.max_book_age.disabled = self.fill.value != "book"


def _age(text: str) -> str | None:
    return None if text.strip().lower() == "none" else text


def _fee(text: str) -> float | None:
    """Return a fee, or None for an empty text: the taker's."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        raise InvalidParameter(
            f"maker_bps={text!r:.80} is not a number; give basis points, or leave it empty for the "
            "fee of market orders"
        ) from None
