"""The recipe: no look-ahead, chunk invariance of every shipped strategy, and its refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import SMALL, START, random_walk
from twin import cross_targets, replay_leg

import fxlab
from fxlab import errors
from fxlab._times import from_micros
from fxlab.backtester._frame_source import FrameSource
from fxlab.backtester.engine import backtest, choose_interval
from fxlab.backtester.strategy import strategy as registry
from fxlab.batcher._jobs import NightlySweep


def test_every_shipped_strategy_has_small_parameters_here():
    assert set(SMALL) <= set(registry.names())
    shipped = [
        n
        for n in registry.names()
        if registry.get(n).function.__module__.startswith("fxlab.backtester.")
    ]
    assert sorted(SMALL) == shipped


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize("chunk_rows", [1, 7, 100])
def test_chunking_changes_no_bit_of_a_strategy(name, chunk_rows):
    frame = random_walk(600, seed=3)
    whole = backtest(frame, name, SMALL[name])
    parts = backtest(frame, name, SMALL[name], chunk_rows=chunk_rows)
    assert whole.fills.height >= 1
    assert parts.orders.equals(whole.orders)
    assert parts.equity.equals(whole.equity)
    assert parts.fingerprint == whole.fingerprint


@pytest.mark.parametrize("name", sorted(SMALL))
@settings(max_examples=25, deadline=None)
@given(cut=st.integers(1, 299), seed=st.integers(0, 10))
def test_the_future_changes_nothing_before_it(name, cut, seed):
    frame = random_walk(300, seed)
    rng = np.random.default_rng(seed + 99)
    noise = np.where(np.arange(300) >= cut, rng.integers(-50, 50, 300) / 100, 0.0)
    other = frame.with_columns((pl.col("price") + noise).clip(lower_bound=0.01).round(2))
    signals = pl.col("reason") == "signal"  # exits are decided by the market
    before = (pl.col("decided_at") < frame["timestamp"][cut]) & signals
    columns = ["symbol", "decided_at", "target"]
    one = backtest(frame, name, SMALL[name]).orders.filter(before).select(columns)
    two = backtest(other, name, SMALL[name]).orders.filter(before).select(columns)
    assert one.equals(two)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_truncated_session_gives_the_same_beginning(name):
    frame = random_walk(400, seed=5)
    whole = backtest(frame, name, SMALL[name]).fills
    for cut in (20, 133, 399):
        part = backtest(frame.head(cut), name, SMALL[name]).fills
        assert part.equals(whole.head(part.height))
        known = (whole["timestamp"] < frame["timestamp"][cut - 1]).sum()
        assert part.height >= known


@settings(max_examples=50, deadline=None)
@given(
    ticks=st.lists(st.integers(100, 104), min_size=1, max_size=60),
    fast=st.integers(1, 5),
    extra=st.integers(1, 6),
)
def test_sma_cross_keeps_its_contract_on_data_full_of_ties(ticks, fast, extra):
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series([START + k for k in range(len(ticks))]).cast(
                pl.Datetime("us", "UTC")
            ),
            "price": np.array(ticks) / 10,
        }
    )
    result = backtest(frame, "sma_cross", {"fast": fast, "slow": fast + extra}, capital=1_000)
    targets = cross_targets(ticks, fast, fast + extra)
    leg = replay_leg(
        frame["timestamp"].to_physical().to_list(),
        frame["price"].to_list(),
        targets,
        capital=1_000.0,
        fee=5e-4,
        slippage=0.0,
        latency=0,
    )
    assert result.fills["timestamp"].to_physical().to_list() == [f.time for f in leg.fills]
    assert result.metrics["final_equity"] == pytest.approx(leg.path[-1][1], rel=1e-12)


def test_adding_a_symbol_changes_nothing_of_the_others():
    one = random_walk(500, seed=1, symbol="A")
    both = pl.concat([one, random_walk(300, seed=2, symbol="B")])
    alone = backtest(one, "sma_cross", SMALL["sma_cross"], capital=1_000)
    together = backtest(both, "sma_cross", SMALL["sma_cross"], capital=2_000)
    assert together.fills.filter(pl.col("symbol") == "A").equals(
        alone.fills.select(together.fills.columns)
    )


def test_symbols_can_be_chosen():
    both = pl.concat([random_walk(100, symbol="A"), random_walk(100, seed=9, symbol="B")])
    result = backtest(both, "buy_and_hold", symbols="B")
    assert result.symbols == ("B",)
    assert result.fills["symbol"].unique().to_list() == ["B"]
    with pytest.raises(errors.SymbolNotFound, match="no symbol named 'C'"):
        backtest(both, "buy_and_hold", symbols=["C"])


def test_a_strategy_without_lookback_sees_the_whole_past_whatever_the_chunks():
    def since_first() -> fxlab.Signals:
        rising = pl.col("price") > pl.col("price").first()
        return fxlab.Signals(target=pl.when(rising).then(1.0).otherwise(0.0))

    frame = random_walk(300, seed=8)
    assert backtest(frame, since_first, chunk_rows=10).orders.equals(
        backtest(frame, since_first).orders
    )


def test_time_ranges_are_half_open_and_exact_to_the_microsecond():
    frame = random_walk(200, seed=2)
    times = frame["timestamp"].unique(maintain_order=True)
    start, end = times[10], times[100]
    result = backtest(frame, "buy_and_hold", start=start, end=end)
    inside = frame.filter(pl.col("timestamp") >= start, pl.col("timestamp") < end)
    assert result.ticks == inside.height
    assert (result.first, result.last) == (start, inside["timestamp"][-1])
    later = backtest(frame, "buy_and_hold", start=start + timedelta(microseconds=1))
    assert later.first == times[11]


def test_latency_waits_for_a_tick_that_is_late_enough():
    micros = [0, 10, 20, 29, 30, 31]
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(micros).cast(pl.Datetime("us", "UTC")),
            "price": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        }
    )
    for latency, expected in (("0s", 10), ("20us", 20), ("21us", 29), ("30us", 30)):
        result = backtest(frame, "buy_and_hold", execution=fxlab.Execution(latency=latency))
        assert result.fills["timestamp"].to_physical().to_list() == [expected]


def test_progress_reaches_one_and_can_cancel():
    frame = random_walk(1_000)
    seen = []
    backtest(
        frame, "buy_and_hold", chunk_rows=100, progress=lambda share, _text: seen.append(share)
    )
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) == 11

    def stop(_share: float, _text: str) -> None:
        raise errors.Cancelled("stopped by the test")

    with pytest.raises(errors.Cancelled):
        backtest(frame, "buy_and_hold", progress=stop)


def test_samples_are_fine_enough_to_draw_and_divide_the_grid():
    minute = 60_000_000
    assert choose_interval((0, 10 * minute), minute) == 1_000_000
    assert choose_interval((0, 1_000 * minute), minute) == 30_000_000
    assert choose_interval((0, 10**12), minute) == minute


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"source": None}, errors.InvalidParameter, "session_id is required"),
        ({"source": "session_x"}, errors.InvalidParameter, "lab.session"),
        ({"strategy": "sma_croos"}, errors.StrategyNotFound, "did you mean 'sma_cross'"),
        ({"parameters": {"fst": 3}}, errors.InvalidParameter, "did you mean 'fast'"),
        ({"parameters": {"fast": 2.5}}, errors.InvalidParameter, "is not an int"),
        ({"parameters": {"fast": True}}, errors.InvalidParameter, "is not an int"),
        ({"parameters": {"fast": 0}}, errors.InvalidParameter, "from 1 to"),
        ({"parameters": {"fast": 9, "slow": 9}}, errors.InvalidParameter, "must be below slow=9"),
        ({"capital": 0}, errors.InvalidParameter, "must be above zero"),
        ({"capital": float("nan")}, errors.InvalidParameter, "nan is not a number"),
        ({"capital": "10"}, errors.InvalidParameter, "is not a number"),
        ({"return_interval": "1ms"}, errors.InvalidParameter, "too fine"),
        ({"return_interval": "soon"}, errors.InvalidParameter, "is not a duration"),
        (
            {"start": datetime(2025, 1, 2), "end": datetime(2025, 1, 1)},  # noqa: DTZ001
            errors.InvalidTimeRange,
            "selects nothing",
        ),
        (
            {"start": datetime(2025, 1, 1), "end": datetime(2025, 1, 2, tzinfo=UTC)},  # noqa: DTZ001
            errors.InvalidTimeRange,
            "mix a naive and an aware",
        ),
        ({"start": "yesterday"}, errors.InvalidTimeRange, "is not a time"),
        ({"start": from_micros(START + 10**15)}, errors.EmptySession, "no ticks"),
    ],
)
def test_bad_input_names_value_rule_and_next_step(change, error, words):
    arguments = {"source": random_walk(50), "strategy": "sma_cross", "parameters": {}} | change
    source, strategy = arguments.pop("source"), arguments.pop("strategy")
    with pytest.raises(error, match=words):
        backtest(source, strategy, arguments.pop("parameters"), **arguments)


def test_bad_targets_are_refused():
    frame = random_walk(20)

    def lever() -> fxlab.Signals:
        return fxlab.Signals(target=pl.lit(1.5))

    def broken() -> fxlab.Signals:
        return fxlab.Signals(target=pl.when(pl.col("seq") == 7).then(float("nan")))

    def elsewhere() -> fxlab.Signals:
        return fxlab.Signals(target=pl.col("bid_price_1"))

    with pytest.raises(errors.InvalidParameter, match="beyond max_leverage=1"):
        backtest(frame, lever)
    assert backtest(frame, lever, execution=fxlab.Execution(max_leverage=2)).fills.height == 1
    with pytest.raises(errors.InvalidParameter, match=r"row 7 .* is NaN"):
        backtest(frame, broken)
    with pytest.raises(errors.InvalidParameter, match=r"asks for 'bid_price_1', .* no order books"):
        backtest(frame, elsewhere)
    with pytest.raises(errors.InvalidParameter, match="asks for 'mood'"):
        backtest(frame, lambda: fxlab.Signals(target=pl.col("mood")))


# ---- Books that say nothing, stretches without a price, money of two currencies ----


class InChunks(FrameSource):
    """A source whose chunks hold the rows of a session before those without a mid went."""

    def scan_ticks(self, symbol, *, start=None, end=None, chunk_rows=None, received=False):
        """Yield slices by the frame's rows, some of them empty."""
        rows = next(super().scan_ticks(symbol, start=start, end=end, received=received))
        step = chunk_rows or self.frame.height
        for first in range(0, self.frame.height, step):
            part = self.frame.slice(first, step)["timestamp"]
            inside = pl.col("timestamp").is_between(part[0], part[-1])
            yield rows.filter(inside)


