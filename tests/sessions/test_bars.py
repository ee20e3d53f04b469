"""Candles against a plain twin and Polars' own, on any chunks and for every kind of bar."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab import errors
from fxlab.schema import UTC_MICROS
from fxlab.sessions._candles import END, SCHEMA, candles, check_interval

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
NIGHT = datetime(2024, 8, 8, 23, 59, 50, tzinfo=UTC)
TICKS = {
    "timestamp": UTC_MICROS, "price": pl.Float64, "volume": pl.Float64,
    "quote_volume": pl.Float64, "side": pl.String,
}  # fmt: skip


def ticks(rows, seed=1, step_ms=900):
    """Return ticks over midnight, many of which share their timestamp; some have no side."""
    rng = random.Random(seed)
    moment, out = NIGHT, []
    for _ in range(rows):
        moment += timedelta(milliseconds=rng.choice([0, 0, 1, step_ms]))
        side = rng.choice(["buy", "sell", None])
        out.append((moment, round(100 + rng.gauss(0, 1), 2), rng.randint(0, 99) / 8, 2.0, side))
    return pl.DataFrame(out, schema=TICKS, orient="row")


def one_bar(start, rows, end=None):
    """Return what a bar of these ticks is, from its definition."""
    prices = [price for _, price, *_ in rows]
    volume = sum(volume for _, _, volume, *_ in rows)
    notional = sum(price * volume for _, price, volume, *_ in rows)
    known = [(volume, side) for *_, volume, _, side in rows if side is not None]
    sides = [sum(v for v, side in known if side == wanted) for wanted in ("buy", "sell")]
    return (
        start, prices[0], max(prices), min(prices), prices[-1], volume,
        sum(quote for *_, quote, _ in rows), notional / volume if volume else None, len(rows),
        *(sides if known else (None, None)), *([] if end is None else [end]),
    )  # fmt: skip


def twin(frame, size, kind="time"):
    """Return the bars, tick by tick."""
    found, held, full, number = {}, 0.0, True, 0
    for row in frame.iter_rows():
        if kind == "time":
            width = int(size[:-1]) * SECONDS[size[-1]]
            key = datetime.fromtimestamp(row[0].timestamp() // width * width, UTC)
        else:
            if full:
                held, full, number = 0.0, False, number + 1
            held += {"tick": 1, "volume": row[2], "dollar": row[1] * row[2]}[kind]
            full, key = held >= size * (1 - 1e-9), number
        found.setdefault(key, []).append(row)
    if kind == "time":
        return [one_bar(start, rows) for start, rows in found.items()]
    return [one_bar(rows[0][0], rows, rows[-1][0]) for rows in found.values()]


def cut(frame, cuts):
    chunks, start = [], 0
    for size in [*cuts, frame.height]:
        chunks.append(frame.slice(start, size))
        start += size
    return chunks


def agree(found, wanted):
    """Compare bars: all but the mean price and quote sums are exact here."""
    assert found.height == len(wanted)
    for bar, plain in zip(found.iter_rows(), wanted, strict=True):
        assert bar[:7] == plain[:7]
        assert bar[7] == (None if plain[7] is None else pytest.approx(plain[7], rel=1e-12))
        assert bar[8:] == plain[8:]


WIDTHS = ("1s", "5s", "7s", "1m", "7m", "45m", "1h", "5h", "1d")


@pytest.mark.parametrize("interval", WIDTHS)
def test_bars_are_those_of_the_twin(interval):
    frame = ticks(2_000)
    agree(candles([frame], interval), twin(frame, interval))


@given(
    rows=st.integers(0, 120),
    cuts=st.lists(st.integers(0, 40), max_size=12),
    seed=st.integers(0, 9),
    choice=st.sampled_from(
        [(width, "time") for width in WIDTHS]
        + [(1, "tick"), (7, "tick"), (200, "tick")]
        + [(0.125, "volume"), (20.0, "volume"), (1e9, "volume")]
        + [(1e-9, "dollar"), (5_000, "dollar")]
    ),
)
def test_any_chunks_give_the_same_bars(rows, cuts, seed, choice):
    frame = ticks(rows, seed)
    # Volumes are multiples of 1/8: their sums are exact, whatever the order.
    agree(candles(cut(frame, cuts), *choice), twin(frame, *choice))


@pytest.mark.parametrize("interval", ["1s", "13s", "1m", "7m", "2h", "1d"])
@pytest.mark.parametrize(
    "name", ["binance_spot_btcusdt_20240808", "binance_spot_ethusdt_20240808",
             "coinbase_btcusd_20230905"],
)  # fmt: skip
def test_bars_of_real_trades_are_those_of_polars(shared_data, name, interval):
    file = pl.read_parquet(shared_data / name / "trades.parquet")
    frame = file.select(
        "timestamp", "price", pl.col("qty").alias("volume"),
        (pl.col("price") * pl.col("qty")).alias("quote_volume"),
        pl.when("buyer_is_maker" if "buyer_is_maker" in file.columns else pl.col("side") == "sell")
        .then(pl.lit("sell")).otherwise(pl.lit("buy")).alias("side"),
    )  # fmt: skip
    price, volume, side = pl.col("price"), pl.col("volume"), pl.col("side")
    wanted = frame.group_by_dynamic("timestamp", every=interval).agg(
        price.first().alias("open"), price.max().alias("high"), price.min().alias("low"),
        price.last().alias("close"), volume.sum(), pl.col("quote_volume").sum(),
        vwap=(price * volume).sum() / volume.sum(), trades=pl.len().cast(pl.Int64),
        buy_volume=volume.filter(side == "buy").sum(),
        sell_volume=volume.filter(side == "sell").sum(),
    )  # fmt: skip
    for size in (1_000_000, 997):
        found = candles(frame.iter_slices(size), interval)
        exact = ["timestamp", "open", "high", "low", "close", "trades"]
        assert found.select(exact).equals(wanted.select(exact))
        for column in set(SCHEMA) - set(exact):
            off = (found[column] - wanted[column]).abs()
            assert (off <= 1e-12 * wanted[column].abs().max()).all(), column


@pytest.mark.parametrize(("kind", "size"), [("tick", 1_000), ("volume", 2.5), ("dollar", 1e5)])
def test_bars_of_real_trades_hold_what_was_asked_for(shared_data, kind, size):
    file = pl.read_parquet(shared_data / "binance_spot_btcusdt_20240808" / "trades.parquet")
    frame = file.select("timestamp", "price", volume=pl.col("qty"))
    found = candles([frame], size, kind)
    assert found["trades"].sum() == 19_904
    assert found["volume"].sum() == pytest.approx(437.91552, abs=1e-9)
    held = {"tick": pl.col("trades"), "volume": pl.col("volume")}
    held["dollar"] = pl.col("vwap") * pl.col("volume")
    full = found.select(held[kind]).to_series()[:-1]
    assert (full >= size * (1 - 1e-9)).all()
    assert (found["end"][:-1] <= found["timestamp"][1:]).all()


def test_ten_tenths_are_one():
    frame = ticks(25).with_columns(volume=pl.lit(0.1))
    assert candles([frame], 1, "volume")["trades"].to_list() == [10, 10, 5]
    assert candles(frame.iter_slices(3), 1, "volume")["trades"].to_list() == [10, 10, 5]


def test_a_bar_far_smaller_than_its_trades_has_one_trade():
    frame = ticks(50).with_columns(volume=pl.lit(1e12))
    assert candles([frame], 1e-12, "volume")["trades"].to_list() == [1] * 50


def test_no_ticks_are_no_bars():
    assert candles([], "1m").schema == SCHEMA
    assert candles([ticks(0)], "1m", fill=True).equals(candles([], "1m"))
    assert candles([], 5, "tick").schema == SCHEMA | END


def test_what_is_not_known_stays_unknown():
    frame = ticks(10, step_ms=0).with_columns(quote_volume=pl.lit(None, pl.Float64))
    found = candles([frame], "1d")
    assert found["quote_volume"].to_list() == [None]
    assert found["vwap"].null_count() == 0  # of price and volume, which are known
    quotes = candles([frame.select("timestamp", "price")], "1d")
    unknown = ["volume", "quote_volume", "vwap", "buy_volume", "sell_volume"]
    assert quotes.select(unknown).row(0) == (None,) * 5


def test_the_close_is_the_last_of_equal_times():
    frame = ticks(3, step_ms=0).with_columns(timestamp=pl.lit(NIGHT, UTC_MICROS))
    assert candles([frame], "1s")["close"].to_list() == [frame["price"][-1]]


# ---- empty bars ----------------------------------------------------------------------------


def at(*seconds):
    frame = ticks(len(seconds))
    moments = [NIGHT + timedelta(seconds=second) for second in seconds]
    return frame.with_columns(timestamp=pl.Series(moments, dtype=UTC_MICROS))


def test_empty_bars_are_absent_unless_asked_for():
    frame = at(0, 3, 3, 7)
    bare, whole = candles([frame], "1s"), candles([frame], "1s", fill=True)
    assert bare.height == 3
    assert whole["trades"].to_list() == [1, 0, 0, 2, 0, 0, 0, 1]
    assert whole.filter(pl.col("trades") > 0).equals(bare)
    for empty in (1, 2):
        row = whole.row(empty, named=True)
        assert {row[name] for name in ("open", "high", "low", "close")} == {bare["close"][0]}
        assert (row["volume"], row["quote_volume"], row["vwap"]) == (0.0, 0.0, None)
    assert whole["timestamp"].diff().drop_nulls().unique().to_list() == [timedelta(seconds=1)]


def test_filled_bars_in_a_known_gap_claim_no_volume():
    gap = pl.DataFrame(
        {"from_time": [NIGHT + timedelta(seconds=4.5)], "to_time": [NIGHT + timedelta(seconds=6)]},
        schema={"from_time": UTC_MICROS, "to_time": UTC_MICROS},
    )
    whole = candles([at(0, 3, 3, 7)], "1s", fill=True, gaps=lambda: gap)
    assert whole["volume"].is_null().to_list() == [False] * 4 + [True, True, False, False]
    assert whole["close"].null_count() == 0


def test_filled_bars_of_quotes_have_no_volume_either():
    whole = candles([at(0, 3).select("timestamp", "price")], "1s", fill=True)
    assert whole["trades"].to_list() == [1, 0, 0, 1]
    assert whole["volume"].null_count() == 4


# ---- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", ["1x", "", "1M", "m", "60", None, "1m; drop table x", "2d", "1w", "999ms", 0, -5, "0s"]
)
def test_an_unknown_interval_is_refused_with_the_rule(bad):
    with pytest.raises(errors.InvalidParameter, match=r"give one second to one day, such as '1s'"):
        check_interval(bad)


def test_an_interval_may_be_of_any_length_in_between():
    assert check_interval("1m30s") == check_interval(90) == check_interval(timedelta(seconds=90))
    assert check_interval("1s") == 1_000_000
    assert check_interval("1d") == check_interval("24h") == 86_400_000_000


@pytest.mark.parametrize(
    ("size", "options", "words"),
    [
        ("1m", {"kind": "renko"}, "kind='renko' is not a kind of bars; .*time, tick, volume"),
        ("1m", {"kind": "tic"}, "did you mean 'tick'"),
        ("1m", {"kind": "tick"}, "is a number of ticks; give 1 or more"),
        (0, {"kind": "tick"}, "is a number of ticks; give 1 or more"),
        (0, {"kind": "volume"}, "is the base units of a bar; give a number above zero"),
        (float("inf"), {"kind": "dollar"}, "is the quote units of a bar; give a number above"),
        (5, {"kind": "tick", "fill": True}, "only bars of time can be empty; leave fill out"),
    ],
)
def test_what_makes_no_bars_is_refused_with_the_rule(size, options, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        candles([ticks(5)], size, **options)


@pytest.mark.parametrize("kind", ["volume", "dollar"])
def test_quotes_have_no_bars_of_volume(kind):
    with pytest.raises(errors.InvalidParameter, match=r"needs trades with a volume.*kind='tick'"):
        candles([ticks(5).select("timestamp", "price")], 3, kind)


def test_endless_filling_is_refused_before_it_is_done():
    with pytest.raises(errors.InvalidParameter, match="a longer interval or a shorter range"):
        candles([at(0, 20_000_000)], "1s", fill=True)
