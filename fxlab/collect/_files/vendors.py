"""Vendors' tick files: which columns they have, what each means, and what has to be said of them.

Facts of the vendors' public documentation, named in `Vendor.source`; the layouts are recognised by
`fxlab.collect._files.formats`. A vendor's step (`convert`) sees a block of rows under the vendor's
names and gives it back with the same number of rows; exact decimals stay text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import polars as pl

from fxlab.schema import BOOK_DEPTH

Step = Callable[[pl.DataFrame, dict[str, Any]], pl.DataFrame]
"""A block of rows and what is remembered between blocks, to the block as fxlab means it."""

HEADLESS: Final = "a file without a header"
"""Stands among the names of one, and of no other file."""
TBBO: Final = "tbbo"
"""Likewise of a file whose name or rows say that it is."""
_HEADLESS: Final = frozenset((HEADLESS,))
_INT: Final = r"\d+"
_NUM: Final = r"[+-]?\d*\.?\d+(?:[eE]-?\d+)?"
_BOOL: Final = r"(?i:true|false)"
_EPOCH: Final = r"\d{13}|\d{16}"
_SECONDS: Final = r"\d{9,10}(?:\.\d+)?"


@dataclass(frozen=True)
class Vendor:
    """One layout of one vendor.

    Attributes
    ----------
    columns
        Their column (lower case) to ours; "" is not stored, and that is said.
    needed
        The columns it is recognised by; None means all of `columns`.
    fields
        A file without a header: what its fields look like, under the names of `columns`.
    refused
        Why it cannot be imported, and what to do; nothing if it can.
    said
        What is assumed.
    named
        The symbol in the file's name, in group 1.
    expressions, convert
        The vendor's columns as they are read: where expressions do not do, by a function.
    is_changes
        Whether its rows are changes of a book, level by level.
    source
        The public documentation.
    """

    name: str
    columns: Mapping[str, str]
    needed: frozenset[str] | None = None
    fields: tuple[str, ...] = ()
    refused: str = ""
    said: tuple[str, ...] = ()
    named: str = r"([A-Z0-9]{5,24})-(?:trades|aggTrades|bookTicker)-\d{4}"
    expressions: tuple[pl.Expr, ...] = ()
    convert: Step | None = None
    says: Callable[[pl.DataFrame], tuple[str, ...]] | None = None
    is_changes: bool = False
    source: str = ""
    key: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        wanted = self.columns if self.needed is None else self.needed
        object.__setattr__(self, "key", frozenset(wanted))


def _point(text: pl.Expr, decimals: int) -> pl.Expr:
    """Return whole numbers as decimals, exactly: the point is set in their text."""
    digits = text.str.strip_chars_start("-").str.zfill(decimals + 1)
    sign = pl.when(text.str.starts_with("-")).then(pl.lit("-")).otherwise(pl.lit(""))
    return sign + digits.str.head(-decimals) + "." + digits.str.tail(decimals)


def _databento(block: pl.DataFrame, memory: dict[str, Any]) -> pl.DataFrame:
    """Prices of raw files are whole numbers of 1e-9, the largest Int64 being none."""
    prices = [name for name in block.columns if name == "price" or "_px_" in name]
    text = block.with_columns(pl.col(prices).cast(pl.String))
    if "raw" not in memory:
        values = text.select(pl.concat_list(prices).explode().drop_nulls()).to_series()
        typed = any(block[name].dtype.is_float() for name in prices)
        memory["raw"] = not typed and bool(values.len()) and not values.str.contains(r"\.").any()
    if memory["raw"]:
        none = str(2**63 - 1)
        text = text.with_columns(
            pl.when(pl.col(name) != none).then(_point(pl.col(name), 9)).alias(name)
            for name in prices
        )
    sides = {"A": "sell", "B": "buy", "N": None}
    side = pl.col("side").replace_strict(sides, default=pl.col("side"), return_dtype=pl.String)
    return text.with_columns(side.alias("side"))


def _deribit(block: pl.DataFrame, memory: dict[str, Any]) -> pl.DataFrame:
    """Amounts of inverse contracts are dollars, of all others base units."""
    del memory
    name = pl.col("instrument_name").cast(pl.String)
    inverse = name.str.contains("-", literal=True) & ~name.str.contains("-[CP]$|_")
    amount, price = (pl.col(each).cast(pl.Float64, strict=False) for each in ("amount", "price"))
    return block.with_columns(
        pl.when(inverse).then(amount / price).otherwise(amount).alias("volume"),
        pl.when(inverse).then(amount).otherwise(amount * price).alias("quote_volume"),
    ).drop("amount")


def _bitmex(block: pl.DataFrame, memory: dict[str, Any]) -> pl.DataFrame:
    del memory
    if block["timestamp"].dtype != pl.String:
        return block
    return block.with_columns(pl.col("timestamp").str.replace("D", "T", literal=True))


def _jforex(block: pl.DataFrame, memory: dict[str, Any]) -> pl.DataFrame:
    del memory
    pattern = r"^(\d\d)\.(\d\d)\.(\d{4}) (\S+?)(?: GMT([+-]\d{4}))?$"
    year_first = r"^(\d{4})\.(\d\d)\.(\d\d) (\S+)$"
    time = pl.col(block.columns[0]).cast(pl.String).str.replace(pattern, "$3-$2-${1}T$4$5")
    return block.with_columns(time.str.replace(year_first, "$1-$2-${3}T$4"))


def _jforex_eet(block: pl.DataFrame, memory: dict[str, Any]) -> pl.DataFrame:
    """Turn Eastern European time into UTC; an hour that comes twice in autumn is refused by row."""
    found = _jforex(block, memory)
    time = pl.col(found.columns[0])
    local = time.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    utc = local.dt.replace_time_zone(
        "Europe/Helsinki", ambiguous="null", non_existent="null"
    ).dt.convert_time_zone("UTC")
    shown = utc.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
    return found.with_columns(pl.coalesce(shown, time + " EET"))


def _metatrader(block: pl.DataFrame, memory: dict[str, Any]) -> pl.DataFrame:
    """Carry bid and ask on where they are blank, from block to block."""
    carried = []
    for name in ("<bid>", "<ask>"):
        before = pl.concat(
            [pl.Series([memory.get(name)], dtype=pl.String), block[name].cast(pl.String)]
        )
        carried.append(before.forward_fill().tail(block.height).alias(name))
        memory[name] = carried[-1].tail(1).to_list()[0] if block.height else memory.get(name)
    date = pl.col("<date>").str.replace_all(".", "-", literal=True)
    return block.with_columns(*carried, (date + "T" + pl.col("<time>")).alias("<date>"))


def _lobster(block: pl.DataFrame, memory: dict[str, Any]) -> pl.DataFrame:
    """Seconds after midnight in New York, prices in units of 1/10,000, 9999999999 for none."""
    prices = [name for name in block.columns if "_price_" in name]
    sizes = [name for name in block.columns if "_qty_" in name]
    there = {name: ~pl.col(name).str.contains("^-?9999999999$") for name in prices}
    whole = pl.col("time").str.extract(r"^(\d{1,5})(?:\.\d*)?$").cast(pl.Int64, strict=False)
    digits = pl.col("time").str.extract(r"\.(\d{1,9})").fill_null("0").str.pad_end(9, "0")
    nanos = whole * 1_000_000_000 + digits.cast(pl.Int64, strict=False)
    midnight = pl.lit(memory["day"]).str.to_datetime("%Y-%m-%d", time_unit="ns")
    local = midnight + nanos.cast(pl.Duration("ns"))
    return block.with_columns(
        local.dt.replace_time_zone("America/New_York").dt.convert_time_zone("UTC").alias("time"),
        *(pl.when(there[name]).then(_point(pl.col(name), 4)).alias(name) for name in prices),
        *(
            pl.when(there[name.replace("qty", "price")]).then(pl.col(name)).alias(name)
            for name in sizes
        ),
    )


def _offsetless(head: pl.DataFrame) -> tuple[str, ...]:
    """JForex's local times have their offset from GMT behind them, unless they were cut."""
    if head["local time"].cast(pl.String).str.contains("GMT").any():
        return ()
    return ("local times have no offset and are taken for UTC",)


