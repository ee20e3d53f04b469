"""One example of every public chart function, for tests that hold of all charts."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from fxlab import charts

START = datetime(2024, 8, 8, tzinfo=UTC)
UTC_US = pl.Datetime("us", "UTC")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


def times(count: int) -> pl.Series:
    found = [START + timedelta(seconds=n) for n in range(count)]
    return pl.Series("timestamp", found, dtype=UTC_US)


def prices(rows: int = 400, scale: float = 0.1) -> pl.DataFrame:
    """Return prices of two symbols; the changes of the second are `scale` wide."""
    wave = np.sin(np.arange(rows) / 30)
    both = [("BTC_USDT", 100 + wave), ("ETH_USDT", 1 + scale * (wave + 1) / 2)]
    return pl.concat(
        pl.DataFrame({"timestamp": times(rows), "price": values}).with_columns(
            symbol=pl.lit(symbol)
        )
        for symbol, values in both
    )


def fills() -> pl.DataFrame:
    reasons = ["signal", "signal", "stop_loss", "take_profit", "liquidation", "trailing_stop"]
    return pl.DataFrame(
        {
            "symbol": ["BTC_USDT"] * 6,
            "timestamp": times(600)[50:350:50],
            "price": [100.0] * 6,
            "qty": [1.0, -1.0] * 3,
            "reason": reasons,
            "liquidity": ["taker", "maker"] * 3,
        }
    )


def equity(rows: int = 400, scale: float = 0.1) -> pl.DataFrame:
    money = pl.Series("equity", 1_000 * (1 + scale * np.sin(np.arange(rows) / 40) / 2))
    fall = money / money.cum_max() - 1
    return pl.DataFrame({"timestamp": times(rows), "equity": money, "drawdown": fall})


def drawdowns() -> pl.DataFrame:
    spans = [(60, 320, -0.08), (320, None, -0.05)]
    when = times(400)
    return pl.DataFrame(
        {
            "peak_at": [when[a] for a, _, _ in spans],
            "recovered_at": [None if b is None else when[b] for _, b, _ in spans],
            "depth": [depth for *_, depth in spans],
        },
        schema_overrides={"recovered_at": UTC_US},
    )


def trades(scale: float = 0.1) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    earned = scale * rng.normal(size=60) / 3
    return pl.DataFrame(
        {
            "direction": ["long", "short"] * 30,
            "duration_seconds": rng.exponential(600, 60),
            "return": earned,
            "mae": -np.abs(earned) - scale * rng.random(60) / 5,
            "pnl": 1_000 * earned,
            "exited_at": times(60),
        }
    )


def sweep_table(scale: float = 0.1) -> pl.DataFrame:
    pairs = [(fast, slow) for fast in range(10, 60, 10) for slow in range(100, 600, 100)]
    found = scale * np.sin(np.arange(len(pairs)) / 3)
    return pl.DataFrame(
        {
            "fast": [a for a, _ in pairs],
            "slow": [b for _, b in pairs],
            "allow_short": [(a + b) % 20 == 0 for a, b in pairs],
            "total_return": found,
        }
    )


def walk_table(scale: float = 0.1) -> pl.DataFrame:
    day = timedelta(days=1)
    begins = pl.Series([START + n * day for n in range(8)], dtype=UTC_US)
    return pl.DataFrame(
        {
            "train_start": begins,
            "train_end": begins + 3 * day,
            "test_start": begins + 3 * day,
            "test_end": begins + 4 * day,
            "fast": range(8),
            "train_total_return": scale * np.linspace(0.5, 1, 8),
            "test_total_return": scale * np.cos(np.arange(8)),
        }
    )


def profile(scale: float = 0.1) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "hour": range(24),
            "mean_return": scale * np.sin(np.arange(24)) / 2,
            "periods": [5] * 24,
            "trades": [3] * 24,
            "win_rate": [0.5] * 24,
        }
    )


def histogram(scale: float = 0.1) -> pl.DataFrame:
    edges = scale * np.linspace(-0.5, 0.5, 31)
    counts = np.round(200 * np.exp(-((np.arange(30) - 15) ** 2) / 20)).astype(int)
    return pl.DataFrame({"low": edges[:-1], "high": edges[1:], "count": counts})


def exposure(scale: float = 1.0) -> pl.DataFrame:
    share = scale * np.abs(np.sin(np.arange(100) / 9))
    return pl.DataFrame({"timestamp": times(100), "long": share, "short": share / 2})


def months(scale: float = 0.1) -> pl.DataFrame:
    values = scale * np.cos(np.arange(24)).reshape(2, 12)
    named = {name: values[:, n] for n, name in enumerate(MONTHS)}
    return pl.DataFrame({"year": [2023, 2024], **named, "total": values.sum(axis=1)})


def candles(rows: int = 60, scale: float = 0.1) -> pl.DataFrame:
    wave = 100 + scale * np.sin(np.arange(rows) / 5)
    return pl.DataFrame(
        {
            "timestamp": times(rows), "open": wave, "high": wave + scale, "low": wave - scale,
            "close": wave + scale / 2 * np.cos(np.arange(rows)), "volume": np.full(rows, 3.0),
            "trades": [2] * rows,
            "buy_volume": np.full(rows, 2.0), "sell_volume": np.full(rows, 1.0),
        }
    )  # fmt: skip


def books(rows: int = 60, scale: float = 0.1) -> pl.DataFrame:
    mid = 100 + scale * np.sin(np.arange(rows) / 9)
    sides = {
        f"{side}_{what}_{level}": mid + sign * level * scale / 10
        if what == "price"
        else mid / level
        for side, sign in (("bid", -1), ("ask", 1))
        for level in (1, 2, 3)
        for what in ("price", "qty")
    }
    spread = np.full(rows, scale / 5)
    return pl.DataFrame({"timestamp": times(rows), **sides, "spread": spread, "mid": mid})


def ticks(rows: int = 400, scale: float = 0.1) -> pl.DataFrame:
    one = prices(rows, scale).filter(pl.col("symbol") == "BTC_USDT").drop("symbol")
    return one.with_columns(received_at=pl.col("timestamp") + timedelta(milliseconds=20))


def examples(scale: float = 0.1, title: str = "An example") -> dict[str, object]:
    """Return a figure of each function of `charts.__all__`; fractions are about `scale` wide."""
    marks = {"5th percentile": -0.3 * scale, "mean": 0.0, "95th percentile": 0.3 * scale}
    one = prices(scale=scale).filter(pl.col("symbol") == "BTC_USDT")
    return {
        "price_chart": charts.price_chart(prices(scale=scale), fills(), title=title),
        "result_chart": charts.result_chart(one, fills(), equity(scale=scale), title),
        "equity_chart": charts.equity_chart(equity(scale=scale), title, drawdowns=drawdowns()),
        "exposure_chart": charts.exposure_chart(exposure(min(1.0, scale)), title),
        "comparison_chart": charts.comparison_chart(
            {f"rung {n}": equity(scale=scale * (n + 1) / 8) for n in range(8)}, title
        ),
        "trades_chart": charts.trades_chart(trades(scale), title),
        "distribution_chart": charts.distribution_chart(histogram(scale), title, marks=marks),
        "monthly_chart": charts.monthly_chart(months(scale), title),
        "profile_chart": charts.profile_chart(profile(scale), title),
        "heatmap_chart": charts.heatmap_chart(
            sweep_table(scale), "fast", "slow", "total_return", title, unit="fraction"
        ),
        "parallel_chart": charts.parallel_chart(
            sweep_table(scale),
            ["fast", "slow", "allow_short"],
            "total_return",
            title,
            unit="fraction",
        ),
        "candles_chart": charts.candles_chart(candles(scale=scale), title),
        "session_chart": charts.session_chart(
            ticks(scale=scale), title, candles=candles(scale=scale), books=books(scale=scale)
        ),
        "depth_chart": charts.depth_chart(books(scale=scale), title),
        "walk_forward_chart": charts.walk_forward_chart(
            walk_table(scale), title=title, unit="fraction"
        ),
    }


def chart_names() -> list[str]:
    """Return the functions of `charts.__all__` that draw."""
    named = {name: getattr(charts, name) for name in charts.__all__}
    return [name for name in named if name.endswith("_chart") and inspect.isfunction(named[name])]
