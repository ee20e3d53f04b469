"""Schema: names, types, units of tables and frames; patterns of session ids and symbols.

Times are UTC microseconds, event time of the venue; prices are in quote currency; quantities in
base units. `seq` is the identity of a row inside (session, symbol): the venue's trade or update id
where it is numeric, else the row's number in its source. It stands in every DEDUP key, because most
real crypto trades share their millisecond with others: a key without it loses them.

Ids of sessions and symbols end up in SQL, in file names and in pages, and the database would take
anything. They are checked here, and quoted there as well.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from fxlab.errors import InvalidIdentifier, InvalidInput, InvalidParameter, did_you_mean, some

UTC_MICROS: Final = pl.Datetime("us", "UTC")
BOOK_DEPTH: Final = 10

SIDES: Final = ("buy", "sell")
ORIGINS: Final = ("live", "backfill", "csv", "parquet", "synthetic")
EVENT_KINDS: Final = (
    "gap", "resync", "reconnect", "db_outage", "clock_step", "clock_skew", "quarantine",
    "id_restart", "delisted", "venue_error", "crossed_book", "silent_stream",
)  # fmt: skip
PURGE_STATES: Final = ("planned", "copied", "done")
STATUSES: Final = ("collecting", "completed", "aborted", "failed", "deleting", "deleted")

# QuestDB's column types and the Polars type each is read back as.
SQL_TYPES: Final[dict[str, pl.DataType]] = {
    "SYMBOL": pl.String(),
    "VARCHAR": pl.String(),
    "LONG": pl.Int64(),
    "INT": pl.Int32(),
    "DOUBLE": pl.Float64(),
    "BOOLEAN": pl.Boolean(),
    "TIMESTAMP": UTC_MICROS,
}


@dataclass(frozen=True, slots=True)
class Table:
    """One database table: its columns in order, and what makes a row unique."""

    name: str
    columns: dict[str, str]
    """Column name to QuestDB type."""
    timestamp: str
    partition_by: str
    dedup: tuple[str, ...]
    symbol_capacity: int = 256

    @property
    def frame(self) -> dict[str, pl.DataType]:
        """Return the Polars schema of the whole table."""
        return {name: SQL_TYPES[kind] for name, kind in self.columns.items()}

    @property
    def symbols(self) -> list[str]:
        """Return the names of the SYMBOL columns, in order."""
        return [name for name, kind in self.columns.items() if kind == "SYMBOL"]


def book_levels(depth: int = BOOK_DEPTH) -> list[str]:
    """Return the flat level columns: bids, then asks, price and quantity, best level first."""
    return [
        f"{side}_{field}_{level}"
        for side in ("bid", "ask")
        for level in range(1, depth + 1)
        for field in ("price", "qty")
    ]


def _tick_table(name: str, columns: dict[str, str]) -> Table:
    """Return a table of what sessions hold of a kind; each row has its number in its session."""
    return Table(
        name,
        {**columns, "received_at": "TIMESTAMP", "timestamp": "TIMESTAMP"},  # arrival here; venue's
        timestamp="timestamp",
        partition_by="WEEK",
        dedup=("timestamp", "session_id", "symbol", "seq"),
        symbol_capacity=4096,
    )


PRICES: Final = _tick_table(
    "tick_prices",
    {
        "session_id": "SYMBOL",
        "symbol": "SYMBOL",
        "side": "SYMBOL",  # of the taker
        "origin": "SYMBOL",
        "seq": "LONG",
        "trade_id": "VARCHAR",
        "price": "DOUBLE",
        "volume": "DOUBLE",  # base units
        "quote_volume": "DOUBLE",
    },
)

ORDERBOOK: Final = _tick_table(
    "tick_orderbook",
    {
        "session_id": "SYMBOL",
        "symbol": "SYMBOL",
        "origin": "SYMBOL",
        "seq": "LONG",  # last update id
        "first_update_id": "LONG",
        "is_snapshot": "BOOLEAN",
        **dict.fromkeys(book_levels(), "DOUBLE"),
    },
)


def _channel_table(name: str, **columns: str) -> Table:
    """Return the table of what a venue says beside trades and books, numbered in its session."""
    first = dict.fromkeys(("session_id", "symbol", "origin"), "SYMBOL")
    return _tick_table(name, {**first, "seq": "LONG", **columns})


CHANNELS: Final = {
    "mark": _channel_table(
        "tick_mark",
        mark_price="DOUBLE",
        index_price="DOUBLE",
        settle_price="DOUBLE",  # as estimated
        funding_rate="DOUBLE",  # of the next funding, as it is now: a fraction of notional
        next_funding="TIMESTAMP",
    ),
    # What longs paid to shorts at `timestamp`, and the price it was charged on.
    "funding": _channel_table("tick_funding", rate="DOUBLE", mark_price="DOUBLE"),
    "open_interest": _channel_table("tick_open_interest", open_interest="DOUBLE"),  # base units
    "liquidations": _channel_table(
        "tick_liquidations",
        side="SYMBOL",  # of the order that liquidates: "sell" closes a long position
        price="DOUBLE",  # of the order
        average_price="DOUBLE",  # of what was filled
        volume="DOUBLE",  # of the order, base units
        filled="DOUBLE",
    ),
}
"""What a recording may hold beside trades and books, by data type."""

SESSIONS: Final = Table(
    "data_collection_sessions",
    {
        "session_id": "SYMBOL",
        "status": "SYMBOL",
        "exchange": "SYMBOL",
        "source": "SYMBOL",  # live, csv, parquet, synthetic
        "symbols": "VARCHAR",  # JSON list
        "data_types": "VARCHAR",  # JSON list of names in DATA_TABLES
        "price_decimals": "VARCHAR",  # JSON object: symbol to decimals of its prices
        "started": "TIMESTAMP",  # first and last tick
        "ended": "TIMESTAMP",
        "duration_seconds": "DOUBLE",
        "records_collected": "LONG",
        "prices_count": "LONG",
        "orderbook_count": "LONG",
        "gaps_count": "LONG",
        "errors_count": "LONG",
        "notes": "VARCHAR",
        "tags": "VARCHAR",  # JSON list
        "schema_version": "INT",
        "updated_at": "TIMESTAMP",
        "created_at": "TIMESTAMP",
        "options": "VARCHAR",  # JSON object: how a live session was recorded
        "instruments": "VARCHAR",  # JSON object: symbol to what the venue's listing says of it
    },
    timestamp="created_at",
    partition_by="YEAR",
    dedup=("created_at", "session_id"),
    symbol_capacity=4096,
)

EVENTS: Final = Table(
    "collection_events",
    {
        "session_id": "SYMBOL",
        "symbol": "SYMBOL",
        "event": "SYMBOL",  # one of EVENT_KINDS
        "seq": "LONG",  # the event's number in its session
        "from_time": "TIMESTAMP",
        "to_time": "TIMESTAMP",
        "count": "LONG",
        "detail": "VARCHAR",
        "timestamp": "TIMESTAMP",
    },
    timestamp="timestamp",
    partition_by="MONTH",
    dedup=("timestamp", "session_id", "symbol", "event", "seq"),
)

RECEIPTS: Final = Table(
    "collection_receipts",
    {
        "session_id": "SYMBOL",
        "symbol": "SYMBOL",
        "data_type": "SYMBOL",  # one of DATA_TABLES
        "origin": "SYMBOL",  # live, backfill
        "rows": "LONG",
        "first_seq": "LONG",
        "last_seq": "LONG",
        "first_time": "TIMESTAMP",
        "last_time": "TIMESTAMP",
        "checksum": "VARCHAR",  # of fxlab.collect._live.checksum, 16 hexadecimal digits
        "detail": "VARCHAR",  # JSON object: ids seen, doubles, missing
        "timestamp": "TIMESTAMP",  # the session's created_at
    },
    timestamp="timestamp",
    partition_by="YEAR",
    dedup=("timestamp", "session_id", "symbol", "data_type", "origin"),
)

IMPORTS: Final = Table(
    "csv_imports",
    {
        "session_id": "SYMBOL",
        "symbol": "SYMBOL",
        "state": "SYMBOL",  # one of IMPORT_STATES
        "path": "VARCHAR",
        "sha256": "VARCHAR",
        "rows_good": "LONG",
        "rows_bad": "LONG",
        "updated_at": "TIMESTAMP",
        "timestamp": "TIMESTAMP",  # the session's created_at: a second import meets its own row
        "size_bytes": "LONG",
        "data_type": "VARCHAR",  # prices, orderbook
        "first_time": "TIMESTAMP",
        "last_time": "TIMESTAMP",
        "backward": "LONG",
        "detail": "VARCHAR",  # JSON list: what the import did that the rows do not show, or why not
    },
    timestamp="timestamp",
    partition_by="YEAR",
    dedup=("timestamp", "session_id", "symbol", "path"),
)

IMPORT_STATES: Final = ("started", "done", "failed", "refused")
"""Of a file: being stored (or killed then), stored, not stored whole, not begun."""

VERSION: Final = 10
"""Of these tables: that of the last step in `fxlab._questdb.migrations`."""

SCHEMA_VERSIONS: Final = Table(
    "schema_versions",
    {
        "version": "INT",
        "name": "VARCHAR",
        "checksum": "VARCHAR",
        "fxlab_version": "VARCHAR",
        "timestamp": "TIMESTAMP",
    },
    timestamp="timestamp",
    partition_by="YEAR",
    dedup=("timestamp", "version"),
)

PURGE_JOURNAL: Final = Table(
    "purge_journal",
    {
        "session_id": "SYMBOL",
        "table_name": "SYMBOL",
        "partition_name": "SYMBOL",
        "state": "SYMBOL",  # one of PURGE_STATES
        "rows_kept": "LONG",
        "rows_freed": "LONG",
        "updated_at": "TIMESTAMP",
        "timestamp": "TIMESTAMP",
    },
    timestamp="timestamp",
    partition_by="YEAR",
    dedup=("timestamp", "session_id", "table_name", "partition_name"),
)

RUNS: Final = Table(
    "backtest_runs",
    {
        "run_id": "SYMBOL",
        "data_session_id": "SYMBOL",
        "strategy": "SYMBOL",
        "symbols": "VARCHAR",  # JSON list
        "parameters": "VARCHAR",  # JSON object
        "execution": "VARCHAR",  # JSON object
        "options": "VARCHAR",  # JSON object: start_us, end_us, grid_us, days_per_year
        "capital": "DOUBLE",
        "rows_read": "LONG",
        "fills_count": "LONG",
        "metrics": "VARCHAR",  # JSON object; nan is null
        "fingerprint": "VARCHAR",
        "fxlab_version": "VARCHAR",
        "timestamp": "TIMESTAMP",  # when it ran
        "deleted_at": "TIMESTAMP",  # null unless it is hidden
    },
    timestamp="timestamp",
    partition_by="MONTH",
    dedup=("timestamp", "run_id"),
    symbol_capacity=4096,
)

FILLS: Final = Table(
    "backtest_fills",
    {
        "run_id": "SYMBOL",
        "symbol": "SYMBOL",
        "seq": "LONG",  # the fill's number in its run
        "decided_at": "TIMESTAMP",
        "target": "DOUBLE",
        "price": "DOUBLE",
        "qty": "DOUBLE",  # signed base units
        "fee": "DOUBLE",
        "timestamp": "TIMESTAMP",
        "reason": "SYMBOL",  # signal, stop_loss, take_profit, ...
        "liquidity": "SYMBOL",  # taker, maker
        "flags": "SYMBOL",  # partial, beyond_depth, ...
    },
    timestamp="timestamp",
    partition_by="MONTH",
    dedup=("timestamp", "run_id", "seq"),
    symbol_capacity=4096,
)

SWEEP_RUNS: Final = Table(
    "sweep_runs",
    {
        "sweep_id": "SYMBOL",
        "data_session_id": "SYMBOL",
        "strategy": "SYMBOL",
        "state": "SYMBOL",  # done, failed, skipped; asked: the request; deleted, undeleted
        "point": "LONG",  # hash of the parameters
        "parameters": "VARCHAR",  # JSON object, canonical
        "metrics": "VARCHAR",  # JSON object; nan is null
        "fingerprint": "VARCHAR",
        "timestamp": "TIMESTAMP",
        # returns: float64, zlib, base64; plan: JSON object, of a request
        **dict.fromkeys(("error", "returns", "plan"), "VARCHAR"),
    },
    timestamp="timestamp",
    partition_by="MONTH",
    dedup=("timestamp", "sweep_id", "point"),
)

NIGHT_RANKS: Final = Table(
    "night_ranks",
    {
        "night_id": "SYMBOL",  # of a date and a folder of nights
        "plan": "VARCHAR",  # name of its file
        "sweep": "VARCHAR",
        "strategy": "SYMBOL",
        "state": "SYMBOL",  # done, stopped, failed, waiting, gone
        "rank": "LONG",  # 1 is the best point; 0: the sweep has none
        "sessions": "VARCHAR",  # JSON list
        "parameters": "VARCHAR",  # JSON object
        "metric": "SYMBOL",
        "figure": "DOUBLE",  # mean over the sessions
        **dict.fromkeys(
            ("in_sample", "out_of_sample"), "DOUBLE"
        ),  # mean over the windows of a walk
        "deflated_sharpe": "DOUBLE",  # of the point
        "pbo": "DOUBLE",  # of the sweep, as `tried`
        "tried": "LONG",
        "change": "SYMBOL",  # of the best point against the night before: better, decayed, ...
        "run_id": "VARCHAR",  # of its report
        "fingerprints": "VARCHAR",  # JSON list: one a session
        "sweep_ids": "VARCHAR",  # JSON list: one a session
        "error": "VARCHAR",
        "page": "VARCHAR",
        "started": "TIMESTAMP",
        "updated_at": "TIMESTAMP",  # one for all rows of a night: older ones are no longer true
        "timestamp": "TIMESTAMP",  # the night's date
    },
    timestamp="timestamp",
    partition_by="YEAR",
    dedup=("timestamp", "night_id", "sweep", "rank"),
    symbol_capacity=4096,
)

TABLES: Final = (
    SCHEMA_VERSIONS,
    PRICES,
    ORDERBOOK,
    SESSIONS,
    EVENTS,
    RECEIPTS,
    IMPORTS,
    PURGE_JOURNAL,
    RUNS,
    FILLS,
    SWEEP_RUNS,
    NIGHT_RANKS,
    *CHANNELS.values(),
)

DATA_TABLES: Final = {"prices": PRICES, "orderbook": ORDERBOOK, **CHANNELS}
"""The rows of sessions, by data type."""


def data_tables(data_types: Collection[str]) -> dict[str, Table]:
    """Return the tables of trades and books, and of those channels that are among data types."""
    return {
        kind: table
        for kind, table in DATA_TABLES.items()
        if kind not in CHANNELS or kind in data_types
    }


def value_columns(table: Table) -> list[str]:
    """Return the columns of a channel's table that hold what the venue said."""
    common = {"session_id", "symbol", "origin", "seq", "received_at", "timestamp"}
    return [name for name in table.columns if name not in common]