def quotes_without(rows, missing, count=300):
    times = pl.Series([START + 1_000 * row for row in range(count)]).cast(pl.Datetime("us", "UTC"))
    bids = [None if row in missing else 100.0 + row % 5 for row in range(count)]
    sizes = [1.0 + 7 * (row % 2) for row in range(count)]
    return pl.DataFrame(
        {
            "timestamp": times,
            "bid_price_1": bids,
            "bid_qty_1": sizes,
            "ask_price_1": [101.0 + row % 5 for row in range(count)],
            "ask_qty_1": sizes[::-1],
        }
    ).with_columns(rows)


@pytest.mark.parametrize("missing", [range(100, 200), range(50), range(250, 300), range(1, 299)])
@pytest.mark.parametrize(
    ("strategy", "fill"), [("book_imbalance", "next_trade"), ("buy_and_hold", "book")]
)
def test_a_stretch_of_quotes_without_a_mid_is_passed_over(missing, strategy, fill):
    source = InChunks(quotes_without([], missing))
    execution = fxlab.Execution(fill=fill)
    whole = backtest(source, strategy, execution=execution)
    parts = backtest(source, strategy, execution=execution, chunk_rows=50)
    assert parts.ticks == whole.ticks == 300 - len(missing)
    assert parts.fills.height
    assert parts.fills.equals(whole.fills)
    assert parts.prices.height
    replayed = fxlab.replay(
        source, speed=float("inf"), strategy=strategy, execution=execution, batch_size=7
    )
    for _ in replayed:
        pass
    assert replayed.result.fills.equals(whole.fills)


