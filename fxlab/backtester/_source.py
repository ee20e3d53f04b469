"""Tick source of a run: a session or a frame, its symbols, times and gaps, and the ticks joined.

A strategy names columns; here they are found and joined (as-of joined books, other symbols'
prices), for the chunk at hand only. What comes from another stream is as of *strictly before* the
tick: two streams with the same timestamp have no known order, and a backtest must not guess the one
that suits it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypedDict, Unpack

import numpy as np
import polars as pl

from fxlab import _ticks
from fxlab._ticks import PRICE_TICKS, advice, instruments_frame
from fxlab._times import Time, parse_range, to_micros
from fxlab.backtester._frame_source import FrameSource, is_frame
from fxlab.backtester._kernel.records import GAPS
from fxlab.backtester.execution import TAKER_BPS, UNEQUAL_FEES, Execution
from fxlab.backtester.strategy.indicators import PRICE_OF
from fxlab.backtester.strategy.strategy import names
from fxlab.errors import EmptySession, InvalidParameter, InvalidTicks, SymbolNotFound, some
from fxlab.schema import UTC_MICROS, book_levels, quote_currency

BOOK_COLUMNS: Final = (*book_levels(), "spread", "mid")


class Which(TypedDict, total=False):
    """Which rows are read, and how many at a time."""

    start: Time | None
    end: Time | None
    chunk_rows: int


class TickSource(Protocol):
    """What a backtest replays: a session, or a frame behind `FrameSource`."""

    @property
    def id(self) -> str:
        """Return the name the run is saved under."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have ticks."""

    @property
    def price_decimals(self) -> Mapping[str, int]:
        """Return the decimals of each symbol's prices."""

    @property
    def started(self) -> object:
        """Return the time of the first tick (an aware datetime, or None)."""

    @property
    def ended(self) -> object:
        """Return the time of the last tick (an aware datetime, or None)."""

    def scan_ticks(
        self, symbol: str, *, received: bool = False, **which: Unpack[Which]
    ) -> Iterator[pl.DataFrame]:
        """Yield the symbol's ticks in (timestamp, seq) order.

        With `received` also ``received_at`` (UTC µs), null where it is not known.
        """

    def count_ticks(
        self, symbol: str, *, start: Time | None = None, end: Time | None = None
    ) -> int:
        """Return how many ticks `scan_ticks` yields."""

    def scan_books(self, symbol: str, **which: Unpack[Which]) -> Iterator[pl.DataFrame]:
        """Yield the symbol's books: timestamp, seq and the level columns, in order."""

    def has_books(self, symbol: str) -> bool:
        """Return whether there are order books (or quotes) of the symbol."""

    def has_trades(self, symbol: str) -> bool:
        """Return whether there are trades of the symbol; else its ticks are mids of quotes."""

    def gaps(self, symbol: str) -> pl.DataFrame:
        """Return the symbol's known gaps: from_time, to_time (UTC µs), merged and in order."""

    def gaps_by_symbol(self, symbols: Iterable[str]) -> dict[str, pl.DataFrame]:
        """Return the known gaps of each symbol, in one pass over all gaps."""


def as_source(source: object) -> TickSource:
    """Return a session as it is, a frame behind `FrameSource`; refuse everything else."""
    if hasattr(source, "scan_ticks"):
        return source  # type: ignore[return-value]  # the protocol, by its one method
    if is_frame(source):
        return FrameSource(source)
    if callable(source) or (isinstance(source, str) and source in names()):
        said = getattr(source, "__name__", repr(source))
        raise InvalidParameter(
            f"{said} is a strategy, and the data come first: give a session or a frame of ticks, "
            f"then the strategy, as in fxlab.backtest(session, {said})"
        )
    raise InvalidParameter(
        f"session_id is required: a backtest runs on a session or a frame of ticks, not on "
        f"{source!r:.80}; list sessions with lab.sessions() and pass lab.session(session_id)"
    )