INSTRUMENT: Final = {
    "kind": pl.String(),  # spot, perpetual, future, option
    **dict.fromkeys(("base", "quote", "settle"), pl.String()),  # currencies
    "contract_size": pl.Float64(),  # base units; of an inverse contract: quote units
    "tick_size": pl.Float64(),  # step of prices
    **dict.fromkeys(("lot_size", "min_qty"), pl.Float64()),  # step of quantities, least; base units
    "min_notional": pl.Float64(),  # least value of an order, quote units
    "expiry": UTC_MICROS,
    **dict.fromkeys(("taker_bps", "maker_bps"), pl.Float64()),  # of who has traded nothing yet
    # [least volume of 30 days, taker_bps, maker_bps], lowest first
    "fee_tiers": pl.List(pl.List(pl.Float64())),
}
"""What a venue's public listing may say of an instrument."""

SESSION_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SYMBOL: Final = re.compile(r"[A-Z0-9_./:-]{1,32}")
DOTS: Final = re.compile(r"(?:^|/)\.{1,2}(?:/|$)")
"""What neither may contain: as a part of a path it leads elsewhere."""

_COINS: Final = {"BTC", "XBT", "ETH", "BNB"}
_STABLECOINS: Final = {
    "USDT", "USDC", "USDD", "USDE", "USDP", "USDS", "USD1", "BUSD", "TUSD", "FDUSD", "PYUSD",
    "RLUSD", "DAI", "EURC", "EURI", "EURT",
}  # fmt: skip
_FIAT: Final = {  # ISO 4217, and CNH, the yuan that is traded abroad
    "USD", "EUR", "GBP", "JPY", "CHF", "AUD", "CAD", "NZD", "SEK", "NOK", "DKK", "ISK", "CZK",
    "HUF", "PLN", "RON", "BGN", "TRY", "RUB", "UAH", "ZAR", "ILS", "SAR", "AED", "KWD", "QAR",
    "INR", "IDR", "KRW", "CNY", "CNH", "HKD", "TWD", "SGD", "THB", "MYR", "PHP", "VND", "KZT",
    "MXN", "BRL", "ARS", "CLP", "COP", "PEN", "NGN", "XAU", "XAG", "XPT", "XPD",
}  # fmt: skip
_MONEY: Final = _STABLECOINS | _FIAT
_QUOTES: Final = tuple(sorted(_COINS | _MONEY, key=len, reverse=True))
"""What a symbol without a separator may end in, the longest first."""