@pytest.mark.parametrize(
    "bad",
    [
        {"bid_price_1": 102.0, "ask_price_1": 98.0},  # crossed
        {"bid_price_1": 100.0, "ask_price_1": 100.0},  # locked
        {"bid_price_2": 99.5},  # bids rise
        {"ask_price_2": 100.5},  # asks fall
        {"ask_qty_1": -1.0},
        {"ask_price_1": None},  # a level before it is missing
        {"bid_price_1": None, "bid_price_2": None, "ask_price_1": None, "ask_price_2": None},
    ],
)
@pytest.mark.parametrize("queue", [False, True])
def test_a_book_that_crosses_or_is_out_of_order_is_no_book(bad, queue):
    """Beside trades: nothing fills from it, no queue moves by it, no strategy sees it."""
    good = {"bid_price_1": 99.0, "bid_qty_1": 9e9, "bid_price_2": 98.0, "bid_qty_2": 9e9}
    good |= {"ask_price_1": 101.0, "ask_qty_1": 9e9, "ask_price_2": 102.0, "ask_qty_2": 9e9}
    micros = pl.Datetime("us", "UTC")
    books = pl.DataFrame(
        [{"timestamp": START + at, **good, **(bad if at else {})} for at in (0, 2)]
    )
    books = books.with_columns(pl.col("timestamp").cast(micros))
    ticks = pl.DataFrame(
        {
            "timestamp": pl.Series([START + at for at in (1, 3, 4)]).cast(micros),
            "price": [100.0] * 3,
            "volume": [1.0] * 3,
            "want": [1.0, None, None],
        }
    )

    def wanted() -> fxlab.Signals:
        return fxlab.Signals(target=pl.col("want"), lookback=0)

    def seen() -> fxlab.Signals:
        return fxlab.Signals(target=pl.col("bid_price_1").is_null().cast(float), lookback=0)

    source = FrameSource(ticks, books=books)
    run = backtest(
        source, wanted, execution=fxlab.Execution(fill="book", queue=queue, latency="2us")
    )
    assert run.orders["status"].to_list() == ["no usable book: crossed, out of order or empty"]
    assert not run.fills.height
    told = backtest(source, seen, execution=fxlab.Execution()).orders["target"].to_list()
    assert told == [1.0]