def choose_symbols(source: TickSource, wanted: str | list[str] | tuple[str, ...]) -> list[str]:
    """Return the symbols to replay: ``"ALL"``, one, or several without repeats."""
    if isinstance(wanted, str) and wanted == "ALL":
        chosen = list(source.symbols)
    else:
        if not wanted or not isinstance(wanted, str | list | tuple):
            raise InvalidParameter(
                f"symbols={wanted!r:.80} names no symbol; give 'ALL', one name, or a list of names"
            )
        chosen = [wanted] if isinstance(wanted, str) else list(dict.fromkeys(wanted))
    known = set(source.symbols)
    for symbol in chosen:
        if symbol not in known:
            raise SymbolNotFound.named(str(symbol), source.symbols)
    if not chosen:
        raise EmptySession(f"session {source.id!r} has no symbols; choose another session")
    return chosen


def check_one_currency(symbols: Iterable[str]) -> None:
    """Refuse symbols whose prices are in different currencies: their money cannot be added.

    A symbol that does not say its currency is taken to have the others'; see `unsaid_currencies`.
    """
    first: dict[str, str] = {}
    for symbol in symbols:
        unit = quote_currency(symbol)
        if unit is not None:
            first.setdefault(unit, symbol)
    if len(first) < 2:
        return
    words = [f"{symbol} in {unit}" for unit, symbol in first.items()]
    one = next(iter(first.values()))
    raise InvalidParameter(
        f"prices are in {len(first)} currencies ({'; '.join(words[:4])}), and money of different "
        f"currencies is never added: choose symbols of one currency, such as symbols=[{one!r}], "
        "and run the others by themselves, or give a frame whose prices are in one currency"
    )


def span(source: TickSource, start: Time | None, end: Time | None) -> tuple[int, int]:
    """Return first and last microsecond of what will be replayed, from the source's own bounds."""
    low, high = parse_range(start, end)
    first, last = source.started, source.ended
    if first is None or last is None:
        raise EmptySession(f"session {source.id!r} has no ticks; choose another session")
    first_us, last_us = to_micros(first), to_micros(last)  # type: ignore[arg-type]
    return max(first_us, low or first_us), min(last_us, (high or last_us + 1) - 1)


def share_before(bounds: tuple[int, int], now: int) -> float:
    """Return the share of a time range that lies before `now` (microseconds)."""
    first, last = bounds
    return min(1.0, (now - first) / max(1, last - first))


def no_ticks(source: TickSource, symbols: tuple[str, ...]) -> EmptySession:
    """Return the error of a time range without a tick."""
    return EmptySession(
        f"session {source.id!r} has no ticks of {some(symbols)} in the range asked for; "
        f"its ticks run from {source.started} to {source.ended}"
    )


def gap_bounds(source: TickSource, symbols: Iterable[str]) -> pl.DataFrame | None:
    """Return the known gaps of the recording: from_time, to_time (UTC µs), symbol.

    None if there are none and the source is no live recording: then gaps were not recorded.
    """
    found = [
        gaps.select("from_time", "to_time", pl.lit(symbol).alias("symbol"))
        for symbol, gaps in source.gaps_by_symbol(symbols).items()
    ]
    whole = pl.concat(found)
    watched = getattr(source, "source", "") == "live"
    return whole if watched or whole.height else None


STEPS: Final = ("lot_size", "tick_size", "min_notional")
FEES: Final = ("taker_bps", "maker_bps")


def with_instruments(
    execution: Execution, source: TickSource, symbols: Sequence[str]
) -> tuple[Execution, tuple[str, ...]]:
    """Return the assumptions with what the venue listed, where they do not say otherwise.

    Beside them the names of those that are as listed, `UNEQUAL_FEES` if fees differ by symbol. What
    this returns is returned again as it is: a saved run has the same assumptions when it is made
    again. Where the fees are listed, both of them are said, so that a part of them is no default.

    Raises
    ------
    InvalidParameter
        If they are to be as recorded and the source has no listing.
    """
    rows = instruments_of(source).filter(pl.col("symbol").is_in(symbols)).to_dicts()
    if not rows and execution.instruments == "recorded":
        raise InvalidParameter(
            f"instruments='recorded', and {source.id!r} keeps no listing of a venue; give "
            "lot_size, tick_size, min_notional and fees by themselves, or leave instruments out"
        )
    if not rows:
        return (replace(execution, instruments=None) if execution.instruments else execution), ()
    if execution.instruments == "none":
        return execution, ()
    steps = {name: {one["symbol"]: one[name] for one in rows if one[name]} for name in STEPS}
    fees = {_fees(one) for one in rows}
    one_fee = len(fees) == 1 and len(rows) == len(symbols)
    charged = fees.pop() if one_fee else (None, None)
    made = _as_listed(execution, steps, charged, len(symbols))
    names = [
        name
        for name, listed in steps.items()
        if listed and all(made.for_symbol(name, one) == step for one, step in listed.items())
    ]
    if (made.taker_bps, made.maker_bps) == charged:
        names += FEES
    if fees - {(None, None)} and (made.taker_bps, made.maker_bps) == (TAKER_BPS, None):
        names.append(UNEQUAL_FEES)
    return made, tuple(names)