_CONTRACT: Final = re.compile(
    r"(?:[_.-](?:PERP|PERPETUAL|SWAP|FUT|FUTURES?|SPOT|(?:BI_)?QUARTER"  # what is traded,
    r"|\d{6}|\d{8}|\d{1,2}[A-Z]{3}\d{2,4}))+(?:\.[A-Z]+)?$"  # until when, and where
)
_WORD: Final = re.compile(r"[A-Z]{2,10}")
_OPTION: Final = re.compile(r"-\d+(?:\.\d+)?-[CP]$")  # its premium has a currency of its own
_VENUE_OR_KIND: Final = re.compile(r"(?:[PF][IF]_|[A-Z0-9]+:)(?=[A-Z0-9]{5,}$)")

# The oldest idea of the project's folders: "session_" in front of an id names the same session.
SESSION_PREFIX: Final = "session_"


def check_session_id(value: str) -> str:
    """Return a session id that matches its pattern, or raise `InvalidIdentifier`."""
    allowed = "letters, digits and _ . - (64 at most) and is not . or .."
    return _check(value, SESSION_ID, "session id", allowed)


def check_symbol(value: str) -> str:
    """Return a symbol that matches its pattern, or raise `InvalidIdentifier`."""
    allowed = "capital letters, digits and _ . / : - (32 at most) and no part that is . or .."
    if isinstance(value, str) and value.isascii() and is_symbol(value.upper()):
        allowed += f"; write {value.upper()}"
    return _check(value, SYMBOL, "symbol", allowed)