def _contracts(head: pl.DataFrame) -> tuple[str, ...]:
    """OKX counts swaps and futures in contracts."""
    names = head["instrument_name"].cast(pl.String).drop_nulls()
    if names.str.contains(r"-SWAP$|-\d{6}").any():
        return ("sizes of swaps, futures and options are contracts, not base units",)
    return ()


def _mixed(head: pl.DataFrame) -> tuple[str, ...]:
    """MetaTrader's files hold trades as well, on exchanges."""
    if head["<last>"].drop_nulls().len():
        return ("the trades in <LAST> and <VOLUME> are not stored, only the quotes",)
    return ()


_LEVELS: Final = {
    f"{side}_{theirs}_{number:02}": f"{side}_{ours}_{number + 1}"
    for number in range(BOOK_DEPTH)
    for side in ("bid", "ask")
    for theirs, ours in (("px", "price"), ("sz", "qty"))
} | {f"{side}_ct_{number:02}": "" for number in range(BOOK_DEPTH) for side in ("bid", "ask")}
_RECORD: Final = {
    **dict.fromkeys(
        ("rtype", "publisher_id", "instrument_id", "flags", "ts_in_delta", "sequence"), ""
    ),
    "ts_event": "timestamp", "ts_recv": "received_at", "symbol": "symbol", "depth": "",
}  # fmt: skip
_RECORD_KEY: Final = frozenset(("ts_event", "publisher_id", "instrument_id", "action", "side"))
_DATABENTO: Final = "Databento, Schemas and data formats: trades, tbbo, mbp-1, mbp-10; CSV encoding"
_TARDIS: Final = "Tardis.dev, Downloadable CSV files: data types"
_BINANCE: Final = "binance/binance-public-data, README"
_TOP: Final = ("exchange", "symbol", "timestamp", "local_timestamp")
_OF_TARDIS: Final = dict(zip(_TOP, ("", "symbol", "timestamp", "received_at"), strict=True))
_MILLIONS: Final = "sizes are the vendor's units (millions for currencies)"
_PASTE: Final = (
    "paste -d, SYMBOL_DATE_..._message_N.csv SYMBOL_DATE_..._orderbook_N.csv > SYMBOL_DATE_book.csv"
)
HALF: Final = (
    "it is one half of LOBSTER's pair, and neither is a book with its time by itself; put the two "
    f"side by side and import that: {_PASTE}"
)
LOBSTER: Final = "LOBSTER books"
_MESSAGE: Final = ("time", "type", "order_id", "size", "price", "direction")
_MESSAGE_FIELDS: Final = (r"\d{1,5}\.\d+", "[1-7]", r"-?\d+", r"-?\d+", r"-?\d+", "-?1")
HALF_OF_LOBSTER: Final = re.compile(r"_(?:message|orderbook)_\d+$")