def test_quotes_that_cross_have_no_mid():
    crossed = pl.when(pl.int_range(pl.len()) % 3 == 1).then(pl.lit(200.0))
    frame = quotes_without([crossed.otherwise(pl.col("bid_price_1")).alias("bid_price_1")], ())
    for fill in ("next_trade", "book"):
        run = backtest(frame, "buy_and_hold", execution=fxlab.Execution(fill=fill))
        assert run.ticks == 200
        assert run.fills["price"].to_list() == [101.0 if fill == "book" else 102.5]


@pytest.mark.parametrize(
    ("symbols", "mixed"),
    [
        (("BTC_USDT", "ETH_BTC"), True),
        (("EUR_USD", "USD_JPY"), True),
        (("BTC/USDT:USDT", "ETHBTC"), True),
        (("BTC_USDT", "ETH-USDT"), False),
        (("EURUSD", "USDJPY"), True),
        (("BTCUSDT", "ETHBTC"), True),
        (("BTCUSDT", "ETH_USDT"), False),
        (("BTCUSD_PERP", "ETHUSD_241227", "XBTUSD"), False),
        (("BTCUSDT", "BTC-PERPETUAL"), False),
        (("BTCUSDT", "BTC-PERPETUAL", "ETHBTC"), True),
    ],
)
def test_money_of_different_currencies_is_never_added(symbols, mixed):
    walks = pl.concat([random_walk(50, symbol=symbol) for symbol in symbols])
    ways = [
        lambda: backtest(walks, "buy_and_hold"),
        lambda: fxlab.cost_ladder(walks, "buy_and_hold"),
        lambda: fxlab.sweep(walks, "buy_and_hold", {"exposure": [0.5, 1.0]}),
        lambda: fxlab.replay(walks, strategy="buy_and_hold", speed=1e6).stop(),
    ]
    for way in ways:
        if mixed:
            with pytest.raises(errors.InvalidParameter, match=r"currencies .* is never added"):
                way()
        else:
            way()
    assert backtest(walks, "buy_and_hold", symbols=[symbols[0]]).fills.height == 1
    fxlab.replay(walks, speed=1e6).stop()  # only looked at