def check_tags(tags: object) -> tuple[str, ...]:
    """Return tags as a tuple, or raise `InvalidIdentifier`.

    One text would be as many tags as it has letters, so it is refused.
    """
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidIdentifier(
            f"tags={tags!r:.80} is no list of texts; give tags=['night'], or leave it out"
        )
    found = tuple(tags)
    for number, tag in enumerate(found):
        if not isinstance(tag, str):
            raise InvalidIdentifier(f"tags[{number}]={tag!r:.80} is not text; give texts")
    return found


def check_channels(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return names of `CHANNELS`, each once and in that order; refuse others."""
    wanted = (names,) if isinstance(names, str) else tuple(names)
    for name in wanted:
        if name not in CHANNELS:
            near = did_you_mean(str(name), CHANNELS) or f"known: {', '.join(CHANNELS)}"
            raise InvalidParameter(f"channels={name!r:.80} is no channel; {near}")
    return tuple(name for name in CHANNELS if name in wanted)


def check_mapping(name: str, value: Any, such_as: str) -> Mapping[str, Any]:  # noqa: ANN401 - judged here
    """Return a mapping as it is; refuse what is none."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name}={value!r:.80} is no mapping; give one, such as {such_as}")
    return value


def is_symbol(value: str) -> bool:
    """Return whether a text can be a symbol."""
    return bool(SYMBOL.fullmatch(value)) and not DOTS.search(value)


