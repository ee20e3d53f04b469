"""Where trades may be missing on venues whose trades cannot be counted by their ids."""

from __future__ import annotations

from collections.abc import Collection

from fxlab.collect.feed import Gap, Message, Trade


class PriceHoles:
    """Tells the stretches in which trades may have been missed, symbol by symbol."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._open: dict[str, Gap] = {}

    def take(self, trade: Trade) -> list[Message]:
        """Return the trade, after the end of a gap if it is the first one since."""
        if trade.time > self._times.get(trade.symbol, 0):
            self._times[trade.symbol] = trade.time
        if not self._open:
            return [trade]
        gap = self._open.get(trade.symbol)
        # Trades from before the gap, which some venues tell again, do not end it.
        if gap is None or trade.time <= gap.from_time:
            return [trade]
        del self._open[trade.symbol]
        return [gap._replace(to_time=trade.time), trade]

    def lose(self, cause: str, symbols: Collection[str] | None = None) -> list[Message]:
        """Return the gaps that begin, one for each symbol that was heard and has none open.

        Parameters
        ----------
        cause
            Why something may be missing.
        symbols
            Which symbols are concerned; None for all.
        """
        begun = {
            symbol: Gap(symbol, "prices", time, None, None, cause)
            for symbol, time in self._times.items()
            if symbol not in self._open and (symbols is None or symbol in symbols)
        }
        self._open |= begun
        return list(begun.values())