@pytest.mark.parametrize(
    ("symbols", "unsaid"),
    [
        (("BTC_USDT", "BTC-PERPETUAL"), "BTC-PERPETUAL"),
        (("AAPL", "MSFT"), "AAPL, MSFT"),
        (("BTC_USDT", "ETHUSDT"), None),
        (("AAPL",), None),
    ],
)
def test_a_currency_that_is_not_known_is_said_wherever_a_run_is_shown(symbols, unsaid, tmp_path):
    walks = pl.concat([random_walk(50, symbol=symbol) for symbol in symbols])
    run = backtest(walks, "buy_and_hold")
    page = run.report(tmp_path).read_text(encoding="utf-8")
    swept = fxlab.sweep(walks, "buy_and_hold", {"exposure": [0.5, 1.0]})
    words = f"The currency of {unsaid} is not known from the name" if unsaid else "The currency of"
    for shown in (repr(run), run._repr_html_(), page, repr(swept), swept._repr_html_()):
        assert (words in shown) == (unsaid is not None)


@pytest.mark.parametrize("strategy", ["sma_cross", registry.get("sma_cross").function])
@pytest.mark.parametrize(
    "call",
    [
        fxlab.backtest,
        fxlab.check_lookahead,
        fxlab.cost_ladder,
        lambda one, two: fxlab.sweep(one, two, {"fast": [2, 3]}),
        lambda one, two: fxlab.walk_forward(one, two, {"fast": [2, 3]}, train="1m", folds=2),
    ],
)
def test_a_strategy_before_the_data_is_told_the_order(call, strategy):
    ticks = random_walk(50)
    with pytest.raises(errors.FxlabError, match=r"data .*first.*fxlab\.backtest\(session, "):
        call(strategy, ticks)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"capital": 0}, "capital=0 must be above zero"),
        ({"return_interval": "1ms"}, "is too fine"),
        ({"days_per_year": 0}, "not a number of days"),
        ({"chunk_rows": 0}, "not a number of rows"),
    ],
)
@pytest.mark.parametrize(
    "make",
    [
        fxlab.RunOptions,
        lambda **options: fxlab.BatchJob(session="s", strategy="sma_cross", **options),
        lambda **options: NightlySweep.of(
            {"sessions": ["s"], "strategy": "sma_cross", "parameters": {"fast": [2, 3]}, **options}
        ),
    ],
)
def test_run_options_are_checked_where_they_are_made(make, change, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        make(**change)
