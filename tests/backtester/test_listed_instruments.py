"""Sizes and fees as the venue listed them: the default, said, refused where there are none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

import fxlab
from fxlab import Execution, FrameSource, errors
from fxlab._ticks import instruments_frame
from fxlab.backtester._source import with_instruments
from fxlab.backtester.execution import UNEQUAL_FEES
from fxlab.backtester.report._summary import result_text
from fxlab.sweeper._study import CachedSource

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = {"tick_size": 0.5, "lot_size": 7.0, "min_notional": 10.0}
FEES = {"taker_bps": 40.0, "maker_bps": 25.0}
NOTHING = Execution()


def ticks(*symbols):
    """Return ticks at 100, of each symbol one a second."""
    return pl.DataFrame(
        [
            {"timestamp": BEGIN + timedelta(seconds=n), "symbol": symbol, "price": 100.0}
            for n in range(6)
            for symbol in symbols
        ]
    ).with_columns(volume=1.0)


def listed(frame=None, **terms):
    """Return ticks with what a venue lists of each symbol."""
    frame = ticks(*terms) if frame is None else frame
    return FrameSource(frame, instruments=instruments_frame(terms))


def run(source, **execution):
    return fxlab.backtest(source, "buy_and_hold", execution=Execution(**execution))


def test_what_is_not_said_is_as_listed_and_said():
    result = run(listed(BTC_USDT=SIZES | FEES))
    made = result.execution
    assert (made.lot_size, made.tick_size, made.min_notional) == (7.0, 0.5, 10.0)
    assert (made.taker_bps, made.maker_bps) == (40.0, 25.0)
    assert result.fills["qty"].to_list() == [98.0]  # of 99.6 that the money could buy
    assert result.metrics["fees"] == pytest.approx(9_800 * 0.004)
    words = (
        "As the venue listed them: lot size 7, tick size 0.5, least notional 10, "
        "taker fee 40 bps, maker fee 25 bps."
    )
    assert words in result._repr_html_()
    assert words in result_text(result)


def test_it_is_the_same_run_as_with_these_values_given():
    source, bare = listed(BTC_USDT=SIZES | FEES), ticks("BTC_USDT")
    given = run(bare, **SIZES, **FEES)
    first = run(source)
    assert run(source, instruments="recorded").fingerprint == first.fingerprint == given.fingerprint
    again = Execution.from_dict(first.execution.as_dict())
    assert with_instruments(again, source, ["BTC_USDT"]) == (first.execution, first.run.listed)
    assert given.run.listed == ()


def test_none_takes_nothing_and_says_nothing():
    result = run(listed(BTC_USDT=SIZES | FEES), instruments="none")
    assert (result.execution.lot_size, result.execution.taker_bps) == (0.0, 5.0)
    assert "As the venue listed" not in result_text(result)
    assert Execution.from_dict(result.execution.as_dict()) == result.execution
    assert result.fills.equals(run(ticks("BTC_USDT")).fills)


@pytest.mark.parametrize("word", [None, "none"])
def test_without_a_listing_nothing_is_changed(word):
    plain = run(ticks("BTC_USDT"))
    assert "instruments" not in plain.execution.as_dict()
    for source in (ticks("BTC_USDT"), listed(BTC_USDT={})):
        found = run(source, instruments=word)
        assert found.fingerprint == plain.fingerprint
        assert found.run.listed == ()


def test_recorded_is_refused_without_a_listing():
    with pytest.raises(errors.InvalidParameter, match=r"instruments='recorded', and .* keeps no"):
        run(ticks("BTC_USDT"), instruments="recorded")
    with pytest.raises(errors.InvalidParameter, match=r"'recordet' is not .*mean 'recorded'"):
        Execution(instruments="recordet")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ({"lot_size": 2.0}, {"lot_size": 2.0, "tick_size": 0.5, "taker_bps": 40.0}),
        ({"lot_size": {"BTC_USDT": 0.0}}, {"lot_size": {"BTC_USDT": 0.0}, "tick_size": 0.5}),
        ({"lot_size": {"OTHER": 3.0}}, {"lot_size": {"OTHER": 3.0, "BTC_USDT": 7.0}}),
        ({"taker_bps": 10.0}, {"taker_bps": 10.0, "maker_bps": 10.0, "lot_size": 7.0}),
        ({"taker_bps": 0.0}, {"taker_bps": 0.0, "maker_bps": 0.0}),
        ({"maker_bps": 5.0}, {"taker_bps": 5.0, "maker_bps": 5.0}),
    ],
)
def test_what_the_user_says_stands(said, found):
    source = listed(BTC_USDT=SIZES | FEES)
    made, names = with_instruments(Execution(**said), source, ["BTC_USDT"])
    assert {name: getattr(made, name) for name in found} == found
    assert not {"taker_bps", "maker_bps"} & said.keys() or "taker_bps" not in names


def test_steps_are_those_of_each_symbol():
    source = listed(A_USDT=SIZES, B_USDT={"lot_size": 3.0, "tick_size": 0.5}, C_USDT={})
    made, names = with_instruments(NOTHING, source, ["A_USDT", "B_USDT"])
    assert (made.lot_size, made.tick_size) == ({"A_USDT": 7.0, "B_USDT": 3.0}, 0.5)
    assert made.min_notional == {"A_USDT": 10.0}
    assert names == ("lot_size", "tick_size", "min_notional")
    result = fxlab.backtest(source, "buy_and_hold", symbols=["A_USDT", "B_USDT"])
    assert "lot size by symbol, tick size 0.5, least notional by symbol." in result_text(result)
    only, _ = with_instruments(NOTHING, source, ["C_USDT"])
    assert only == NOTHING


def test_fees_that_differ_by_symbol_are_not_taken_and_that_is_said():
    for other in (FEES | {"taker_bps": 30.0}, {"lot_size": 1.0}):
        source = listed(A_USDT=FEES, B_USDT=other)
        made, names = with_instruments(NOTHING, source, ["A_USDT", "B_USDT"])
        assert (made.taker_bps, made.maker_bps) == (5.0, None)
        assert UNEQUAL_FEES in names
        assert "other fees for some symbols" in result_text(fxlab.backtest(source, "buy_and_hold"))
        _, names = with_instruments(Execution(taker_bps=1.0), source, ["A_USDT", "B_USDT"])
        assert UNEQUAL_FEES not in names


@pytest.mark.parametrize(
    "fees", [FEES, {"taker_bps": 10.0}, {"taker_bps": 0.0, "maker_bps": 0.0}], ids=str
)
def test_scenarios_of_a_ladder_are_parts_of_the_listed_fees(fees):
    ladder = fxlab.cost_ladder(listed(BTC_USDT=SIZES | fees), "buy_and_hold")
    paid = {name: result.execution.taker_bps for name, result in ladder.results.items()}
    assert [paid[name] for name in ("no costs", "half", "as given", "double")] == [
        factor * fees["taker_bps"] for factor in (0.0, 0.5, 1.0, 2.0)
    ]
    assert {result.execution.lot_size for result in ladder.results.values()} == {7.0}
    assert "taker_bps" in ladder.results["as given"].run.listed


def test_a_sweep_its_ladder_and_a_replay_have_them_too():
    prices = pl.Series("price", [102.0, 100.0, 99.0, 103.0, 104.0, 98.0])
    source = listed(ticks("BTC_USDT").with_columns(prices), BTC_USDT=SIZES | FEES)
    swept = fxlab.sweep(source, "sma_cross", {"fast": [1, 2], "slow": [3]}, check_lookahead=False)
    (ladder,) = swept.ladder(metric="final_equity").filter(fast=1).rows(named=True)
    for name, factor in (("no costs", 0.0), ("half", 0.5), ("as given", 1.0), ("double", 2.0)):
        fees = {fee: bps * factor for fee, bps in FEES.items()}
        execution = Execution(**SIZES, **fees)
        point = {"fast": 1, "slow": 3}
        alone = fxlab.backtest(source, "sma_cross", point, execution=execution)
        assert alone.fills.height > 0
        assert ladder[name] == alone.metrics["final_equity"]
    replay = fxlab.replay(source, strategy="buy_and_hold", speed=1e9)
    assert list(replay)
    assert replay.result.fingerprint == run(source).fingerprint
    cached = with_instruments(NOTHING, CachedSource(source), ["BTC_USDT"])
    assert cached == with_instruments(NOTHING, source, ["BTC_USDT"])
    assert with_instruments(NOTHING, CachedSource(FrameSource(ticks("A"))), ["A"]) == (NOTHING, ())
