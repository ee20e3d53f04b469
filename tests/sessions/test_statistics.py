"""Statistics and quality against a slow twin, from the rows alone, and facts of real recordings."""

from __future__ import annotations

import math
import random
import statistics as plain
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from fxlab._questdb import sql
from fxlab._questdb.sql import Scope
from fxlab.errors import Cancelled
from fxlab.schema import EVENTS, ORDERBOOK, PRICES, UTC_MICROS
from fxlab.sessions import _statistics
from fxlab.sessions._statistics import STATISTICS, WHY_NONE

START = datetime(2024, 8, 8, 23, 58, 30, tzinfo=UTC)
SYMBOLS = [f"S{number}" for number in range(24)]


def quantile(values, share):
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


def generated_trades(symbol):
    """Return trades of a symbol: one to many, with ties, silences and a spike."""
    rng = random.Random(symbol)
    number = int(symbol[1:])
    rows, moment, price = [], START, 10.0 ** rng.choice([-6, 0, 2, 8])
    digits = 2 if price > 1 else 9
    for seq in range([1, 2, 3, 40, 200][number % 5]):
        moment += timedelta(milliseconds=rng.choice([0, 0, 1, 700, 61_000 if number % 3 else 5]))
        price = round(price * (1 + rng.choice([0, 0, rng.gauss(0, 1e-3)])), digits)
        shown = round(price * 1.2, digits) if number % 4 == 0 and seq == 25 else price
        arrived = moment + timedelta(microseconds=rng.randint(-500, 90_000))
        rows.append(
            {
                "timestamp": moment, "symbol": symbol,
                "seq": 3 * seq if number == 3 else seq + (number == 4), "price": shown,
                "volume": 0.0 if number == 6 else rng.randint(1, 4) / 8,
                "side": rng.choice(["buy", "sell"]) if number != 8 else None,
                "received_at": arrived if number != 9 else None,
            }
        )  # fmt: skip
    order = list(range(len(rows)))
    random.Random(1).shuffle(order)  # the stored order is not that of seq
    return [rows[place] for place in order]


@pytest.fixture(scope="module")
def made(lab, unique):
    """Import the generated trades of all symbols as one session; return it and its rows."""
    rows = [row for symbol in SYMBOLS for row in generated_trades(symbol)]
    frame = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col("timestamp", "received_at").cast(UTC_MICROS)
    )
    name = unique("figures")
    lab.import_frame(frame, "prices", session_id=name)
    session = lab.session(name)
    stored = {
        symbol: session.prices(
            symbol, columns=["timestamp", "seq", "price", "volume", "side", "received_at"]
        ).rows(named=True)
        for symbol in SYMBOLS
    }
    assert sum(map(len, stored.values())) == len(rows)
    return session, stored


def twin_of_statistics(rows):
    """Return the statistics of one symbol's trades in order, from their definitions."""
    prices = [row["price"] for row in rows]
    times = [row["timestamp"] for row in rows]
    sides = {
        side: [row["volume"] for row in rows if row["side"] == side] for side in ("buy", "sell")
    }
    bought, sold = (math.fsum(sides[side]) for side in ("buy", "sell"))
    volume = math.fsum(row["volume"] for row in rows)
    closes = {row["timestamp"].replace(second=0, microsecond=0): row["price"] for row in rows}
    steps = [(b - a).total_seconds() for a, b in pairwise(times)]
    skews = [
        (row["received_at"] - row["timestamp"]).total_seconds()
        for row in rows
        if row["received_at"]
    ]
    shared = sum(count for count in Counter(times).values() if count > 1)
    walk = [prices[0], *closes.values()]
    seconds = (times[-1] - times[0]).total_seconds()
    notional = math.fsum(row["price"] * row["volume"] for row in rows)
    return {
        "rows": len(rows), "books": 0, "data_type": "prices", "first": times[0], "last": times[-1],
        "open": prices[0], "high": max(prices), "low": min(prices), "close": prices[-1],
        "return": prices[-1] / prices[0] - 1,
        "realised_volatility": math.sqrt(sum(math.log(b / a) ** 2 for a, b in pairwise(walk))),
        "volume": volume, "vwap": notional / volume if volume else None,
        "buy_volume": bought if sides["buy"] else None,
        "sell_volume": sold if sides["sell"] else None,
        "trade_imbalance": (bought - sold) / (bought + sold) if bought + sold else None,
        "rows_per_second": len(rows) / seconds if seconds else None,
        "shared_timestamps": shared / len(rows),
        "interval_mean": seconds / len(steps) if steps else None,
        **{
            f"interval_{name}": quantile(steps, share) if steps else None
            for name, share in {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1}.items()
        },
        **{
            f"skew_{name}": quantile(skews, share) if skews else None
            for name, share in {"min": 0, "p50": 0.5, "p99": 0.99, "max": 1}.items()
        },
    }  # fmt: skip


