"""Seeded and hypothesis-made markets, shared by the tests of the backtester."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import polars as pl
from hypothesis import strategies as st

START = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z

SMALL = {
    "sma_cross": {"fast": 3, "slow": 8},
    "mean_reversion": {"window": 6, "entry_bps": 8.0},
    "breakout": {"entry": 9, "leave": 4},
    "buy_and_hold": {},
    "ema_cross": {"fast": 3, "slow": 8},
    "momentum": {"window": 7, "threshold_bps": 6.0},
    "vwap_reversion": {"anchor_hours": 1, "entry_bps": 8.0},
    "book_imbalance": {"levels": 1, "threshold": 0.3},
    "bracket_breakout": {"entry": 9, "stop_bps": 8.0, "profit_bps": 12.0, "trail_bps": 10.0},
    "bollinger_bars": {"every": "2s", "window": 4, "width": 1.0},
}
"""Parameters with which every shipped strategy trades on a short random walk."""


def random_walk(rows: int, seed: int = 7, *, symbol: str | None = None) -> pl.DataFrame:
    """Return ticks on a 0.01 grid; about a third share their timestamp with the one before.

    Quantities of a best quote stand beside them, for strategies that read books.
    """
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 3, rows) * rng.integers(0, 400_000, rows)
    prices = np.maximum(100, 10_000 + np.cumsum(rng.integers(-6, 7, rows)))
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(START + np.cumsum(steps)).cast(pl.Datetime("us", "UTC")),
            "seq": np.arange(rows, dtype=np.int64),
            "price": prices / 100,
            "volume": rng.integers(1, 1000, rows) / 1000,
            "bid_qty_1": rng.integers(1, 1000, rows) / 1000,
            "ask_qty_1": rng.integers(1, 1000, rows) / 1000,
        }
    )
    return frame if symbol is None else frame.with_columns(symbol=pl.lit(symbol))


def recorded_walk(rows: int, seed: int = 7, *, symbol: str) -> pl.DataFrame:
    """Return the ticks of `random_walk` as a session takes them: trades carry no quantities."""
    return random_walk(rows, seed, symbol=symbol).drop("bid_qty_1", "ask_qty_1")


@st.composite
def markets(draw: st.DrawFn, *, max_rows: int = 60, symbols: int = 1) -> pl.DataFrame:
    """Draw ticks with gaps and equal timestamps, each with a wanted target (null keeps)."""
    frames = []
    for number in range(symbols):
        rows = draw(st.integers(1, max_rows))
        gaps = draw(
            st.lists(st.sampled_from([0, 0, 1, 1_000, 90_000_000]), min_size=rows, max_size=rows)
        )
        prices = draw(st.lists(st.integers(50, 200), min_size=rows, max_size=rows))
        targets = draw(
            st.lists(
                st.sampled_from([None, None, -1.0, -0.5, 0.0, 0.25, 1.0]),
                min_size=rows,
                max_size=rows,
            )
        )
        frames.append(
            pl.DataFrame(
                {
                    "timestamp": pl.Series(START + np.cumsum(gaps)).cast(pl.Datetime("us", "UTC")),
                    "seq": np.arange(rows, dtype=np.int64),
                    "symbol": [f"S{number}"] * rows,
                    "price": np.array(prices) / 10,
                    "wanted": pl.Series(targets, dtype=pl.Float64),
                }
            )
        )
    return pl.concat(frames)


def walk_with_targets(rows: int, seed: int) -> pl.DataFrame:
    """Return a random walk whose rows carry a random wanted target, mostly null."""
    rng = np.random.default_rng(seed)
    wanted = rng.choice([np.nan, np.nan, np.nan, -1.0, -0.3, 0.0, 0.5, 1.0], rows)
    return random_walk(rows, seed).with_columns(wanted=pl.Series(wanted).fill_nan(None))


# ---- Markets with everything in them, for the comparison of engine and twin ----

DEPTH = 10
ROOM = (0, 0, 0, 1, 1_000, 40_000, 3_000_000, 90_000_000)
"""Microseconds from a row to the next: equal times, neighbours, holes."""
STEPS = (0, 0, 1, -1, 1, -1, 2, -2, 3, -3, 5, -5, 8, -8, 12, -12, 50, -50)
"""Tenths from a price to the next."""
TARGETS = (-2.0, -1.0, -1.0, -0.5, 0.0, 0.0, 0.0, 0.25, 0.5, 1.0, 1.0, 1.0, 3.0)
# Fractions that no ratio of two prices on the grid is equal to: a level that a price meets
# exactly would be decided by the last bit of an average.
STOPS = (None, None, 0.0131, 0.0371, 0.1173, 0.4391)
PROFITS = (None, None, 0.0113, 0.0371, 0.1973, 0.8391)
SHOWN = (None, 0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 64.0, 512.0)


@dataclass(frozen=True)
class Recording:
    """One drawn market: frames as a user would give them, prices on a grid of 0.1."""

    ticks: pl.DataFrame
    books: pl.DataFrame | None
    gaps: pl.DataFrame

    @property
    def symbols(self) -> list[str]:
        """Return the symbols, in order."""
        return self.ticks["symbol"].unique(maintain_order=True).to_list()


@st.composite
def recordings(
    draw: st.DrawFn,
    *,
    kind: str = "trades",
    legs: int | None = None,
    max_rows: int = 24,
    max_leverage: float = 1.0,
) -> Recording:
    """Draw trades, trades beside books (kind "books") or quotes, with decisions on their rows.

    A row is drawn as one number that stands for room, step of price and everything else, so
    that a failing example shrinks to few rows, equal times and small steps.
    """
    legs = legs or draw(st.integers(1, 3))
    ticks, books = [], []
    for number in range(legs):
        symbol = f"S{number}"
        rows = _drawn_rows(draw, max_rows)
        ticks += _tick_rows(symbol, rows, quotes=kind == "quotes", most=max_leverage)
        if kind == "books":
            books += _book_rows(symbol, _drawn_rows(draw, max_rows))
    ends = draw(st.lists(st.sampled_from(ROOM), max_size=3))
    return Recording(
        pl.DataFrame(ticks, schema=_tick_schema(quotes=kind == "quotes"), orient="row"),
        pl.DataFrame(books, schema=_BOOKS, orient="row") if kind == "books" else None,
        _holes(ends),
    )


def _drawn_rows(draw: st.DrawFn, most: int) -> list[tuple[int, int, int]]:
    count = draw(st.integers(1, most))
    codes = draw(st.lists(st.integers(0, 10**6), min_size=count, max_size=count))
    rows = []
    for code in codes:
        rest, room = divmod(code, len(ROOM))
        rest, step = divmod(rest, len(STEPS))
        rows.append((ROOM[room], STEPS[step], rest))
    return rows


_TIME = {"timestamp": pl.Datetime("us", "UTC")}
_LEVELS = {
    f"{side}_{what}_{level}": pl.Float64
    for side in ("bid", "ask")
    for level in range(1, DEPTH + 1)
    for what in ("price", "qty")
}
_BOOKS = {**_TIME, "seq": pl.Int64, "symbol": pl.String, **_LEVELS}
_WISHES = ("wanted", "stop", "take", "trail", "limit")


def _tick_schema(*, quotes: bool) -> dict:
    shown = _LEVELS if quotes else {"price": pl.Float64, "volume": pl.Float64, "side": pl.String}
    wishes = dict.fromkeys(_WISHES, pl.Float64)
    received = {"received_at": pl.Datetime("us", "UTC")}
    return {**_TIME, "seq": pl.Int64, "symbol": pl.String, **received, **shown, **wishes}


@st.composite
def queues(draw: st.DrawFn) -> Recording:
    """Draw a limit order that rests at 10.0, and trades and books that move its queue."""
    way = draw(st.sampled_from((-1, 1)))  # 1 buys
    target, together = draw(st.sampled_from((0.01, 0.1, 1.0))), draw(st.integers(1, 2))
    codes = draw(st.lists(st.integers(0, 10**6), min_size=3, max_size=30))
    first = [START, 0, "S0", START, 10.2, 1.0, None]
    ticks = [[*first, way * target, None, None, None, 10.0]]
    books = [[START - 1, 0, "S0", *_around(way, draw(st.sampled_from(SHOWN)), 2)]]
    for number, code in enumerate(codes, start=1):
        now, chance = START + 1 + (number - 1) // together, random.Random(code)
        distance = chance.choice((0, 0, 0, 0, 0, 0, 1, 2, -1, -3))
        if chance.random() < 0.2:
            books.append([now, number, "S0", *_around(way, chance.choice(SHOWN), distance)])
            continue
        price, size = (100 + way * distance) / 10, chance.choice((0.0, 0.25, 0.5, 1.0, 4.0))
        wishes = [0.0 if chance.random() < 0.04 else None, None, None, None, None]
        side = chance.choice(("buy", "sell", None))
        ticks.append([now, number, "S0", now, price, size, side, *wishes])
    return Recording(
        pl.DataFrame(ticks, schema=_tick_schema(quotes=False), orient="row"),
        pl.DataFrame(books, schema=_BOOKS, orient="row"),
        _holes([]),
    )


def _around(way: int, shown: float | None, distance: int) -> list[float | None]:
    """Return a book with `shown` at 10.0 on one side and the other side's best at a distance."""
    own = [(100 + way) / 10, 1.0, 10.0, shown, (100 - way) / 10, 2.0]
    if distance > 1:
        own = own[2:]  # the order's price is the best
    best = (100 + way * (distance + 2)) / 10
    other = [best, 4.0]
    behind = [k for k in range(0, len(own), 2) if (best - own[k]) * way > 0]
    own = own[behind[0] :] if behind else []  # what crosses is no book
    sides = [side + [None] * (2 * DEPTH - len(side)) for side in (own, other)]
    return sides[0] + sides[1] if way > 0 else sides[1] + sides[0]


