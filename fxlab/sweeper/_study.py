"""Sweep study: strategy, session, assumptions; its cached ticks, run time, look-ahead check.

Its points differ in parameters only, so they share the ticks, can be compared with each other, and
are found again under the study's key when the same is asked for another time. How long a sweep will
take is measured on its first ticks and said before it runs.

A sweep goes over its ticks several times: for the look-ahead check, for each group of points, for
each fold of a walk-forward. What is not larger than `KEEP_BYTES` is read once and kept.

A strategy that sees the future gives the best results of all, so a sweep would find it first. The
check before a sweep is a sample: few points, the first ticks; `fxlab.check_lookahead` does it
thoroughly.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final, Unpack

import polars as pl
import xxhash

from fxlab._progress import Advance
from fxlab._times import Time, parse_range
from fxlab.backtester._feeds import SymbolChunk, needs_of, open_feeds
from fxlab.backtester._frame_source import FrameSource, slices
from fxlab.backtester._kernel.records import MarketArrays
from fxlab.backtester._market_arrays import merge
from fxlab.backtester._source import (
    TickSource,
    Which,
    as_source,
    instruments_of,
    no_ticks,
    scan_many,
    share_before,
)
from fxlab.backtester.engine import prepare, with_execution
from fxlab.backtester.execution import Execution
from fxlab.backtester.lookahead import SAMPLE_CUTS, SAMPLE_ROWS, check_lookahead
from fxlab.backtester.options import RunOptions
from fxlab.backtester.result import fingerprint_inputs, fingerprint_of
from fxlab.backtester.strategy.signals import Signals
from fxlab.backtester.strategy.strategy import Strategy
from fxlab.errors import Cancelled, FxlabError, InvalidParameter, LookaheadFound
from fxlab.sweeper._space import Point, Space
from fxlab.sweeper._trial import Account, Periods, Trial

CHUNK_ROWS: Final = 1 << 19
"""Rows of a symbol that all points work on before the next ones are read."""


@dataclass(frozen=True)
class SweepConfig:
    """What all points of a sweep have in common."""

    strategy: Strategy
    options: RunOptions
    source_text: str
    """The strategy's source; another process might not find it."""

    scenarios: tuple[Execution, ...] = ()
    """Other assumptions, which read the same of the market: each point is replayed under them."""


class SweepStudy:
    """One session under the terms of a sweep.

    Parameters
    ----------
    source
        Its ticks.
    terms
        Strategy and assumptions.
    example
        A point that the strategy takes: all else is checked with it.
    """

    def __init__(self, source: TickSource, terms: SweepConfig, example: Point) -> None:
        # A frame is in memory already.
        kept = isinstance(source, CachedSource | FrameSource)
        self.source: TickSource = source if kept else CachedSource(source)
        self.terms = terms
        self.example = example
        job = prepare(self.source, terms.strategy, example.values, terms.options)
        self.run, self.bounds = job.run, job.bounds
        others = (with_execution(job, terms.options.execution, one) for one in terms.scenarios)
        self._opened = [(each.run, each.state) for each in (job, *others)]
        self.periods = Periods.of(self.bounds, self.run.grid_us)

    @property
    def is_quick(self) -> bool:
        """Whether another pass over the ticks costs no reading."""
        return not isinstance(self.source, CachedSource) or self.source.is_quick

    def trial(self, point: Point) -> Trial:
        """Return a point that has not begun; raises what the strategy raises."""
        signals = self.run.strategy.signals(point.values)
        accounts = [
            Account(dataclasses.replace(run, parameters=point.values), state.reopened(signals))
            for run, state in self._opened
        ]
        return Trial(point, signals, accounts, self.periods)

    @cached_property
    def session(self) -> str:
        """Return the session's id; of a frame, one made of its content."""
        source = self.source
        return f"frame_{_content(source)[:16]}" if isinstance(source, FrameSource) else source.id

    @cached_property
    def key(self) -> str:
        """Return the id under which points are kept: of all that decides them but parameters.

        A completed session never changes, so its entry in the catalogue stands for its rows; a
        frame and a session that still grows are hashed.
        """
        asked = self.run.options() | {"symbols": list(self.run.symbols)}
        rows = self._identity() | {name: str(value) for name, value in asked.items()}
        return f"sweep_{fingerprint_of(self.ingredients(rows), {})[:24]}"

    def ingredients(self, rows: Mapping[str, str]) -> dict[str, Any]:
        """Return what fingerprints are made of; `rows` stands for the ticks."""
        return fingerprint_inputs(self.run, rows) | {"strategy": self.terms.source_text}

    def _identity(self) -> dict[str, str]:
        source = self.source.source if isinstance(self.source, CachedSource) else self.source
        if isinstance(source, FrameSource):
            return {"frame": _content(source)}
        if getattr(source, "status", "") == "completed":
            names = ("id", "created_at", "updated_at", "prices_count", "orderbook_count")
            return {name: str(getattr(source, name, "")) for name in names}
        reading = Reading(self, [self.run.strategy.signals(self.example.values)])
        for _ in reading.market():
            pass
        found: dict[str, str] = reading.ingredients["rows"]
        return found


