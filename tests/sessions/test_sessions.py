"""A session's ticks, bars, books and figures, with real recordings as oracles."""

from __future__ import annotations

import bisect
import statistics as plain
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from tick_files import HOSTILE_IDS

import fxlab
from fxlab import errors
from fxlab._questdb.client import QuestDB
from fxlab.backtester import _source
from fxlab.backtester.strategy._decisions import decide
from fxlab.backtester.strategy.strategy import get
from fxlab.schema import BOOK_DEPTH, EVENTS, PRICES, UTC_MICROS, book_levels
from fxlab.sessions._candles import SCHEMA as BAR_SCHEMA
from fxlab.sessions._replay_source import TICK_COLUMNS
from fxlab.sessions.session import PRICE_COLUMNS

FIRST = datetime(2024, 8, 8, 23, 54, 15, 342_000, tzinfo=UTC)


@pytest.fixture(scope="module")
def folder(shared_data):
    return shared_data / "binance_spot_btcusdt_20240808"


@pytest.fixture(scope="module")
def both(lab, shared_data, unique):
    """Import BTC and ETH, trades and books, as one session."""
    files = [
        shared_data / f"binance_spot_{name}_20240808" / f"{kind}.parquet"
        for name in ("btcusdt", "ethusdt")
        for kind in ("trades", "book10")
    ]
    name = unique("binance")
    lab.import_files(files, session_id=name, exchange="binance", tags=("real",))
    return lab.session(name)


@pytest.fixture(scope="module")
def euro(lab, shared_data, unique):
    """Import FX quotes: a session without trades."""
    name = unique("euro")
    lab.import_files(shared_data / "fx_eurusd_dukascopy_20190204/quotes.parquet", session_id=name)
    return lab.session(name)


@pytest.fixture(scope="module")
def trades(folder):
    return pl.read_parquet(folder / "trades.parquet")


@pytest.fixture(scope="module")
def book10(folder):
    return pl.read_parquet(folder / "book10.parquet")


# ---- what is known of it -------------------------------------------------------------------


def test_the_catalogue_knows_the_session(both):
    assert both.symbols == ("BTCUSDT", "ETHUSDT")
    assert both.data_types == ("prices", "orderbook")
    assert (both.prices_count, both.orderbook_count) == (19_904 + 6_106, 6_493 + 3_432)
    assert both.records_collected == both.prices_count + both.orderbook_count
    assert both.started == both.created_at == FIRST
    assert both.price_decimals == {"BTCUSDT": 2, "ETHUSDT": 2}
    assert (both.status, both.exchange, both.source) == ("completed", "binance", "parquet")
    assert (both.tags, both.notes, both.gaps_count) == (("real",), "", 0)
    assert both.duration_seconds == (both.ended - both.started).total_seconds()


def test_counts_are_those_of_the_files(both):
    assert both.counts().rows() == [
        ("BTCUSDT", "orderbook", 6_493),
        ("BTCUSDT", "prices", 19_904),
        ("ETHUSDT", "orderbook", 3_432),
        ("ETHUSDT", "prices", 6_106),
    ]


def test_a_quotes_session_counts_the_decimals_of_its_mids(euro):
    assert euro.data_types == ("orderbook",)
    assert euro.price_decimals == {"EURUSD": 6}


def test_it_shows_itself_in_text_and_html(both):
    assert "26,010 prices" in repr(both)
    assert "password" not in repr(both)
    assert "binance" in both._repr_html_()


# ---- prices --------------------------------------------------------------------------------


