"""The assumptions of a backtest about costs and time, as one row of a form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w

from fxlab.backtester.execution import Execution
from fxlab.backtester.run_options import check_capital
from fxlab.html import escape
from fxlab.widgets.field import Field, read_number
from fxlab.widgets.style import beside, label_above

if TYPE_CHECKING:
    from collections.abc import Callable

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
    controls
        All of them.
    """

    def __init__(self) -> None:
        usual = Execution()
        self.fill = w.Dropdown(options=FILLS, value=usual.fill, description="Fill at")
        self.taker_bps = _field("taker_bps", usual.taker_bps, read_number, "Fee, bps")
        self.maker_bps = _field("maker_bps", "", _read_fee, "Maker fee, bps", "the same")
        self.slippage_bps = _field("slippage_bps", usual.slippage_bps, read_number, "Slippage, bps")
        self.latency = _field("latency", "0ms", _read_word, "Latency")
        self.max_book_age = _field("max_book_age", OLDEST, _read_age, "Oldest book")
        self.capital_text = Field(
            10_000.0,
            lambda text: check_capital(read_number("capital", text)),
            description="Capital",
        )
        self.no_books = w.HTML()
        self.controls = [
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
        super().__init__([beside(self.controls), self.no_books])
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
            For the first field whose text is no such value.
        """
        books = self.fill.value == "book"
        return Execution(
            fill=self.fill.value,
            taker_bps=self.taker_bps.meaning,
            maker_bps=self.maker_bps.meaning,
            slippage_bps=self.slippage_bps.meaning,
            latency=self.latency.meaning,
            max_book_age=self.max_book_age.meaning if books else Execution().max_book_age,
        )

    @property
    def capital(self) -> float:
        """Return the money at the start; raises `InvalidParameter` if it is none."""
        return float(self.capital_text.meaning)

    def _show_books(self) -> None:
        self.max_book_age.disabled = self.fill.value != "book"


def _field(
    name: str, value: object, read: Callable[[str, str], Any], label: str, placeholder: str = ""
) -> Field:
    """Return the field of one assumption, which `Execution` itself judges."""

    def judged(text: str) -> Any:  # noqa: ANN401 - as `Execution` has it
        return getattr(Execution(**{name: read(name, text)}), name)

    return Field(value, judged, description=label, placeholder=placeholder)


def _read_word(_name: str, text: str) -> str:
    return text


def _read_age(_name: str, text: str) -> str | None:
    return None if text.strip().lower() == "none" else text


def _read_fee(name: str, text: str) -> float | None:
    """Return a fee, or None for an empty text: the fee of market orders."""
    return read_number(name, text) if text.strip() else None
