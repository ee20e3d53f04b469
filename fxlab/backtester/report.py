"""The tear sheet: one HTML file about one run that opens anywhere, offline, for years.

It holds what a reader needs to judge the run and to repeat it: assumptions, figures with their
formulas, pictures, trades, and the fingerprint of data, strategy and versions.
"""

from __future__ import annotations

import os
import platform
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

import polars as pl

from fxlab.backtester import report_page as parts
from fxlab.backtester.report_sections import ROWS, sections
from fxlab.backtester.summary import (
    describe_data,
    headline,
    metrics_html,
    ruin,
    ruin_html,
    show_figure,
    sparkline,
)
from fxlab.html import NOTHING, escape, facts, show, show_time, table

if TYPE_CHECKING:
    from fxlab.backtester.result import Result

TILES: Final = (
    "final_equity",
    "total_return",
    "max_drawdown",
    "trades_count",
    "win_rate",
    "fees",
)
FOOTER: Final = (
    "<footer>Times are UTC. A dash is a figure that does not exist for this run; its note says "
    "why. What a simulation earned promises nothing.</footer>"
)
PACKAGES: Final = ("fxlab", "polars", "numpy", "numba", "plotly")
_DECIMALS: Final = {
    "fees": 2,
    "fee": 2,
    "pnl": 2,
    "equity": 2,
    "return_%": 3,
    "mae_%": 3,
    "mfe_%": 3,
    "held_s": 1,
}


def write_report(result: Result, directory: Path) -> Path:
    """Write the tear sheet of a run: one file.

    Parameters
    ----------
    result
        A finished backtest.
    directory
        Made if it does not exist.

    Returns
    -------
    Path
        The page, ``<run_id>.html``, of about 5 MB. It is complete or not there at all.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{result.run_id}.html"
    write_whole(path, render(result))
    return path


def render(result: Result) -> str:
    """Return the page's HTML."""
    spark = sparkline(result.equity["equity"].to_list())
    figure = parts.fitted(result.plot())
    chart = parts.embed(figure, "chart", spark)
    body = "\n".join(
        (
            _header(result),
            parts.tiles(headline(result.metrics, TILES)),
            parts.section("In words", f'<p class="text">{escape(in_words(result))}</p>'),
            parts.section("Price, equity, drawdown", chart),
            parts.section("Figures", metrics_html(result.metrics.table())),
            *sections(result),
            parts.section("Trades", _rows(_trades(result.trades), "round trips")),
            parts.section("Fills", _rows(result.fills, "fills")),
            parts.section("What made this run", facts(_provenance(result))),
            FOOTER,
        )
    )
    return parts.page(f"{result.strategy} on {result.data_session_id}", body)


def in_words(result: Result) -> str:
    """Return what the charts show, as text: for screen readers, and for a quick look."""
    table_ = result.metrics.table()
    shown = {name: show_figure(value, unit) for name, value, unit, _ in table_.rows()}
    equity = result.equity["equity"]
    return (
        f"Equity went from {show(result.capital, 2)} to {shown['final_equity']}, a return of "
        f"{shown['total_return']}; it was {show(equity.min(), 2)} at its lowest and "
        f"{show(equity.max(), 2)} at its highest. The deepest fall from a peak was "
        f"{shown['max_drawdown']}. {_prices_in_words(result.prices)} "
        + " ".join(filter(None, (_trades_in_words(result.fills.height, shown), ruin(result))))
    )


def _trades_in_words(fills: int, shown: dict[str, str]) -> str:
    if not fills:
        return "There were no fills."
    text = f"There were {fills:,} fills and {shown['trades_count']} closed round trips"
    if shown["win_rate"] == NOTHING:
        return f"{text}; fees were {shown['fees']}."
    return f"{text}, {shown['win_rate']} of them with a profit after fees of {shown['fees']}."


def _prices_in_words(prices: pl.DataFrame) -> str:
    price = pl.col("price")
    spans = prices.group_by("symbol", maintain_order=True).agg(
        price.first().alias("first"),
        price.last().alias("last"),
        price.min().alias("low"),
        price.max().alias("high"),
    )
    return " ".join(
        f"{symbol} went from {show(first)} to {show(last)}, between {show(low)} and {show(high)}."
        for symbol, first, last, low, high in spans.rows()
    )


def _header(result: Result) -> str:
    values = ", ".join(f"{name} = {show(value)}" for name, value in result.parameters.items())
    return (
        f"<header><h1>{escape(result.strategy)} on {escape(result.data_session_id)}</h1>"
        f"<p>{escape(values or 'no parameters')}</p><p>{escape(describe_data(result))}</p>"
        f"<p>{escape(result.execution)}; capital {escape(show(result.capital, 2))}</p>"
        f"{ruin_html(result)}</header>"
    )


def _trades(trades: pl.DataFrame) -> pl.DataFrame:
    """Return the trades with fractions as percent, which is how people read them."""
    shares = ("return", "mae", "mfe")
    percent = trades.with_columns(pl.col(name) * 100 for name in shares)
    return percent.rename({name: f"{name}_%" for name in shares} | {"duration_seconds": "held_s"})


def _rows(frame: pl.DataFrame, noun: str) -> str:
    if frame.is_empty():
        return f"<p>No {noun}.</p>"
    caption = f"The first {ROWS:,} of {frame.height:,} {noun}" if frame.height > ROWS else ""
    short = frame.head(ROWS)
    if short["symbol"].n_unique() == 1:
        caption = f"{caption or f'{frame.height:,} {noun}'} of {short['symbol'][0]}"
        short = short.drop("symbol")
    return table(short, caption=caption or f"{frame.height:,} {noun}", decimals=_DECIMALS)


def _provenance(result: Result) -> list[tuple[str, object]]:
    versions = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return [
        ("run", result.run_id),
        ("session", result.data_session_id),
        ("symbols", list(result.symbols)),
        ("ticks replayed", result.ticks),
        ("first tick", f"{show_time(result.first)} UTC"),
        ("last tick", f"{show_time(result.last)} UTC"),
        ("execution", str(result.execution)),
        ("fingerprint", result.fingerprint),
        ("made", f"{show_time(result.created_at)} UTC"),
        ("versions", f"{versions}, Python {platform.python_version()}"),
    ]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def write_whole(path: Path, text: str) -> None:
    """Write a file under another name first: a reader never meets half a page."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