def quote_currency(symbol: str) -> str | None:
    """Return the currency that a symbol's prices are in; None if its name does not say.

    Base and quote stand on both sides of a ``_``, ``/``, ``-`` or ``:`` (``BTC_USDT``,
    ``BTC/USDT:USDT``), or the symbol ends in a known currency (``BTCUSDT``, ``EURUSD``). What
    says how or until when a contract runs is none (``BTCUSD_PERP``, ``BTC-27DEC24``).
    """
    if _OPTION.search(symbol):
        return None
    pair = _VENUE_OR_KIND.sub("", _CONTRACT.sub("", symbol), count=1)
    base, *rest = re.split(r"[_/:-]", pair)
    quote = rest[0].partition(".")[0] if rest else _joined_quote(base.partition(".")[0])
    if not base or not quote or not (quote in _QUOTES or _WORD.fullmatch(quote)):
        return None
    if rest and base in _MONEY and quote not in _MONEY:
        return None  # KRW-BTC: some venues have the quote in front
    return "BTC" if quote == "XBT" else quote


def unsaid_currencies(symbols: Sequence[str]) -> str:
    """Return a sentence on those of several symbols whose names do not say their currency."""
    unsaid = [symbol for symbol in symbols if quote_currency(symbol) is None]
    if len(symbols) < 2 or not unsaid:
        return ""
    return (
        f"The currency of {some(unsaid)} is not known from the name: money of all symbols was "
        "added as if it were one currency."
    )