def lobster(levels: int) -> Vendor:
    """Return LOBSTER's message and order book files, pasted line by line."""
    book = {
        f"{side}_{what}_{level}": f"{side}_{what}_{level}" if level <= BOOK_DEPTH else ""
        for level in range(1, levels + 1)
        for side in ("ask", "bid")
        for what in ("price", "qty")
    }
    message = dict.fromkeys(_MESSAGE, "") | {"time": "timestamp"}
    return Vendor(
        LOBSTER, {**message, **book},
        fields=(*_MESSAGE_FIELDS, *(("-?\\d+",) * len(book))),
        said=(
            "times are New York's, of the day in the file's name",
            "prices are divided by 10,000",
        ),
        named=r"^([A-Z.]+)_\d{4}-\d\d-\d\d", convert=_lobster,
        source="LOBSTER, Output structure",
    )  # fmt: skip


_AGGREGATED: Final = ("aggregated: one row is all fills of one order at one price",)
_BINANCE_TRADES: Final = {
    "id": "trade_id", "price": "price", "qty": "volume", "quote_qty": "quote_volume",
    "time": "timestamp", "is_buyer_maker": "buyer_is_maker", "is_best_match": "",
}  # fmt: skip
_BINANCE_AGGREGATES: Final = {
    "agg_trade_id": "trade_id", "price": "price", "quantity": "volume", "first_trade_id": "",
    "last_trade_id": "", "transact_time": "timestamp", "is_buyer_maker": "buyer_is_maker",
    "is_best_match": "",
}  # fmt: skip
_BEST: Final = frozenset(("is_best_match",))
_NOTIONAL: Final = {
    "timestamp": "timestamp", "symbol": "symbol", "side": "side", "size": "", "price": "price",
    "tickdirection": "", "trdmatchid": "trade_id", "grossvalue": "",
    "homenotional": "volume", "foreignnotional": "quote_volume",
}  # fmt: skip
_HOME: Final = ("volume is homeNotional (base units), quote_volume foreignNotional",)
_JFOREX_TIMES: Final = {
    "local time": _jforex, "gmt time": _jforex, "time (utc)": _jforex, "time (eet)": _jforex_eet,
}  # fmt: skip
_JFOREX_ZONES: Final = {
    "local time": (),
    "gmt time": ("times are GMT",),
    "time (utc)": ("times are UTC",),
    "time (eet)": (
        "times are Eastern European (EET, in summer EEST), turned into UTC",
        "rows of the hour that comes twice in autumn are bad ones",
    ),
}
_JFOREX: Final = {"ask": "ask", "bid": "bid", "askvolume": "ask_size", "bidvolume": "bid_size"}