def test_statistics_are_those_of_the_twin(made):
    session, stored = made
    found = session.statistics()
    assert found.schema == STATISTICS
    assert found["symbol"].to_list() == sorted(SYMBOLS)
    for row in found.iter_rows(named=True):
        for name, value in twin_of_statistics(stored[row["symbol"]]).items():
            exact = not isinstance(value, float) or name in {"open", "high", "low", "close"}
            near = value if exact else pytest.approx(value, rel=1e-9, abs=1e-12)
            assert row[name] == near, (row["symbol"], name)
        books = [name for name in STATISTICS if "spread" in name or "depth" in name]
        assert all(row[name] is None for name in books)


def test_statistics_tell_how_far_they_are_and_can_be_stopped(made, lab):
    session, _ = made
    told = []
    session.statistics(progress=lambda share, words: told.append((share, words)))
    assert [share for share, _ in told] == [0.15, 0.25, 0.65, 0.75]
    assert told[0][1].startswith("tick_prices")
    assert told[-1][1].startswith("tick_orderbook")

    def stop(share, words):
        raise Cancelled(f"enough at {share}: {words}")

    for ask in (session.statistics, session.quality, partial(lab.analysis, session.id)):
        with pytest.raises(Cancelled, match=r"enough at 0\.15"):
            ask(progress=stop)


def test_what_does_not_exist_has_a_reason(made, lab):
    session, _ = made
    found = lab.analysis(session.id)
    empty = {name for name in found.statistics.columns if found.statistics[name].null_count()}
    assert {"mean_spread", "skew_p50", "vwap", "interval_p50", "buy_volume"} <= empty
    assert set(found.missing) >= empty - {"interval_max"}
    assert {name for names in WHY_NONE for name in names} <= set(STATISTICS)
    assert "skew_min, skew_p50, skew_p99, skew_max: none, as arrival times were" in str(found)
    assert "nan" not in str(found).lower().replace("finance", "")


@pytest.fixture(scope="module")
def quoted(lab, unique):
    """Import books of three symbols, with empty sides and one symbol that is silent for long."""
    rng = random.Random(5)
    rows = []
    for symbol, pause in (("A", 0.4), ("B", 7.0), ("C", 150.0)):
        moment = START
        for seq in range(int(1_600 / pause)):
            moment += timedelta(milliseconds=rng.choice([0, 0, 1, 2_000 * pause]))
            bid = 100 + rng.randint(0, 9)
            sides = (bid, rng.randint(1, 9), bid + rng.randint(1, 2), rng.randint(1, 9))
            shown = (None, None, *sides[2:]) if rng.random() < 0.1 else sides
            rows.append((moment, symbol, seq, *map(float_or_none, shown)))
    names = ["bid_price_1", "bid_qty_1", "ask_price_1", "ask_qty_1"]
    frame = pl.DataFrame(rows, schema=["timestamp", "symbol", "seq", *names], orient="row")
    name = unique("quotes")
    lab.import_frame(frame.cast({"timestamp": UTC_MICROS}), "orderbook", session_id=name)
    return lab.session(name)


def float_or_none(value):
    return None if value is None else float(value)


@pytest.mark.parametrize("which", ["made", "quoted"])
@pytest.mark.parametrize("minutes", [3, 11])
def test_figures_do_not_depend_on_where_a_session_is_cut(request, monkeypatch, which, minutes):
    found = request.getfixturevalue(which)
    session = found if which == "quoted" else found[0]
    whole = session.analysis()
    monkeypatch.setattr(sql, "YEAR", minutes * sql.MINUTE)
    parts = Scope(PRICES, session.id, None, *session._tick_range()).by_year()
    assert len(parts) > 1
    cut = session.analysis()
    assert_frame_equal(cut.statistics, whole.statistics, rel_tol=1e-13, abs_tol=0)
    assert cut.quality.table.equals(whole.quality.table)
    assert (cut.quality.reasons, cut.missing) == (whole.quality.reasons, whole.missing)