class Reading:
    """One pass over a study's ticks."""

    def __init__(self, study: SweepStudy, signals: Sequence[Signals]) -> None:
        run = study.run
        self._study = study
        self._shared = _sharing(signals)
        self._feeds, self._books = open_feeds(
            study.source,
            run.symbols,
            needs_of(signals, run.execution),
            owner=signals[0].owner,
            **run.which(study.terms.options.chunk_rows or CHUNK_ROWS),
        )

    def market(self) -> Iterator[tuple[MarketArrays, list[SymbolChunk]]]:
        """Yield the market and its chunks, all that points share already computed.

        Raises
        ------
        EmptySession
            After the last, if there was none.
        """
        empty = True
        for market, chunks in merge(len(self._study.run.symbols), self._feeds, self._books):
            empty = False
            for chunk in chunks:
                chunk.frame = self._shared(chunk.frame)
            yield market, chunks
        if empty:
            raise no_ticks(self._study.source, self._study.run.symbols)

    @property
    def ingredients(self) -> dict[str, Any]:
        """Return what fingerprints of points are made of, beside their parameters."""
        digests = {feed.symbol: feed.hexdigest() for feed in self._feeds}
        return self._study.ingredients(digests)


def _sharing(signals: Sequence[Signals]) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Return what prepares a frame for all points: contiguous columns."""
    roots = frozenset().union(*(one.roots or () for one in signals))
    return lambda frame: frame.with_columns(
        frame[name].rechunk() for name in roots & set(frame.columns)
    )


def _content(source: FrameSource) -> str:
    """Return a hash of all that a frame source holds."""
    hasher = xxhash.xxh3_128()
    for frame in (source.frame, source.books, source.known_gaps):
        if isinstance(frame, pl.DataFrame):
            hasher.update(",".join(frame.columns).encode())
            hasher.update(frame.hash_rows().to_numpy().data)
    return hasher.hexdigest()


def studies_of(source: object, terms: SweepConfig, example: Point) -> list[SweepStudy]:
    """Return a study of each source, each session once."""
    sources = list(source) if isinstance(source, list | tuple) else [source]
    if not sources:
        raise InvalidParameter(
            "there is no session to sweep over; list sessions with lab.sessions() and pass "
            "[lab.session(session_id), ...]"
        )
    studies = [SweepStudy(as_source(one), terms, example) for one in sources]
    names = [study.session for study in studies] if len(studies) > 1 else []
    for name in names:
        if names.count(name) > 1:
            raise InvalidParameter(
                f"session {name!r} is given {names.count(name)} times; once is enough"
            )
    return studies


def refuse_if_too_many(
    space: Space, studies: Sequence[SweepStudy], workers: int, points_limit: int
) -> None:
    """Raise `InvalidParameter` for a grid beyond the limit, with the time it would take."""
    if space.count <= points_limit:
        return
    seconds = sum(map(seconds_a_point, studies)) * space.count / workers
    raise InvalidParameter(
        f"the grid has {space.count:,} points ({space.words}), about {duration_words(seconds)} on "
        f"{workers} core{'s' * (workers > 1)}; use search='random', points=500, or give "
        f"points_limit={space.count} if you mean it"
    )


def seconds_a_point(study: SweepStudy) -> float:
    """Return about how long one point of a study takes on one core, from its first chunk."""
    trials = [study.trial(study.example) for _ in range(2)]
    market, chunks = next(Reading(study, [trials[0].signals]).market())
    trials[0].advance(market, chunks)  # compiles
    began = time.perf_counter()
    trials[1].advance(market, chunks)
    spent = time.perf_counter() - began
    return spent / max(1e-6, share_before(study.bounds, int(market.time[-1])))


def duration_words(seconds: float) -> str:
    """Return a duration as people say it: ``12 s``, ``3 min``, ``5 h``, ``12 days``."""
    for unit, size, until in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < until:
            return f"{max(1, round(seconds / size)):,} {unit}"
    return f"{round(seconds / 86_400):,} days"


def time_left(began: float, worked: float, left: float) -> str:
    """Return ``, 3 min left``, by the pace since `began` (monotonic); nothing if none is known."""
    if not (worked and left):
        return ""
    return f", {duration_words((time.monotonic() - began) * left / worked)} left"


def check_sampled_lookahead(study: SweepStudy, points: Sequence[Point], progress: Advance) -> None:
    """Raise `LookaheadFound` if one of the points depends on later ticks.

    `progress` hears that it goes on, and may raise `Cancelled`.

    A point whose strategy fails for another reason is left to the sweep, which says so.
    """
    for point in points:
        try:
            check_lookahead(
                study.source,
                study.run.strategy,
                point.values,
                symbols=study.run.symbols,
                start=study.run.start,
                end=study.run.end,
                cuts=SAMPLE_CUTS,
                sample_rows=SAMPLE_ROWS,
                progress=progress,
            )
        except LookaheadFound as found:
            raise LookaheadFound(
                f"{found} (checked before the sweep, at {point.key}; check_lookahead=False leaves "
                "the check out)"
            ) from None
        except Cancelled:
            raise
        except FxlabError:  # the sweep meets it again, and keeps it with its point
            continue


KEEP_BYTES: Final = 1 << 30


class CachedSource:
    """A `TickSource` in front of another one.

    Parameters
    ----------
    source
        A session.
    """

    def __init__(self, source: TickSource) -> None:
        self.source = source
        self.id, self.symbols = source.id, source.symbols
        self.started, self.ended = source.started, source.ended
        self.price_decimals = source.price_decimals
        self.data_types: tuple[str, ...] = getattr(source, "data_types", ())
        self._kept: dict[tuple[str, str], list[tuple[float, float, list[pl.DataFrame]]]] = {}
        self._bytes = 0
        self._facts: dict[tuple[str, str], Any] = {}

    def funding(self, symbol: str) -> pl.DataFrame:
        """Return the recorded funding of a symbol; only of a source that has some; asked once."""
        found: pl.DataFrame = self._fact("funding", symbol)
        return found

    def instruments(self) -> pl.DataFrame:
        """Return what the venue listed of the symbols, as far as the source knows."""
        return instruments_of(self.source)

    @property
    def is_quick(self) -> bool:
        """Whether something was kept, so that another pass costs no reading."""
        return bool(self._kept)

    def scan_ticks(
        self, symbol: str, *, received: bool = False, **which: Unpack[Which]
    ) -> Iterator[pl.DataFrame]:
        """Yield the symbol's ticks, from memory where they were kept."""
        return self.scan_many([symbol], received=received, **which)[symbol]

    def scan_many(
        self, symbols: Sequence[str], *, received: bool = False, **which: Unpack[Which]
    ) -> dict[str, Iterator[pl.DataFrame]]:
        """Return `scan_ticks` of each symbol; those that were not kept are asked for together."""
        what = f"ticks received={received}"
        found = {name: self._in_memory(what, name, which) for name in symbols}
        missing = [name for name, kept in found.items() if kept is None]
        fresh = scan_many(self.source, missing, received=received, **which)
        return {
            name: kept or self._keeping(what, name, which, fresh[name])
            for name, kept in found.items()
        }

    def count_ticks(
        self, symbol: str, *, start: Time | None = None, end: Time | None = None
    ) -> int:
        """Return how many ticks `scan_ticks` yields."""
        return self.source.count_ticks(symbol, start=start, end=end)

    def scan_books(self, symbol: str, **which: Unpack[Which]) -> Iterator[pl.DataFrame]:
        """Yield the symbol's books, from memory where they were kept."""
        kept = self._in_memory("books", symbol, which)
        return kept or self._keeping(
            "books", symbol, which, self.source.scan_books(symbol, **which)
        )

    def has_books(self, symbol: str) -> bool:
        """Return whether there are order books of the symbol; asked once."""
        return bool(self._fact("has_books", symbol))

    def has_trades(self, symbol: str) -> bool:
        """Return whether there are trades of the symbol; asked once."""
        return bool(self._fact("has_trades", symbol))

    def gaps(self, symbol: str) -> pl.DataFrame:
        """Return the symbol's known gaps; asked once."""
        return self.gaps_by_symbol([symbol])[symbol]

    def gaps_by_symbol(self, symbols: Iterable[str]) -> dict[str, pl.DataFrame]:
        """Return the known gaps of each symbol; asked once."""
        names = tuple(symbols)
        missing = [name for name in names if ("gaps", name) not in self._facts]
        if missing:
            found = self.source.gaps_by_symbol(missing)
            self._facts.update({("gaps", name): gaps for name, gaps in found.items()})
        return {name: self._facts["gaps", name] for name in names}

    def _fact(self, name: str, symbol: str) -> Any:  # noqa: ANN401 - whatever the source says
        if (name, symbol) not in self._facts:
            self._facts[name, symbol] = getattr(self.source, name)(symbol)
        return self._facts[name, symbol]

    def _in_memory(self, what: str, symbol: str, which: Which) -> Iterator[pl.DataFrame] | None:
        """Return the rows if they were kept."""
        start, end, size = which.get("start"), which.get("end"), which.get("chunk_rows")
        low, high = _range_of(which)
        for first, last, frames in list(self._kept.get((what, symbol), ())):  # others may add
            if first <= low and high <= last:
                return chain.from_iterable(slices(frame, start, end, size) for frame in frames)
        return None

    def _keeping(
        self, what: str, symbol: str, which: Which, chunks: Iterator[pl.DataFrame]
    ) -> Iterator[pl.DataFrame]:
        """Pass chunks on, and keep them all if they fit."""
        room = KEEP_BYTES - self._bytes
        kept: list[pl.DataFrame] = []
        for chunk in chunks:
            room -= int(chunk.estimated_size())
            if room >= 0:
                kept.append(chunk)
            else:
                kept.clear()
            yield chunk
        if room >= 0:
            self._kept.setdefault((what, symbol), []).append((*_range_of(which), kept))
            self._bytes += sum(int(frame.estimated_size()) for frame in kept)


def _range_of(which: Which) -> tuple[float, float]:
    begin, until = parse_range(which.get("start"), which.get("end"))
    return -math.inf if begin is None else begin, math.inf if until is None else until