VENDORS: Final = (
    Vendor(
        "Binance Vision trades", _BINANCE_TRADES, frozenset(_BINANCE_TRADES) - _BEST,
        fields=(_INT, _NUM, _NUM, _NUM, _EPOCH, _BOOL, _BOOL), source=_BINANCE,
    ),
    Vendor(
        "Binance Vision trades", _BINANCE_TRADES, frozenset(_BINANCE_TRADES),
        fields=(_INT, _NUM, _NUM, _NUM, _EPOCH, _BOOL), source=_BINANCE,
    ),
    Vendor(
        "Binance Vision COIN-M trades", {
            "id": "trade_id", "price": "price", "qty": "", "base_qty": "volume",
            "time": "timestamp", "is_buyer_maker": "buyer_is_maker",
        },
        said=("volume is base_qty; qty counts contracts",),
        named=r"([A-Z0-9]+_(?:PERP|\d{6}))-trades-\d{4}", source=_BINANCE,
    ),
    Vendor(
        "Binance Vision aggTrades", _BINANCE_AGGREGATES, frozenset(_BINANCE_AGGREGATES) - _BEST,
        fields=(_INT, _NUM, _NUM, _INT, _INT, _EPOCH, _BOOL, _BOOL), said=_AGGREGATED,
        source=_BINANCE,
    ),
    Vendor(
        "Binance Vision aggTrades", _BINANCE_AGGREGATES, frozenset(_BINANCE_AGGREGATES),
        fields=(_INT, _NUM, _NUM, _INT, _INT, _EPOCH, _BOOL), said=_AGGREGATED, source=_BINANCE,
    ),
    Vendor(
        "Binance Vision bookTicker", {
            "update_id": "seq", "best_bid_price": "bid", "best_bid_qty": "bid_size",
            "best_ask_price": "ask", "best_ask_qty": "ask_size",
            "transaction_time": "timestamp", "event_time": "",
        }, source=_BINANCE,
    ),
    Vendor(
        "Binance Vision bookDepth", dict.fromkeys(("timestamp", "percentage", "depth"), ""),
        refused="it holds sums of quantity within percents of the price, not prices of an order "
        "book; take bookTicker of the same days, or record the book: fxlab collect",
        source=_BINANCE,
    ),
    Vendor(
        "Binance Vision klines", {},
        _HEADLESS,
        fields=(_EPOCH, *((_NUM,) * 5), _EPOCH, _NUM, _INT, _NUM, _NUM, _NUM),
        refused="candles", source=_BINANCE,
    ),
    Vendor(
        "BitMEX or Bybit trades", _NOTIONAL, said=_HOME, named="(?!)", convert=_bitmex,
        source="public.bybit.com/trading; public.bitmex.com, data/trade",
    ),
    Vendor(
        "Bybit spot trades", {
            "id": "", "timestamp": "timestamp", "price": "price", "volume": "volume",
            "side": "side", "rpi": "",
        },
        frozenset(("id", "timestamp", "price", "volume", "side")),
        said=("id counts the rows of one file and is no trade id",),
        named=r"([A-Z0-9]+)[-_]\d{4}-\d\d", source="public.bybit.com/spot",
    ),
    Vendor(
        "OKX trades", {
            "instrument_name": "symbol", "trade_id": "trade_id", "side": "side",
            "price": "price", "size": "volume", "created_time": "timestamp", "source": "",
        },
        frozenset(("instrument_name", "trade_id", "side", "price", "size", "created_time")),
        says=_contracts, source="OKX, Historical data: trade history",
    ),
    Vendor(
        "Bitget trades", {
            "trade_id": "trade_id", "timestamp": "timestamp", "price": "price", "side": "side",
            "volume(quote)": "quote_volume", "size(base)": "volume",
        },
        named=r"([A-Z0-9]{5,24})[-_]\d{8}", source="Bitget, Historical data: trades",
    ),
    Vendor(
        "Deribit trades", {
            "trade_seq": "seq", "trade_id": "trade_id", "timestamp": "timestamp",
            "price": "price", "instrument_name": "symbol", "direction": "side",
        },
        frozenset(
            ("trade_seq", "trade_id", "timestamp", "price", "instrument_name", "direction",
             "amount")
        ),
        said=("amounts of inverse contracts are dollars: volume is amount / price",),
        convert=_deribit, source="Deribit API, public/get_last_trades_by_instrument_and_time",
    ),
    Vendor(
        "Kraken time and sales",
        {"time": "timestamp", "price": "price", "volume": "volume"},
        _HEADLESS, fields=(_SECONDS, _NUM, _NUM),
        named=r"^([A-Z0-9]{5,12})$", source="Kraken support, Downloadable historical market data",
    ),
    Vendor(
        "Kraken OHLCVT", {}, _HEADLESS,
        fields=(_SECONDS, *((_NUM,) * 5), _INT), refused="candles",
        source="Kraken support, Downloadable historical OHLCVT data",
    ),
    Vendor(
        "Kraken REST trades", {
            "price": "price", "volume": "volume", "time": "timestamp", "side": "side",
            "ordertype": "", "misc": "", "trade_id": "trade_id",
        },
        fields=(_NUM, _NUM, _SECONDS, "[bs]", "[ml]", ".*", _INT),
        expressions=(pl.col("side").replace({"b": "buy", "s": "sell"}),),
        named=r"^([A-Z0-9]{5,12})$", source="Kraken REST API, Trades",
    ),
    Vendor(
        "Coinbase Exchange trades", {
            "time": "timestamp", "trade_id": "trade_id", "price": "price", "size": "volume",
            "side": "maker_side", "product_id": "symbol",
        },
        said=("side is the maker's, turned into the taker's",),
        source="Coinbase Exchange API, Get product trades",
    ),
    Vendor(
        "Tardis trades", {
            **_OF_TARDIS, "id": "trade_id", "side": "side", "price": "price", "amount": "volume",
        },
        said=("amounts are the venue's units (contracts or dollars on inverse markets)",),
        expressions=(pl.when(pl.col("side") != "unknown").then(pl.col("side")),), source=_TARDIS,
    ),
    Vendor(
        "Tardis quotes", {
            **_OF_TARDIS, "ask_amount": "ask_size", "ask_price": "ask", "bid_price": "bid",
            "bid_amount": "bid_size",
        }, source=_TARDIS,
    ),
    Vendor(
        "Tardis incremental_book_L2",
        {**_OF_TARDIS, **{name: name for name in ("is_snapshot", "side", "price", "amount")}},
        said=("amounts are the venue's units (contracts or dollars on inverse markets)",),
        is_changes=True, source=_TARDIS,
    ),
    Vendor(
        "Tardis book_snapshot", {
            **_OF_TARDIS,
            **{
                f"{side}s[{number}].{theirs}": f"{side}_{ours}_{number + 1}"
                if number < BOOK_DEPTH else ""
                for number in range(25)
                for side in ("ask", "bid")
                for theirs, ours in (("price", "price"), ("amount", "qty"))
            },
        },
        frozenset((*_TOP, "asks[0].price", "asks[0].amount", "bids[0].price", "bids[0].amount")),
        source=_TARDIS,
    ),
    Vendor(
        "Databento mbo", dict.fromkeys(_RECORD, ""), _RECORD_KEY | {"order_id"},
        refused="it holds single orders, and fxlab stores books: take mbp-10 of the same days",
        source=_DATABENTO,
    ),
    Vendor(
        "Databento tbbo",
        {
            **_RECORD, **dict.fromkeys(_LEVELS, ""), "action": "", "side": "side",
            "price": "price", "size": "volume",
        },
        _RECORD_KEY | {"bid_px_00", TBBO},
        said=("the quote beside each trade is not stored",), convert=_databento, source=_DATABENTO,
    ),
    Vendor(
        "Databento mbp",
        {**_RECORD, **_LEVELS, **dict.fromkeys(("action", "side", "price", "size"), "")},
        _RECORD_KEY | {"bid_px_00", "ask_px_00"}, convert=_databento,
        said=("each row is the book after an event",), source=_DATABENTO,
    ),
    Vendor(
        "Databento trades",
        {**_RECORD, "action": "", "side": "side", "price": "price", "size": "volume"},
        _RECORD_KEY | {"price", "size"}, convert=_databento, source=_DATABENTO,
    ),
    Vendor(
        "HistData ASCII ticks", {"time": "timestamp", "bid": "bid", "ask": "ask", "volume": ""},
        _HEADLESS, fields=(r"\d{8} \d{9}", _NUM, _NUM, _NUM),
        said=("times are EST without daylight saving",), named=r"DAT_ASCII_([A-Z]{6})_T_",
        expressions=(
            pl.col("time").str.replace(
                r"^(\d{4})(\d\d)(\d\d) (\d\d)(\d\d)(\d\d)(\d{3})$", "$1-$2-${3}T$4:$5:$6.$7-05:00"
            ),
        ), source="HistData.com, Detailed file specification",
    ),
    Vendor(
        "HistData ASCII minute bars", {}, _HEADLESS,
        fields=(r"\d{8} \d{6}", *((_NUM,) * 5)), refused="candles",
        source="HistData.com, Detailed file specification",
    ),
    Vendor(
        "TrueFX ticks", {"symbol": "symbol", "time": "timestamp", "bid": "bid", "ask": "ask"},
        _HEADLESS,
        fields=(r"[A-Z]{3}/[A-Z]{3}", r"\d{8} \d\d:\d\d:\d\d\.\d+", _NUM, _NUM),
        expressions=(
            pl.col("time").str.replace(r"^(\d{4})(\d\d)(\d\d) (.*)$", "$1-$2-${3}T$4"),
        ),
        said=("times are GMT",), source="TrueFX, Historical data",
    ),
    Vendor(
        "Dukascopy ticks", {
            "timestamp": "timestamp", "askprice": "ask", "bidprice": "bid",
            "askvolume": "ask_size", "bidvolume": "bid_size",
        },
        frozenset(("timestamp", "askprice", "bidprice")), said=(_MILLIONS,),
        named=r"(?i)^([a-z0-9]{6,12})-tick-", source="dukascopy-node, Output formats",
    ),
    *(
        Vendor(
            "JForex ticks", {zone: "timestamp", **_JFOREX}, said=(
                "dates are day first, or year first, as JForex writes them", _MILLIONS,
                *_JFOREX_ZONES[zone],
            ),
            says=_offsetless if zone == "local time" else None,
            named=r"^([A-Z]{6})[_-]", convert=convert, source="Dukascopy, JForex historical data",
        )
        for zone, convert in _JFOREX_TIMES.items()
    ),
    Vendor(
        "MetaTrader 5 ticks", {
            "<date>": "timestamp", "<time>": "", "<bid>": "bid", "<ask>": "ask", "<last>": "",
            "<volume>": "", "<flags>": "",
        },
        said=(
            "times are the broker's server's, taken for UTC",
            "a blank bid or ask is unchanged: the one before it",
        ),
        named=r"^([A-Z0-9.]+?)_\d{8,12}", convert=_metatrader, says=_mixed,
        source="MetaTrader 5 help, Export of ticks; MqlTick",
    ),
)  # fmt: skip