@pytest.mark.parametrize("which", ["made", "quoted"])
def test_a_large_table_s_quantiles_are_cut_as_little_as_is_said(request, monkeypatch, which):
    found = request.getfixturevalue(which)
    session = found if which == "quoted" else found[0]
    exact = session.analysis()
    monkeypatch.setattr(_statistics, "EXACT_ROWS", 0)
    cut = session.analysis()
    quantiles = [f"interval_p{share}" for share in (50, 90, 99)] + ["skew_p50", "skew_p99"]
    assert_frame_equal(cut.statistics.drop(quantiles), exact.statistics.drop(quantiles))
    assert cut.quality.table.equals(exact.quality.table)
    for name in quantiles:
        pairs = zip(exact.statistics[name], cut.statistics[name], strict=True)
        for was, now in pairs:
            most = 1e-4 if "skew" in name else (was or 0) * 1e-3
            assert (was is None) is (now is None)
            assert was is None or abs(was - now) < most or was == now, (name, was, now)


@pytest.mark.parametrize("rows", [1, 7, 10**6])
@pytest.mark.parametrize("which", ["made", "quoted"])
def test_times_that_are_read_are_counted_as_the_server_counts(
    request, monkeypatch, db, which, rows
):
    found = request.getfixturevalue(which)
    session, table = (found, ORDERBOOK) if which == "quoted" else (found[0], PRICES)
    monkeypatch.setattr(_statistics, "READ_ROWS", rows)
    scope = Scope(table, session.id, None, *session._tick_range())
    minutes = db.export(sql.minutes(scope))
    asked = db.export(sql.intervals(scope, exact=False)).drop_nulls("length")
    with ThreadPoolExecutor(2) as pool:
        for name, theirs in _statistics.by_symbol(asked).items():
            one = Scope(table, session.id, name, scope.start, scope.end)
            ours = _statistics._count_intervals(name, _statistics._times(db, pool, one, minutes))
            assert ours["most"].max() == theirs["most"].max()
            asked_of = ["symbol", "length", "row_count"], pl.when(length=0).then("groups")
            assert_frame_equal(
                ours.sort("length").select(*asked_of), theirs.sort("length").select(*asked_of)
            )


def test_what_is_cut_of_intervals_that_are_read_is_what_the_server_cuts(db):
    steps = [0, 1, 9_999, 10_000, 10_019, 999_999, 10**6, 1_001_999, sql.MINUTE - 1]
    steps += [sql.MINUTE, sql.MINUTE + 1, 3 * sql.MINUTE + 123_456]
    ours = _statistics._count_intervals("X", [np.cumsum([5, *steps])])
    values = " union all ".join(f"select {step}L as step from long_sequence(1)" for step in steps)  # noqa: S608 - ours
    query = f"select {sql.FINE_INTERVALS} from ({values})"  # noqa: S608 - ours
    theirs = [row[0] for row in db.execute(query)]
    assert ours.sort("length")["length"].to_list() == sorted(theirs)


def test_skews_below_a_minute_are_cut_alike(lab, made):
    session, _ = made
    scope = Scope(PRICES, session.id, None, *session._tick_range())
    order = ["symbol", "length"]
    near, any_ = (
        lab._db.export(sql.skews(scope, exact=False, near=near)).sort(order)
        for near in (True, False)
    )
    assert near.equals(any_)


def test_few_different_values_are_counted_in_a_large_table(lab, db, unique):
    name, rows = unique("many"), 60_000
    rng = random.Random(2)
    moments = sorted(rng.sample(range(3_600_000_000), rows))
    frame = pl.DataFrame({"timestamp": moments, "seq": range(rows)}).with_columns(
        pl.col("timestamp").cast(UTC_MICROS), symbol=pl.lit("X"), price=1.0, volume=1.0,
        received_at=pl.Series([m + rng.randrange(10**7) for m in moments]).cast(UTC_MICROS),
    )  # fmt: skip
    frame = frame.with_columns(pl.col("timestamp", "received_at") + timedelta(days=19_000))
    lab.import_frame(frame, "prices", session_id=name)
    scope = Scope(PRICES, name, None, *lab.session(name)._tick_range())
    for query in (sql.intervals, sql.skews):
        all_of_them, few = (db.export(query(scope, exact=exact)) for exact in (True, False))
        assert all_of_them["row_count"].sum() == few["row_count"].sum() == rows
        assert few.height < all_of_them.height
    steps = frame["timestamp"].diff().drop_nulls().dt.total_microseconds().to_list()
    row = lab.session(name).statistics().row(0, named=True)
    assert row["interval_p90"] == quantile(steps, 0.9) / 1e6
    assert row["interval_max"] == max(steps) / 1e6


