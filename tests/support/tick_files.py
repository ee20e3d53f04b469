"""Seeded ticks and the files the older system would have written of them, shared by tests."""

from __future__ import annotations

import random
from pathlib import Path

START = 1_723_161_255.342  # 2024-08-08T23:54:15.342Z, float seconds as the old files have them
PRICES_HEADER = "timestamp,price,volume,quote_volume"
BOOK_HEADER = (
    "timestamp,bid_price_1,bid_qty_1,bid_price_2,bid_qty_2,bid_price_3,bid_qty_3,"
    "ask_price_1,ask_qty_1,ask_price_2,ask_qty_2,ask_price_3,ask_qty_3,best_bid,best_ask,spread"
)

# What must never reach SQL, a file name or the database as an id.
HOSTILE_IDS = (
    "x' OR '1'='1", "x'; drop table tick_prices; --", "x''", "'", '"', "`id`", "x;y", "x;--",
    "x/*y*/", "x y", " x", "x ", "x\n", "x\r\n", "x\ty", "x,y", "x=y", "x\\", "x\\'", "x%", "x%27",
    "x*", "x(1)", "{x}", "${x}", "$(id)", "x|y", "x&y", "<b>x</b>", "x\0", "../../etc/passwd",
    "/etc/passwd", "..\\x", "é", "\uff58", "x\u200b", "\u202ex", "\U0001f600", "", "a" * 65,
    "a" * 10_000, ".", "..",
)  # fmt: skip
HOSTILE_SYMBOLS = (*HOSTILE_IDS[:-2], "btc_usdt", "A" * 33, "A" * 10_000)


def price_lines(rows: int, seed: int = 7) -> list[str]:
    """Return lines of a prices.csv; about a third share their timestamp with the one before."""
    rng = random.Random(seed)
    time, price = START, 61_837.63
    lines = []
    for _ in range(rows):
        time = round(time + rng.choice([0.0, 0.001, 0.25]), 3)
        price = round(price + rng.choice([-0.01, 0.0, 0.02]), 2)
        volume = round(rng.random(), 5)
        lines.append(f"{time!r},{price!r},{volume!r},{price * volume!r}")
    return lines


def book_lines(rows: int, seed: int = 7) -> list[str]:
    """Return lines of an orderbook.csv; now and then the third level is missing."""
    rng = random.Random(seed)
    time, bid = START, 61_837.63
    lines = []
    for _ in range(rows):
        time = round(time + 0.1, 3)
        bid = round(bid + rng.choice([-0.01, 0.0, 0.01]), 2)
        third = rng.random() < 0.8
        sides = [
            f"{round(best + sign * 0.01 * level, 2)!r},{round(rng.random() + 0.001, 5)!r}"
            if level < 2 or third
            else "0,0"
            for best, sign in ((bid, -1), (round(bid + 0.01, 2), 1))
            for level in range(3)
        ]
        lines.append(f"{time!r},{','.join(sides)},{bid!r},{round(bid + 0.01, 2)!r},0.01")
    return lines


def write_lines(path: Path, header: str, lines: list[str]) -> Path:
    """Write a CSV file, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in (header, *lines)), encoding="utf-8")
    return path


def write_session(
    root: Path, session_id: str, *, rows: int = 40, symbols: tuple[str, ...] = ("BTC_USDT",)
) -> Path:
    """Write a session folder with `rows` prices and half as many books a symbol."""
    folder = root / f"session_{session_id}"
    for seed, symbol in enumerate(symbols):
        write_lines(folder / symbol / "prices.csv", PRICES_HEADER, price_lines(rows, seed))
        write_lines(folder / symbol / "orderbook.csv", BOOK_HEADER, book_lines(rows // 2, seed))
    return folder