def long_recording(seed: int, *, kind: str, legs: int, rows: int, max_leverage: float) -> Recording:
    """Return a seeded market of many quiet rows with few decisions, as strategies see them."""
    chance = random.Random(seed)
    calm = chance.choice((0.95, 0.99, 0.998))
    rooms = (0, 0, 1, 1_000, 40_000, 500_000)

    def some() -> list[tuple[int, int, int]]:
        return [
            (chance.choice(rooms), chance.choice((-1, 0, 0, 1)), chance.randrange(10**6))
            for _ in range(chance.randint(rows // 2, rows))
        ]

    ticks, books = [], []
    for number in range(legs):
        own = some()
        own[chance.randrange(len(own))] = (90_000_000, 9, 1)
        quotes = kind == "quotes"
        ticks += _tick_rows(f"S{number}", own, quotes=quotes, most=max_leverage, calm=calm)
        books += _book_rows(f"S{number}", some()) if kind == "books" else []
    return Recording(
        pl.DataFrame(ticks, schema=_tick_schema(quotes=kind == "quotes"), orient="row"),
        pl.DataFrame(books, schema=_BOOKS, orient="row") if kind == "books" else None,
        _holes([chance.randrange(60_000_000) for _ in range(5)]),
    )


def _tick_rows(
    symbol: str, rows: list, *, quotes: bool, most: float, calm: float = 0.55
) -> list[list]:
    made, now, tenths = [], START, 100
    for seq, (room, step, code) in enumerate(rows):
        now, tenths = now + room, min(250, max(40, tenths + step))
        chance = random.Random(code)
        wishes = _wishes(chance, tenths, most, calm)
        received = now + chance.choice((0, 1, 900, 50_000))
        if quotes:
            shown = _levels(chance, tenths, one_sided=False)
            shown = _broken(chance, shown) if seq else shown
        else:
            shown = [tenths / 10, chance.choice(SHOWN[1:]), chance.choice(("buy", "sell", None))]
        made.append([now, seq, symbol, received, *shown, *wishes])
    return made


def _book_rows(symbol: str, rows: list) -> list[list]:
    made, now, tenths = [], START, 100
    for seq, (room, step, code) in enumerate(rows):
        now, tenths = now + room, min(250, max(40, tenths + step))
        chance = random.Random(code)
        made.append([now, seq, symbol, *_broken(chance, _levels(chance, tenths))])
    return made


def _levels(chance: random.Random, tenths: int, *, one_sided: bool = True) -> list[float | None]:
    """Return bids below and asks above a price; few levels, some without quantity."""
    sides = []
    for way in (-1, 1):
        count = chance.choice((1, 2, 2, 3, DEPTH)) if chance.random() < 0.9 or not one_sided else 0
        price, levels = tenths, []
        for _ in range(count):
            price += way * chance.choice((1, 1, 2, 5))
            levels += [price / 10, chance.choice(SHOWN)]
        sides += levels + [None] * (2 * DEPTH - len(levels))
    return sides


def _broken(chance: random.Random, levels: list[float | None]) -> list[float | None]:
    """Return a book that crosses or is out of order now and then."""
    if chance.random() < 0.92:
        return levels
    broken = list(levels)
    side = 2 * DEPTH * chance.randrange(2)
    if chance.random() < 0.5:
        broken[0], broken[2 * DEPTH] = broken[2 * DEPTH], broken[0]
        broken[0] = broken[0] if chance.random() < 0.5 else broken[2 * DEPTH]  # or locks
    else:
        broken[side], broken[side + 2] = broken[side + 2], broken[side]
    return broken


def _wishes(chance: random.Random, tenths: int, most: float, calm: float) -> list[float | None]:
    """Return target, stop loss, take profit, trailing stop and limit; mostly nothing."""
    if chance.random() < calm:
        return [None] * len(_WISHES)
    target = max(-most, min(most, chance.choice(TARGETS)))
    limit = None
    if chance.random() < 0.5:
        limit = (tenths + chance.choice((-6, -3, -2, -1, -1, 0, 1, 1, 2, 3, 6))) / 10
    return [target, chance.choice(STOPS), chance.choice(PROFITS), chance.choice(STOPS), limit]


def _holes(rooms: list[int]) -> pl.DataFrame:
    """Return known holes, one after the other."""
    made, now = [], START
    for room in rooms:
        made.append([now + room // 2, now + room])
        now += room + 2
    kinds = {"from_time": pl.Datetime("us", "UTC"), "to_time": pl.Datetime("us", "UTC")}
    return pl.DataFrame(made, schema=kinds, orient="row")