@pytest.mark.parametrize("order", ["backward", "shuffled"])
def test_open_and_closes_where_ids_and_times_run_apart(lab, unique, order):
    rng = random.Random(order)
    rows = 400
    numbers = list(range(rows, 0, -1))
    if order == "shuffled":
        rng.shuffle(numbers)
    frame = pl.DataFrame(
        {
            "timestamp": [START + timedelta(seconds=rng.randrange(300)) for _ in numbers],
            "trade_id": numbers, "symbol": rng.choices("AB", k=rows),
            "price": [float(rng.randint(1, 9_999)) for _ in numbers], "volume": [1.0] * rows,
        }
    ).sort("timestamp", maintain_order=True)  # fmt: skip
    name = unique("apart")
    lab.import_frame(frame, "prices", session_id=name)
    ordered = frame.sort("timestamp", "trade_id")
    for row in lab.session(name).statistics().iter_rows(named=True):
        prices = ordered.filter(symbol=row["symbol"])
        closes = prices.group_by_dynamic("timestamp", every="1m").agg(pl.col("price").last())
        walk = [prices["price"][0], *closes["price"]]
        moved = math.sqrt(sum(math.log(b / a) ** 2 for a, b in pairwise(walk)))
        assert (row["open"], row["close"]) == (walk[0], walk[-1])
        assert row["realised_volatility"] == pytest.approx(moved, rel=1e-12)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_of_counted_values_is_that_of_the_values(values, share):
    counts = Counter(values)
    frame = pl.DataFrame({"length": list(counts), "row_count": list(counts.values())})
    found = _statistics._quantiles(frame, "x", {"q": share})
    assert found == {"x_q": quantile(values, share) / 1e6}


# ---- quality -------------------------------------------------------------------------------


def twin_of_outliers(rows):
    minutes = {}
    for row in rows:
        minutes.setdefault(row["timestamp"].replace(second=0, microsecond=0), []).append(
            row["price"]
        )
    groups = list(minutes.values())
    if len(groups) < 3:
        return None
    found = 0
    for place, prices in enumerate(groups):
        begin = min(max(place - 1, 0), len(groups) - 3)
        near = groups[begin : begin + 3]
        middle = plain.median(one[-1] for one in near)
        found += sum(not 0.95 * middle <= price <= 1.05 * middle for price in prices)
    return found


def test_checks_are_those_of_the_twin(made):
    session, stored = made
    found = session.quality()
    for row in found.table.iter_rows(named=True):
        rows = stored[row["symbol"]]
        steps = [(b["timestamp"] - a["timestamp"]).total_seconds() for a, b in pairwise(rows)]
        mean = plain.fmean(steps) if steps else 0.0
        long = [step for step in steps if step > max(60, 100 * mean)]
        assert (row["silences"], row["silent_seconds"]) == (len(long), pytest.approx(sum(long)))
        alike = Counter((one["timestamp"], one["price"], one["volume"]) for one in rows)
        assert row["duplicates"] == len(rows) - len(alike)
        assert row["outliers"] == twin_of_outliers(rows), row["symbol"]
        assert (row["gaps"], row["books"]) == (0, 0)
    assert found.table["outliers"].sum() > 0
    assert found.table["duplicates"].sum() > 0
    assert found.score == found.table["score"].min() < 100
    assert all(reason.split(":")[0] in SYMBOLS for reason in found.reasons)


def test_ids_that_are_not_numbered_one_by_one_are_not_called_missing(made):
    session, _ = made
    missing = dict(session.quality().table.select("symbol", "missing_ids").iter_rows())
    assert missing["S3"] is None  # every third number: over half are not there
    assert missing["S4"] == 0
    assert missing["S2"] is None  # from 0 on without a hole: numbered by their place


