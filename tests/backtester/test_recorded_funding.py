"""Funding as the session recorded it: charged by default, said, refused where there is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

import fxlab
from fxlab import Execution, FrameSource, errors

BEGIN = datetime(2026, 1, 1, 7, 59, 58, tzinfo=UTC)
EIGHT = BEGIN + timedelta(seconds=2)
TICKS = pl.DataFrame(
    {
        "timestamp": [BEGIN + timedelta(seconds=n) for n in range(6)],
        "symbol": ["BTC_USDT"] * 6,
        "price": [100.0] * 6,
        "volume": [1.0] * 6,
    }
)


class Funded(FrameSource):
    """Ticks of a session that knows its funding."""

    data_types = ("prices", "mark")

    def funding(self, symbol):
        """Return a rate within the ticks, and one before and after them."""
        times = [EIGHT - timedelta(hours=8), EIGHT, EIGHT + timedelta(hours=8)]
        rates = pl.DataFrame({"timestamp": times, "rate": [0.5, 0.01, 0.5], "paid": [True] * 3})
        return rates.with_columns(symbol=pl.lit(symbol))


FREE = {"taker_bps": 0.0}


def run(source=None, **execution):
    chosen = Funded(TICKS) if source is None else source
    return fxlab.backtest(chosen, "buy_and_hold", execution=Execution(**FREE, **execution))


def test_recorded_funding_within_the_run_is_charged_by_default_and_said():
    result = run()
    assert result.metrics["funding"] == pytest.approx(10_000 * 0.01)
    assert result.run.recorded_funding == 1
    assert "Funding is charged as it was recorded, 1 rate within the run." in result._repr_html_()
    assert [rate[2] for rate in result.execution.rates] == [0.01]


def test_it_is_the_same_run_as_with_these_rates_given():
    rates = Funded(TICKS).funding("BTC_USDT").filter(pl.col("timestamp") == EIGHT)
    given = run(funding=rates)
    assert given.fingerprint == run().fingerprint == run(funding="recorded").fingerprint
    assert given.run.recorded_funding is None
    again = Execution.from_dict(run().execution.as_dict())
    assert run(funding=again.rates).fingerprint == given.fingerprint


def test_none_charges_nothing():
    result = run(funding="none")
    assert result.metrics["funding"] == 0.0
    assert result.run.recorded_funding is None
    assert Execution.from_dict(result.execution.as_dict()) == result.execution
    assert "as it was recorded" not in result._repr_html_()


def test_recorded_is_refused_where_nothing_was():
    with pytest.raises(errors.InvalidParameter, match=r"and .* has no funding that was"):
        run(TICKS, funding="recorded")
    assert run(TICKS).run.recorded_funding is None
    with pytest.raises(errors.InvalidParameter, match="funding='recorder' is not a frame"):
        Execution(funding="recorder")


def test_each_scenario_of_a_ladder_charges_it():
    ladder = fxlab.cost_ladder(
        Funded(TICKS),
        "buy_and_hold",
        executions={"one": Execution(**FREE), "none": Execution(**FREE, funding="none")},
    )
    paid = {name: result.metrics["funding"] for name, result in ladder.results.items()}
    assert paid == {"one": pytest.approx(100.0), "none": 0.0}


def test_what_was_recorded_is_read_once_for_scenarios_that_ask_for_the_same():
    source, asked = Funded(TICKS), []
    read = source.funding
    source.funding = lambda symbol: asked.append(symbol) or read(symbol)
    scenarios = {f"{bps}": Execution(taker_bps=float(bps)) for bps in range(5)}
    ladder = fxlab.cost_ladder(source, "buy_and_hold", executions=scenarios)
    assert {one.run.recorded_funding for one in ladder.results.values()} == {1}
    assert asked == ["BTC_USDT"]