def test_prices_are_the_file_row_by_row(both, trades):
    found = both.prices("BTCUSDT", columns=list(PRICES.columns))
    assert found.schema == PRICES.frame
    assert found["seq"].to_list() == trades["trade_id"].to_list()
    assert found["trade_id"].to_list() == [str(n) for n in trades["trade_id"]]
    for name, source in (("timestamp", "timestamp"), ("price", "price"), ("volume", "qty")):
        assert found[name].to_list() == trades[source].to_list(), name
    assert found["received_at"].to_physical().to_list() == (trades["recv_ns"] // 1_000).to_list()
    maker = trades["buyer_is_maker"]
    assert found["side"].to_list() == ["sell" if buyer else "buy" for buyer in maker]
    assert found["quote_volume"].to_list() == (trades["price"] * trades["qty"]).to_list()
    assert set(found["origin"]) == {"parquet"}


def test_no_trade_of_a_shared_millisecond_is_lost(both):
    found = both.prices("BTCUSDT")
    assert found.height == 19_904
    assert found["timestamp"].n_unique() == 7_108
    assert found["volume"].sum() == pytest.approx(437.91552, abs=1e-9)
    assert found.columns == list(PRICE_COLUMNS)
    assert both.prices("ETHUSDT")["volume"].sum() == pytest.approx(2261.3149, abs=1e-9)


def test_a_range_is_half_open_and_exact(both, trades):
    moments = trades["timestamp"]
    inside = trades.filter(moments.is_between(moments[100], moments[300], closed="left"))
    found = both.prices("BTCUSDT", start=moments[100], end=moments[300])
    assert found["seq"].to_list() == inside["trade_id"].to_list()
    one = timedelta(microseconds=1)
    again = both.prices("BTCUSDT", start=moments[100] - one, end=moments[300] - one)
    later = trades.filter(moments.is_between(moments[100] - one, moments[300] - one, "left"))
    assert again["seq"].to_list() == later["trade_id"].to_list()


def test_naive_and_text_times_mean_utc(both):
    wanted = both.prices("BTCUSDT", start=FIRST, end=FIRST + timedelta(seconds=5))
    naive = FIRST.replace(tzinfo=None)
    assert both.prices("BTCUSDT", start=naive, end=naive + timedelta(seconds=5)).equals(wanted)
    text = both.prices("BTCUSDT", start="2024-08-08T23:54:15.342Z", end="2024-08-08T23:54:20.342Z")
    assert text.equals(wanted)
    assert wanted.height > 10


@pytest.mark.parametrize(
    ("start", "end"), [(FIRST - timedelta(days=9), FIRST), (FIRST + timedelta(days=9), None)]
)
def test_a_range_beside_the_session_is_empty_with_types(both, start, end):
    found = both.prices("BTCUSDT", start=start, end=end)
    assert found.is_empty()
    assert found.schema == {name: PRICES.frame[name] for name in PRICE_COLUMNS}
    assert both.orderbook("BTCUSDT", start=start, end=end).is_empty()
    assert both.ohlcv("1m", "BTCUSDT", start=start, end=end).schema == BAR_SCHEMA
    assert list(both.scan_ticks("BTCUSDT", start=start, end=end)) == []


def test_an_impossible_range_is_refused(both):
    with pytest.raises(errors.InvalidTimeRange, match="is not before"):
        both.prices("BTCUSDT", start=FIRST, end=FIRST)


def test_pages_make_the_whole(both):
    pages = [both.prices("BTCUSDT", limit=8_000, offset=n) for n in (0, 8_000, 16_000)]
    assert [found.height for found in pages] == [8_000, 8_000, 3_904]
    assert pl.concat(pages).equals(both.prices("BTCUSDT"))


@pytest.mark.parametrize("chunk_rows", [5_000, 19_904, 1_000_000])
def test_scans_make_the_whole(both, chunk_rows):
    chunks = list(both.scan_prices("BTCUSDT", chunk_rows=chunk_rows, columns=["seq", "symbol"]))
    assert pl.concat(chunks).equals(both.prices("BTCUSDT", columns=["seq", "symbol"]))
    assert all(chunk.height == chunk_rows for chunk in chunks[:-1])


def test_an_unknown_column_symbol_or_page_is_named(both):
    with pytest.raises(errors.InvalidParameter, match="did you mean 'volume'"):
        both.prices("BTCUSDT", columns=["volum"])
    with pytest.raises(errors.SymbolNotFound, match="did you mean 'BTCUSDT'"):
        both.prices("BTCUSD")
    with pytest.raises(errors.InvalidParameter, match="give one of: BTCUSDT, ETHUSDT"):
        both.prices()
    with pytest.raises(errors.InvalidParameter, match="limit=-1"):
        both.prices("BTCUSDT", limit=-1)


@pytest.mark.parametrize("reader", ["gaps", "has_trades", "has_books", "count_ticks", "orderbook"])
def test_every_reader_refuses_an_unknown_symbol(both, reader):
    with pytest.raises(errors.SymbolNotFound, match="did you mean 'BTCUSDT'"):
        getattr(both, reader)("BTCUSD")


def test_the_only_symbol_need_not_be_named(euro):
    assert euro.gaps().is_empty()
    assert euro.orderbook(limit=1)["symbol"].to_list() == ["EURUSD"]


@pytest.mark.parametrize("hostile", HOSTILE_IDS[:20], ids=range(20))
def test_a_hostile_symbol_or_column_is_not_found(both, hostile):
    for call in (both.prices, both.orderbook, both.scan_prices, both.scan_ticks):
        with pytest.raises(errors.SymbolNotFound):
            call(hostile)
    with pytest.raises(errors.InvalidParameter):
        both.prices("BTCUSDT", columns=[hostile])
    with pytest.raises(errors.InvalidParameter):
        both.ohlcv(hostile, "BTCUSDT")


def test_progress_is_told_and_can_cancel(both):
    heard = []
    both.prices("BTCUSDT", progress=lambda share, text: heard.append((share, text)))
    assert heard[-1] == (1.0, "19,904 of 19,904 rows read")

    def stop(share, text):
        raise errors.Cancelled(text)

    with pytest.raises(errors.Cancelled):
        both.prices("BTCUSDT", progress=stop)


# ---- books ---------------------------------------------------------------------------------


def test_books_are_the_file_row_by_row(both, book10):
    found = both.orderbook("BTCUSDT")
    assert found["seq"].to_list() == book10["last_update_id"].to_list()
    levels = [name for name in book10.columns if "_price_" in name or "_qty_" in name]
    assert len(levels) == 4 * BOOK_DEPTH
    assert found.select(levels).equals(book10.select(levels))
    assert found["timestamp"].to_list() == book10["timestamp"].to_list()


def test_spread_and_mid_are_decimals(both):
    found = both.orderbook("BTCUSDT", depth=1)
    assert found.columns == [
        "timestamp", "symbol", "seq", "bid_price_1", "bid_qty_1", "ask_price_1", "ask_qty_1",
        "spread", "mid",
    ]  # fmt: skip
    assert found["spread"].to_list() == found["spread"].round(2).to_list()
    assert found["mid"].to_list() == found["mid"].round(3).to_list()
    assert found["spread"].min() == 0.01


def test_nested_books_hold_the_same_levels(both):
    flat = both.orderbook("ETHUSDT", depth=3, limit=50)
    nested = both.orderbook("ETHUSDT", depth=3, limit=50, nested=True)
    for side in ("bid", "ask"):
        lists = [
            [list(pair) for pair in zip(prices, sizes, strict=True)]
            for prices, sizes in zip(
                flat.select(f"^{side}_price_.$").rows(),
                flat.select(f"^{side}_qty_.$").rows(),
                strict=True,
            )
        ]
        assert nested[f"{side}s"].to_list() == lists
    assert nested["mid"].equals(flat["mid"])


def test_book_scans_make_the_whole(both):
    for nested in (False, True):
        chunks = list(both.scan_orderbook("BTCUSDT", depth=2, nested=nested, chunk_rows=1_000))
        assert [chunk.height for chunk in chunks] == [1_000] * 6 + [493]
        assert pl.concat(chunks).equals(both.orderbook("BTCUSDT", depth=2, nested=nested))


# ---- ticks and bars ------------------------------------------------------------------------


def test_ticks_are_the_trades_where_there_are_any(both):
    ticks = pl.concat(both.scan_ticks("BTCUSDT", chunk_rows=7_000))
    assert ticks.equals(both.prices("BTCUSDT", columns=list(TICK_COLUMNS)))


def test_ticks_of_quotes_are_mids_on_an_integer_grid(euro, shared_data):
    quotes = pl.read_parquet(shared_data / "fx_eurusd_dukascopy_20190204/quotes.parquet")
    ticks = pl.concat(euro.scan_ticks("EURUSD"))
    assert ticks.columns == [
        "timestamp", "seq", "price", "bid_price_1", "bid_qty_1", "ask_price_1", "ask_qty_1",
    ]  # fmt: skip
    assert ticks["timestamp"].to_list() == quotes["timestamp"].to_list()
    cents = [round(b * 1e5) + round(a * 1e5) for b, a in quotes.select("bid", "ask").iter_rows()]
    assert ticks["price"].to_list() == [float(f"{n * 5}e-6") for n in cents]
    assert ticks["bid_qty_1"].to_list() == quotes["bid_size"].to_list()


def test_ticks_bring_the_time_they_were_received_when_asked(both, euro, trades):
    ticks = pl.concat(both.scan_ticks("BTCUSDT", received=True))
    assert ticks.columns == [*TICK_COLUMNS, "received_at"]
    assert ticks["received_at"].to_physical().to_list() == (trades["recv_ns"] // 1_000).to_list()
    assert pl.concat(euro.scan_ticks(received=True))["received_at"].null_count() == 3_733


def test_books_for_fills_are_all_levels_in_order(both, book10):
    found = pl.concat(both.scan_books("BTCUSDT", chunk_rows=1_000))
    assert found.columns == ["timestamp", "seq", *book_levels()]
    assert found.select(book_levels()).equals(book10.select(book_levels()))
    assert found["timestamp"].to_list() == book10["timestamp"].to_list()
    assert found.select("timestamp", "seq").rows() == sorted(
        found.select("timestamp", "seq").rows()
    )


def test_a_session_knows_which_rows_a_symbol_has(both, euro):
    assert (both.has_trades("BTCUSDT"), both.has_books("BTCUSDT")) == (True, True)
    assert (euro.has_trades("EURUSD"), euro.has_books("EURUSD")) == (False, True)


def test_what_rows_there_are_is_asked_once(lab, unique, monkeypatch):
    name = unique()
    symbols = [f"S{number:02}" for number in range(30)]
    frame = pl.DataFrame(
        {"timestamp": [FIRST] * 30, "symbol": symbols, "price": 1.0, "volume": 1.0}
    )
    lab.import_frame(frame, "prices", session_id=name)
    session, asked, execute = lab.session(name), [], QuestDB.execute
    monkeypatch.setattr(
        QuestDB, "execute", lambda db, query: asked.append(query) or execute(db, query)
    )
    assert all(session.has_trades(symbol) for symbol in symbols * 2)
    assert not session.has_books("S00")
    assert len([query for query in asked if "tick_" in query]) == 1


def test_quotes_of_a_session_reach_a_strategy_with_all_levels(euro):
    signals = get("book_imbalance").signals({"levels": 2, "threshold": 0.1})
    columns = signals.roots | {"spread"}
    parts = list(_source.joined_ticks(euro, "EURUSD", columns, chunk_rows=500, decimals=6))
    found = pl.concat(parts)
    assert found.height == 3_733
    assert found["ask_qty_2"].null_count() == 3_733
    assert found["spread"].to_list() == euro.orderbook(depth=1)["spread"].to_list()
    assert len(decide(signals, "EURUSD", found)) > 100


def test_a_sample_of_a_session_is_checked_for_looks_into_the_future(both):
    report = fxlab.check_lookahead(
        both, "book_imbalance", symbols="BTCUSDT", sample_rows=3_000, cuts=4
    )
    assert (report.rows, report.cuts) == (3_000, 4)
    assert report.decisions > 500


def test_books_of_a_session_are_those_before_the_trade(both, book10, trades):
    columns = frozenset({"bid_price_1", "ask_qty_10", "price:ETHUSDT"})
    found = pl.concat(_source.joined_ticks(both, "BTCUSDT", columns, chunk_rows=6_000, decimals=2))
    shown = book10["timestamp"].to_list()
    other = pl.concat(both.scan_ticks("ETHUSDT"))
    for place in range(0, 19_904, 997):
        moment = trades["timestamp"][place]
        before = bisect.bisect_left(shown, moment)
        for name in ("bid_price_1", "ask_qty_10"):
            assert found[name][place] == (book10[name][before - 1] if before else None)
        earlier = other.filter(pl.col("timestamp") < moment)["price"]
        assert found["price:ETHUSDT"][place] == (earlier[-1] if earlier.len() else None)


@pytest.mark.parametrize("interval", ["1s", "1m"])
def test_bars_are_those_of_a_plain_loop(both, trades, interval):
    width = {"1s": 1, "1m": 60}[interval]
    groups = defaultdict(list)
    for moment, price, qty in trades.select("timestamp", "price", "qty").iter_rows():
        groups[int(moment.timestamp()) // width * width].append((price, qty))
    found = both.ohlcv(interval, "BTCUSDT")
    assert [int(moment.timestamp()) for moment in found["timestamp"]] == list(groups)
    for bar, rows in zip(found.iter_rows(named=True), groups.values(), strict=True):
        prices = [price for price, _ in rows]
        assert (bar["open"], bar["close"]) == (prices[0], prices[-1])
        assert (bar["high"], bar["low"]) == (max(prices), min(prices))
        assert bar["trades"] == len(rows)
        assert bar["volume"] == pytest.approx(sum(qty for _, qty in rows), rel=1e-12)
        assert bar["quote_volume"] == pytest.approx(sum(p * q for p, q in rows), rel=1e-12)


def test_bars_of_quotes_are_of_mids_and_know_no_volume(euro):
    found = euro.ohlcv("15m")
    assert found["trades"].sum() == 3_733
    assert found["volume"].null_count() == found.height == 4
    mids = euro.orderbook(depth=1)["mid"]
    assert (found["open"][0], found["close"][-1]) == (mids[0], mids[-1])
    assert (found["high"].max(), found["low"].min()) == (mids.max(), mids.min())


# ---- figures -------------------------------------------------------------------------------


def test_statistics_are_those_of_a_plain_computation(both, trades, book10):
    btc = both.statistics().row(by_predicate=pl.col("symbol") == "BTCUSDT", named=True)
    prices, sizes = trades["price"].to_list(), trades["qty"].to_list()
    times = Counter(trades["timestamp"].to_list())
    seconds = (trades["timestamp"][-1] - trades["timestamp"][0]).total_seconds()
    spreads = (book10["ask_price_1"] - book10["bid_price_1"]).to_list()
    assert btc["data_type"] == "prices"
    assert btc["rows"] == 19_904
    assert (btc["first"], btc["last"]) == (trades["timestamp"][0], trades["timestamp"][-1])
    assert btc["duration_seconds"] == seconds
    assert (btc["low"], btc["high"]) == (min(prices), max(prices))
    assert btc["close"] == prices[-1]
    assert btc["volume"] == pytest.approx(437.91552, abs=1e-9)
    notional = sum(p * q for p, q in zip(prices, sizes, strict=True))
    assert btc["vwap"] == pytest.approx(notional / sum(sizes), rel=1e-12)
    assert btc["rows_per_second"] == pytest.approx(19_904 / seconds)
    assert btc["shared_timestamps"] == sum(n for n in times.values() if n > 1) / 19_904
    assert btc["mean_spread"] == pytest.approx(plain.fmean(spreads), rel=1e-6)


def test_statistics_of_quotes_are_of_mids(euro):
    found = euro.statistics().row(0, named=True)
    assert (found["data_type"], found["rows"]) == ("orderbook", 3_733)
    assert found["volume"] is found["vwap"] is None
    assert found["close"] == pytest.approx(1.14557)
    assert found["shared_timestamps"] == 0.0


def test_a_session_at_one_instant_has_no_rate(lab, unique):
    name = unique()
    frame = pl.DataFrame(
        {"timestamp": [FIRST] * 2, "symbol": ["X"] * 2, "price": [1.0, 2.0], "qty": [0.0, 0.0]}
    )
    lab.import_frame(frame, "prices", session_id=name)
    found = lab.session(name).statistics().row(0, named=True)
    assert found["rows_per_second"] is None
    assert found["shared_timestamps"] == 1.0
    assert found["close"] == 2.0
    assert found["vwap"] is None


def test_holes_of_a_symbol_are_joined(lab, db, euro, unique):
    name = unique()
    frame = pl.DataFrame({"timestamp": [FIRST], "symbol": ["X"], "price": [1.0], "qty": [1.0]})
    lab.import_frame(frame, "prices", session_id=name)
    second = timedelta(seconds=1)
    holes = [("X", "gap", 0, 2), ("", "gap", 1, 3), ("Y", "gap", 5, 6), ("X", "resync", 7, 8)]
    rows = [
        {
            "session_id": name, "symbol": symbol, "event": event, "seq": number, "count": None,
            "from_time": FIRST + a * second, "to_time": FIRST + b * second, "detail": "",
            "timestamp": FIRST + a * second,
        }
        for number, (symbol, event, a, b) in enumerate(holes)
    ]  # fmt: skip
    db.write(EVENTS, pl.DataFrame(rows, schema=EVENTS.frame))
    db.wait_visible(EVENTS)
    found = lab.session(name).gaps("X")
    assert found.rows() == [(FIRST, FIRST + 3 * second)]
    assert euro.gaps("EURUSD").schema == found.schema


def test_a_gap_of_books_is_none_of_the_candles_of_trades(lab, db, unique):
    name, second = unique(), timedelta(seconds=1)
    times = [FIRST.replace(microsecond=0) + n * second for n in (0, 9)]
    frame = pl.DataFrame(
        {"timestamp": times, "symbol": ["X"] * 2, "price": [1.0] * 2, "qty": [1.0] * 2}
    )
    lab.import_frame(frame, "prices", session_id=name)
    kinds = [
        ('{"what": "orderbook", "cause": "lost"}', 1, 3),
        ('{"what": "prices", "cause": "{\\"what\\": \\"orderbook\\""}', 4, 5),
        ("", 6, 7),  # of a recorder that does not say
    ]
    rows = [
        {
            "session_id": name, "symbol": "X", "event": "gap", "seq": number, "count": None,
            "from_time": times[0] + a * second, "to_time": times[0] + b * second, "detail": detail,
            "timestamp": times[0] + a * second,
        }
        for number, (detail, a, b) in enumerate(kinds)
    ]  # fmt: skip
    db.write(EVENTS, pl.DataFrame(rows, schema=EVENTS.frame))
    db.wait_visible(EVENTS)
    session = lab.session(name)
    bars = session.ohlcv("1s", fill=True)
    unknown = bars.with_row_index().filter(pl.col("volume").is_null())["index"].to_list()
    assert unknown == [4, 6]
    assert session.gaps().height == 3
    assert [len(figure.layout.shapes) for figure in session.charts().values()] == [2, 2]


def test_events_are_the_ledger_of_this_session_only(lab, db, both, unique):
    mine = {
        "session_id": both.id, "symbol": "BTCUSDT", "event": "gap", "seq": 1, "from_time": FIRST,
        "to_time": FIRST, "count": 3, "detail": "<b>", "timestamp": FIRST,
    }  # fmt: skip
    rows = [mine, {**mine, "session_id": unique(), "seq": 2}]
    db.write(EVENTS, pl.DataFrame(rows, schema=EVENTS.frame))
    db.wait_visible(EVENTS)
    found = both.events()
    assert found.height == 1
    assert found.row(0, named=True) == {k: v for k, v in mine.items() if k != "session_id"}
    assert found.schema["timestamp"] == UTC_MICROS