def test_faults_cost_points_with_their_reason(lab, db, unique):
    name = unique("faults")
    second = timedelta(seconds=1)
    prices = pl.DataFrame(
        {
            "timestamp": [START + n * second for n in range(100)], "symbol": ["X"] * 100,
            "seq": [n + 10 * (n >= 50) for n in range(100)],
            "price": [100.0] * 99 + [150.0], "volume": [1.0] * 100,
        }
    )  # fmt: skip
    bids = [100.0] * 8 + [101.0, 102.0]
    books = pl.DataFrame(
        {
            "timestamp": [START + n * second for n in range(10)], "symbol": ["X"] * 10,
            "bid_price_1": bids, "bid_qty_1": [1.0] * 10,
            "ask_price_1": [101.0] * 10, "ask_qty_1": [3.0] * 10,
        }
    )  # fmt: skip
    lab.import_frames({"prices": prices, "orderbook": books.head(8)}, session_id=name)
    bad = {"session_id": name, "seq": 10, "origin": "synthetic", "is_snapshot": True}
    rows = books.tail(2).with_columns(**{key: pl.lit(value) for key, value in bad.items()})
    whole = pl.concat([pl.DataFrame(schema=ORDERBOOK.frame), rows], how="diagonal_relaxed")
    db.write(ORDERBOOK, whole.cast(ORDERBOOK.frame))  # an import would refuse them
    db.wait_visible(ORDERBOOK)
    gap = {
        "session_id": name, "symbol": "X", "event": "gap", "seq": 1, "count": 10,
        "from_time": START + 49 * second, "to_time": START + 51 * second, "detail": "",
        "timestamp": START,
    }  # fmt: skip
    db.write(EVENTS, pl.DataFrame([gap], schema=EVENTS.frame))
    db.wait_visible(EVENTS)
    found = lab.session(name).quality()
    row = found.table.row(0, named=True)
    assert (row["gaps"], row["gap_seconds"]) == (1, 2.0)
    assert (row["missing_ids"], row["outliers"]) == (10, 1)
    assert (row["crossed_books"], row["locked_books"], row["one_sided_books"]) == (1, 1, 0)
    assert found.score == row["score"] == 100 - 3 - 10 - 1 - 10
    assert found.reasons == (
        "X: 1 known gaps that were not filled, 2.02 % of its seconds (-3)",
        "X: 10 trade ids that no row has, 9.09 % of its ids (-10)",
        "X: 1 prices 5 % away from those around them, 1 % of its rows (-1)",
        "X: 1 books whose bid is above the ask, 10 % of its books (-10)",
    )
    figures = lab.session(name).statistics().row(0, named=True)
    assert figures["mean_spread"] == pytest.approx((8 * 1.0 + 0.0) / 9)
    assert figures["book_imbalance"] == pytest.approx(-0.5)
    assert figures["mean_depth"] == 4.0


def test_real_recordings_have_their_known_facts(lab, shared_data, unique):
    name = unique("real")
    files = [
        shared_data / f"binance_spot_{each}_20240808" / f"{kind}.parquet"
        for each in ("btcusdt", "ethusdt")
        for kind in ("trades", "book10")
    ]
    lab.import_files(files, session_id=name)
    found = lab.analysis(name)
    btc = found.statistics.row(0, named=True)
    assert (btc["rows"], btc["books"]) == (19_904, 6_493)
    assert btc["volume"] == pytest.approx(437.91552, abs=1e-9)
    assert btc["buy_volume"] + btc["sell_volume"] == pytest.approx(437.91552, abs=1e-9)
    assert -1.28 < btc["skew_p50"] < -1.26  # the recorder's clock was behind the exchange's
    checks = found.quality.table.row(0, named=True)
    assert checks["duplicates"] == 3_086
    assert (checks["missing_ids"], checks["crossed_books"], checks["gaps"]) == (0, 0, 0)
    assert found.quality.score == 100
    assert found.quality.reasons == ()


def test_a_session_without_ticks_has_no_statistics(lab, db, unique):
    from fxlab.sessions import _catalog

    name = unique("bare")
    row = {"session_id": name, "status": "failed", "created_at": START, "symbols": '["X"]'}
    _catalog.store(db, row)
    db.wait_visible(_catalog.SESSIONS)
    found = lab.analysis(name)
    assert (found.statistics.height, found.statistics.schema) == (0, STATISTICS)
    assert (found.quality.score, found.quality.reasons) == (0, ("no ticks",))
