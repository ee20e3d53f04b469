"""The twin fed with the frames, costs and constants that a user gives the engine.

Its own reading of a market (columns to rows) and of an `fxlab.Execution` (bps to fractions): only
the table of drawn delays and the spacing of samples are the engine's.
"""

from __future__ import annotations

import polars as pl
from markets import DEPTH, Recording
from twin import replay
from twin_market import Exits, Rate, TwinBook, TwinDecision, TwinResult, TwinRow, TwinTerms

import fxlab
from fxlab._times import parse_duration

STEPS = ("lot_size", "min_notional", "tick_size")
FIXED_FEES = ("fee_per_order", "fee_per_unit", "min_fee")
SIDES = {"buy": 1, "sell": -1, None: 0}


def replay_recording(
    recording: Recording,
    execution: fxlab.Execution,
    constants: dict[str, object],
    *,
    capital: float,
    interval: int,
) -> TwinResult:
    """Return what the twin makes of a recording."""
    rows = [_tick(record) for record in _records(recording.ticks)]
    rows = [row for row in rows if row.price is not None]
    if recording.books is not None and execution.fill == "book":
        for record in _records(recording.books):
            rows.append(TwinRow(record["timestamp"], record["symbol"], book=_book(record)))
    symbols = recording.symbols
    terms = _terms(execution, constants, symbols, interval)
    gaps = [(symbol, end) for end in _micros(recording.gaps)["to_time"] for symbol in symbols]
    return replay(rows, symbols, TwinTerms(**terms, gaps=tuple(gaps)), capital)


def _micros(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(pl.Datetime("us", "UTC")).cast(pl.Int64))


def _records(frame: pl.DataFrame) -> list[dict]:
    return _micros(frame).to_dicts()


def _tick(record: dict) -> TwinRow:
    book = _book(record) if "bid_price_1" in record else None
    price = record["price"] if book is None else _mid(record["bid_price_1"], record["ask_price_1"])
    return TwinRow(
        time=record["timestamp"],
        leg=record["symbol"],
        price=price,
        book=book,
        volume=record.get("volume") or 0.0,
        taker=SIDES[record.get("side")],
        delay=record["received_at"] - record["timestamp"],
        decision=_decision(record),
    )


def _decision(record: dict) -> TwinDecision | None:
    if record["wanted"] is None:
        return None
    exits = Exits(record["stop"], record["take"], record["trail"])
    return TwinDecision(record["wanted"], exits, record["limit"])


def _book(record: dict) -> TwinBook:
    sides = []
    for side in ("bid", "ask"):
        levels = [
            (record[f"{side}_price_{level}"], record[f"{side}_qty_{level}"] or 0.0)
            for level in range(1, DEPTH + 1)
        ]
        there = [level for level in levels if level[0] is not None]
        if there != levels[: len(there)]:  # one is missing before another
            return TwinBook(record["timestamp"])
        sides.append(tuple(there))
    return TwinBook(record["timestamp"], *sides)


def _mid(bid: float | None, ask: float | None) -> float | None:
    if bid is None or ask is None or bid > ask:
        return None
    return round((bid + ask) / 2, 2)


def _terms(
    execution: fxlab.Execution, constants: dict[str, object], symbols: list[str], interval: int
) -> dict[str, object]:
    maker = execution.taker_bps if execution.maker_bps is None else execution.maker_bps
    rates = [
        Rate(time, symbol, long, short)
        for named, time, long, short in execution.rates
        for symbol in symbols
        if named in {None, symbol}
    ]
    steps = {
        name: {symbol: _of(getattr(execution, name), symbol) for symbol in symbols}
        for name in (*STEPS, *FIXED_FEES)
    }
    return {
        **steps,
        "book": execution.fill == "book",
        "taker": execution.taker_bps / 10_000,
        "maker": maker / 10_000,
        "slippage": execution.slippage_bps / 10_000,
        "impact": execution.impact_bps / 10_000,
        "impact_notional": execution.impact_notional,
        "delay": _delay(execution, symbols),
        "max_book_age": _duration(execution.max_book_age),
        "last_level": execution.beyond_depth == "last_level",
        "touch": execution.touch,
        "queue": execution.queue,
        "max_leverage": execution.max_leverage,
        "maintenance": execution.maintenance_margin,
        "liquidation": execution.liquidation_bps / 10_000,
        "funding": tuple(rates),
        "rebalance": execution.rebalance,
        "across_gaps": execution.across_gaps,
        "close_at_end": execution.close_at_end,
        "shared_cash": execution.shared_cash,
        "max_holding": _duration(constants.get("max_holding")),
        "cooldown": _duration(constants.get("cooldown")) or 0,
        "reenter": constants.get("reentry") == "signal",
        "interval": interval,
    }


def _of(value: object, symbol: str) -> float:
    return value.get(symbol, 0.0) if isinstance(value, dict) else value


def _duration(value: object) -> int | None:
    return None if value is None else parse_duration(value, "duration")


def _delay(execution: fxlab.Execution, symbols: list[str]) -> object:
    latency = execution.delays
    if latency.is_measured:
        return lambda _leg, _count, row: row.delay + int(latency.values[0])
    table = latency.table(symbols)
    return lambda leg, count, _row: int(table[symbols.index(leg)][count % table.shape[1]])