def instruments_of(source: TickSource) -> pl.DataFrame:
    """Return what the venue listed of the symbols; no rows where the source does not know."""
    ask = getattr(source, "instruments", None)
    found: pl.DataFrame = instruments_frame({}) if ask is None else ask()
    return found


def _fees(listed: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return the fees of takers and makers; where only one is listed, both pay it."""
    taker, maker = (listed[name] for name in FEES)
    return taker, taker if maker is None else maker


def _as_listed(
    execution: Execution,
    steps: Mapping[str, Mapping[str, float]],
    fees: tuple[float | None, float | None],
    symbols: int,
) -> Execution:
    """Return the assumptions with the steps of so many symbols, and fees, where they say none."""
    found: dict[str, Any] = {"instruments": None}
    for name, listed in steps.items():
        said = getattr(execution, name)
        if isinstance(said, Mapping):
            found[name] = {**listed, **said}
        elif not said and listed:
            same = len(set(listed.values())) == 1 and len(listed) == symbols
            found[name] = next(iter(listed.values())) if same else listed
    if fees[0] is not None and execution.maker_bps is None:
        taker = execution.taker_bps
        both = fees if taker == TAKER_BPS else (taker, taker)
        found |= dict(zip(FEES, both, strict=True))
    return replace(execution, **found)


def with_recorded_funding(
    execution: Execution, source: TickSource, symbols: Sequence[str], bounds: tuple[int, int]
) -> tuple[Execution, int | None]:
    """Return the assumptions with the funding that the source recorded within bounds (us).

    Beside them how many rates that are; None where those of the user stand, or there is nothing.

    Raises
    ------
    InvalidParameter
        If they are to be as recorded and the source has none.
    """
    if execution.funding not in ((), "recorded"):
        return execution, None
    if not {"mark", "funding"} & set(getattr(source, "data_types", ())):
        if execution.funding == "recorded":
            raise InvalidParameter(
                f"funding='recorded', and {source.id!r} has no funding that was recorded; record "
                "it with channels=['mark', 'funding'], give a frame of rates, or funding='none'"
            )
        return execution, None
    found: pl.DataFrame = pl.concat([source.funding(one) for one in symbols])  # type: ignore[attr-defined]
    time = pl.col("timestamp").dt.epoch("us")
    within = found.filter(time.is_between(*bounds)).select("timestamp", "symbol", "rate")
    return replace(execution, funding=within), within.height


def gap_records(found: pl.DataFrame | None, symbols: tuple[str, ...]) -> np.ndarray:
    """Return the ends of gaps (`GAPS`), ordered by time."""
    rows = [] if found is None else found.select("to_time", "symbol").rows()
    legs = {symbol: leg for leg, symbol in enumerate(symbols)}
    ends = [(to_micros(ended), legs[symbol]) for ended, symbol in rows]
    return np.array(sorted(ends), GAPS)


def scan_many(
    source: TickSource,
    symbols: Sequence[str],
    *,
    received: bool = False,
    **which: Unpack[Which],
) -> dict[str, Iterator[pl.DataFrame]]:
    """Return `scan_ticks` of each symbol; a session reads the rows of small ones together."""
    scan = getattr(source, "scan_many", None)
    if scan is not None and len(symbols) > 1:
        found: dict[str, Iterator[pl.DataFrame]] = scan(symbols, received=received, **which)
        return found
    return {name: source.scan_ticks(name, received=received, **which) for name in symbols}


def joined_ticks(
    source: TickSource,
    symbol: str,
    columns: frozenset[str] | None,
    *,
    decimals: int | None = None,
    also: Collection[str] = (),
    owner: str = "the strategy",
    chunks: Iterator[pl.DataFrame] | None = None,
    **which: Unpack[Which],
) -> Iterator[pl.DataFrame]:
    """Yield a symbol's ticks with all that a strategy reads, in bounded memory.

    Parameters
    ----------
    source, symbol, **which
        Which ticks, and how many at a time: the source's own choice unless given.
    columns
        What is read of them (`Signals.roots`); None, for a frame strategy, is all there is.
    owner
        Strategy and parameters, for error messages.
    decimals
        Of the symbol's prices; without them there is no ``price_ticks``.
    also
        Further columns, whether the strategy reads them or not: book columns, ``received_at``.
    chunks
        The ticks, where `scan_many` has them; None asks the source.

    Yields
    ------
    polars.DataFrame
        The source's columns, ``price_ticks`` (Int64) and, where asked for, book columns
        (``bid_price_1`` .. ``ask_qty_10``, ``spread``, ``mid``) and ``price:OTHER``, the last
        price of another symbol; null before there is any. Beside trades, books are those
        strictly before the tick; where the ticks are quotes, each row has its own book. A book
        that crosses or is out of order is null, as if there were none. No chunk size changes a
        value.

    Raises
    ------
    InvalidParameter
        If book columns are asked for and there are no books.
    SymbolNotFound
        If the price of a symbol is asked for that the source does not have.
    """
    wanted = _wanted(source, symbol, columns) | set(also)
    others = sorted(name for name in wanted if name.startswith(PRICE_OF))
    for name in others:
        if name.removeprefix(PRICE_OF) not in source.symbols:
            raise SymbolNotFound.named(name.removeprefix(PRICE_OF), source.symbols)
    book = [name for name in BOOK_COLUMNS if name in wanted]
    if chunks is None:
        chunks = source.scan_ticks(symbol, received="received_at" in wanted, **which)
    return _Joined(source, symbol, book, others, decimals, which, owner).frames(chunks)


def _wanted(source: TickSource, symbol: str, columns: frozenset[str] | None) -> set[str]:
    if columns is not None:
        return set(columns)
    books = BOOK_COLUMNS if source.has_books(symbol) else ()
    return {*books, *(f"{PRICE_OF}{other}" for other in source.symbols if other != symbol)}


@dataclass(frozen=True, slots=True)
class _Joined:
    """What is joined to a symbol's ticks: book columns, and prices of others."""

    source: TickSource
    symbol: str
    book: list[str]
    others: list[str]
    decimals: int | None
    which: Which
    owner: str

    def frames(self, chunks: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the chunks of ticks with all that is joined to them."""
        joins: list[AsOfJoin | ExactJoin] | None = None
        for chunk in chunks:
            if not chunk.height:  # a stretch of quotes without a mid
                continue
            missing = [name for name in self.book if name not in chunk.columns]
            if joins is None:
                joins = [*map(self._price_of, self.others), *self._books(chunk, missing)]
            whole = chunk
            for join in joins:
                whole = join.add(whole)
            whole = self._with_mid(_ticks.trusted(whole), missing)
            yield with_price_ticks(whole, self.decimals)

    def _books(self, chunk: pl.DataFrame, missing: list[str]) -> list[AsOfJoin | ExactJoin]:
        """Return the join that brings the missing columns; none if all of them are derived."""
        if missing and not self.source.has_books(self.symbol):
            raise InvalidParameter(
                f"{self.owner} asks for {missing[0]!r}, and session {self.source.id!r} has no "
                f"order books of {self.symbol}; choose a session with books (orderbook_count in "
                "lab.sessions()) or another strategy"
            )
        best = set(_ticks.BEST) if {"spread", "mid"} & set(missing) else set()
        levels = [name for name in book_levels() if name in {*missing, *best}]
        levels = [name for name in levels if name not in chunk.columns]
        if not levels:
            return []
        stream = self.source.scan_books(self.symbol, **self.which)
        if self.source.has_trades(self.symbol):
            stream = map(_ticks.trusted, stream)  # by all levels, whichever are read
            return [AsOfJoin(stream, dict.fromkeys(levels, pl.Float64()))]
        return [ExactJoin(stream, levels)]

    def _price_of(self, name: str) -> AsOfJoin:
        stream = self.source.scan_ticks(name.removeprefix(PRICE_OF), **self.which)
        renamed = (chunk.select("timestamp", pl.col("price").alias(name)) for chunk in stream)
        return AsOfJoin(renamed, {name: pl.Float64()})

    def _with_mid(self, frame: pl.DataFrame, missing: list[str]) -> pl.DataFrame:
        """Add `spread` and `mid` where they are wanted and missing."""
        if not {"spread", "mid"} & set(missing):
            return frame
        # The prices of a symbol without trades are its mids already.
        finer = decimals = self.decimals
        if decimals is not None and self.source.has_trades(self.symbol):
            finer = decimals + 1
        columns = {"spread": _ticks.spread(decimals), "mid": _ticks.mid(finer)}
        return frame.with_columns(**{name: columns[name] for name in columns if name in missing})


class AsOfJoin:
    """Another stream's last row strictly before each tick; holds one chunk of it at a time."""

    def __init__(self, stream: Iterator[pl.DataFrame], columns: dict[str, pl.DataType]) -> None:
        self._stream = stream
        self._names = ["timestamp", *columns]
        self._held = pl.DataFrame(schema={"timestamp": UTC_MICROS, **columns})
        self._ended = False

    def add(self, ticks: pl.DataFrame) -> pl.DataFrame:
        """Return the ticks with the stream's columns; ticks come in order, chunk after chunk."""
        parts = []
        rest = ticks
        while rest.height:
            # Ticks up to the last row held: nothing that comes later lies before them.
            ready = rest.height
            if not self._ended:
                ready = _up_to(rest, self._held["timestamp"].last()) if self._held.height else 0
            if ready:
                parts.append(self._join(rest.head(ready)))
                rest = rest.slice(ready)
            if rest.height:
                self._pull()
        return pl.concat(parts, rechunk=True) if parts else ticks

    def _join(self, ticks: pl.DataFrame) -> pl.DataFrame:
        joined = ticks.join_asof(
            self._held, on="timestamp", allow_exact_matches=False, check_sortedness=False
        )
        before = self._held["timestamp"].search_sorted(ticks["timestamp"][-1], side="left")
        self._held = self._held.slice(max(0, before - 1))
        return joined

    def _pull(self) -> None:
        chunk = next(self._stream, None)
        if chunk is None:
            self._ended = True
        else:
            self._held = pl.concat([self._held, chunk.select(self._names)], rechunk=True)


def _up_to(ticks: pl.DataFrame, time: Any) -> int:  # noqa: ANN401 - a datetime, says Polars
    found: int = ticks["timestamp"].search_sorted(time, side="right")
    return found


class ExactJoin:
    """The rows of another stream that are the ticks' own: the same timestamp and seq."""

    def __init__(self, stream: Iterator[pl.DataFrame], columns: list[str]) -> None:
        self._stream = stream
        self._names = ["timestamp", "seq", *columns]
        self._held: pl.DataFrame | None = None

    def add(self, ticks: pl.DataFrame) -> pl.DataFrame:
        """Return the ticks with the stream's columns; ticks come in order, chunk after chunk."""
        last = ticks["timestamp"][-1]
        held = [] if self._held is None else [self._held]
        while not held or not held[-1].height or held[-1]["timestamp"].last() <= last:
            chunk = next(self._stream, None)
            if chunk is None:
                break
            held.append(chunk.select(self._names))
        rows = pl.concat(held)
        self._held = rows.filter(pl.col("timestamp") >= last)
        return ticks.join(rows, on=["timestamp", "seq"], how="left", maintain_order="left")


def with_price_ticks(frame: pl.DataFrame, decimals: int | None) -> pl.DataFrame:
    """Add `price_ticks` (Int64): the price in units of its last decimal. Not without decimals."""
    from fxlab.backtester._kernel.columns import to_ticks

    if decimals is None or PRICE_TICKS in frame.columns:
        return frame
    ticks = np.empty(frame.height, np.int64)
    if not to_ticks(frame["price"].to_numpy(), 10.0**decimals, ticks):
        raise InvalidTicks(
            f"prices of up to {frame['price'].max()!r} with {decimals} decimals are more units of "
            f"the last one than floats can tell apart (2^53); {advice(frame['price'])}"
        )
    return frame.with_columns(pl.Series(PRICE_TICKS, ticks))
