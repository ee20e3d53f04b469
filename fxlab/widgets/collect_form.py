"""The form of a recording to be made: where, what, how long."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import ipywidgets as w

from fxlab.collect.venues import BRIDGE, VENUES
from fxlab.errors import InvalidInput, VenueNotFound
from fxlab.schema import BOOK_DEPTH
from fxlab.times import parse_duration
from fxlab.widgets.field import Field, read_whole
from fxlab.widgets.style import label_width, with_help

_NARROW: Final = {"width": "17rem"}
_WIDE: Final = {"width": "28rem"}


class CollectForm(w.VBox):
    """Controls whose values are the arguments of `Lab.collect`.

    Parameters
    ----------
    venue, symbols, book_depth, duration, url, notes
        What they show at first, as `Lab.collect` takes them.

    Raises
    ------
    VenueNotFound
        With near names.
    """

    def __init__(
        self,
        *,
        venue: str = "binance",
        symbols: str | Iterable[str] = "BTC_USDT",
        book_depth: int = BOOK_DEPTH,
        duration: str | None = None,
        url: str | None = None,
        notes: str = "",
    ) -> None:
        names = ["Venue", "Exchange", "Symbols", "Book depth", "Duration", "Mock URL", "Notes"]
        self._style = label_width(names)
        bridged, _, exchange = venue.partition(":")
        if bridged not in (*VENUES, BRIDGE):
            raise VenueNotFound.named(venue, [*VENUES, BRIDGE])
        self.venue = w.Dropdown(
            options=[*VENUES, BRIDGE], value=bridged, description="Venue", style=self._style,
            layout=_NARROW,
        )  # fmt: skip
        self.exchange = self._text("Exchange", exchange, "okx")
        joined = symbols if isinstance(symbols, str) else ", ".join(symbols)
        self.symbols = self._text("Symbols", joined, "BTC_USDT, ETH_USDT", _WIDE)
        self.depth = Field(
            book_depth, lambda text: read_whole("book_depth", text, 0, BOOK_DEPTH),
            description="Book depth", style=self._style, layout=_NARROW,
        )  # fmt: skip
        self.duration = Field(
            duration or "", _read_duration, placeholder="until Stop", description="Duration",
            style=self._style, layout=_NARROW,
        )  # fmt: skip
        self.url = self._text("Mock URL", url or "", "http://127.0.0.1:8765", _WIDE)
        self.notes = self._text("Notes", notes, "kept with the session", _WIDE)
        super().__init__(self._rows())
        self.venue.observe(lambda _: self._show_exchange(), "value")
        self._show_exchange()

    @property
    def value(self) -> dict[str, Any]:
        """Return the arguments of `Lab.collect`.

        Raises
        ------
        InvalidInput
            For what is missing; what is wrong is said by `Lab.collect`.
        """
        venue = self.venue.value
        if venue == BRIDGE:
            exchange = self.exchange.value.strip()
            if not exchange:
                raise InvalidInput("no exchange is named; give ccxt's name of one, such as okx")
            venue = f"{BRIDGE}:{exchange}"
        return {
            "venue": venue,
            "symbols": [name for name in re.split(r"[\s,;]+", self.symbols.value) if name],
            "book_depth": self.depth.meaning,
            "duration": self.duration.meaning,
            "url": self.url.value.strip() or None,
            "notes": self.notes.value.strip(),
        }

    def enable(self, *, enabled: bool) -> None:
        """Let people change it, or not."""
        for control in self._controls:
            control.disabled = not enabled

    @property
    def _controls(self) -> tuple[Any, ...]:
        return (
            self.venue, self.exchange, self.symbols, self.depth, self.duration, self.url,
            self.notes,
        )  # fmt: skip

    def _rows(self) -> list[Any]:
        helps = (
            "public data; no key is needed",
            "as ccxt names it",
            "base_quote, with commas between",
            f"levels to store: 0 none, 1 best bid and ask, up to {BOOK_DEPTH}",
            "such as 10m or 8h",
            "of a mock venue or a proxy; empty: the venue itself",
            "",
        )
        rows = [with_help(*pair) for pair in zip(self._controls, helps, strict=True)]
        self._bridge_row = rows[1]
        return rows

    def _show_exchange(self) -> None:
        self._bridge_row.layout.display = None if self.venue.value == BRIDGE else "none"

    def _text(
        self, name: str, value: str, placeholder: str, layout: dict[str, str] | None = None
    ) -> w.Text:
        return w.Text(
            value, placeholder=placeholder, description=name, style=self._style,
            layout=layout or _NARROW, continuous_update=False,
        )  # fmt: skip


def _read_duration(text: str) -> str | None:
    """Return a duration as it was typed, or None for an empty text: until Stop."""
    if not text.strip():
        return None
    parse_duration(text.strip(), "duration")
    return text.strip()