def _joined_quote(name: str) -> str | None:
    """Return the known currency in which a symbol without a separator ends."""
    if name in _QUOTES:
        return None
    if len(name) == 6 and name[:3] in _FIAT and name[3:] in _FIAT:
        return name[3:]
    found = [quote for quote in _QUOTES if len(name) - len(quote) >= _least_base(quote)]
    found = [quote for quote in found if name.endswith(quote)]
    if len(found) > 1 and len(found[0]) == len(found[1]) + 1:
        # BTCBUSD is BTC in BUSD, BNBUSD is BNB in USD: a known base tells, DOTUSD stays unknown.
        found = [quote for quote in found if name.removesuffix(quote) in _QUOTES]
        return found[0] if len(found) == 1 else None
    return found[0] if found else None


def _least_base(quote: str) -> int:
    """Return how many letters stand before a quote at least: WBTC and STETH are coins."""
    return 3 if quote in _COINS else 2 if quote in _FIAT else 1


def _check(value: str, pattern: re.Pattern[str], kind: str, allowed: str) -> str:
    if isinstance(value, str) and pattern.fullmatch(value) and not DOTS.search(value):
        return value
    shown = repr(value)
    if len(shown) > 80:
        shown = f"{shown[:77]}… ({len(str(value)):,} characters)"
    raise InvalidIdentifier(f"{shown} is not a {kind}: a {kind} has {allowed}")
