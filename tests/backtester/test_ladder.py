"""The same signals under other costs: one pass, and each rung the run that `backtest` gives."""

from __future__ import annotations

import pytest
from markets import random_walk

import fxlab
from fxlab import errors
from fxlab.backtester.compare import default_scenarios

FRAME = random_walk(3_000, 3)
PARAMETERS = {"fast": 3, "slow": 8}


@pytest.fixture(scope="module")
def ladder():
    return fxlab.cost_ladder(FRAME, "sma_cross", PARAMETERS, capital=5_000.0)


def test_every_rung_is_the_run_of_its_own(ladder):
    rungs = default_scenarios(fxlab.Execution())
    assert list(ladder.results) == list(rungs)
    for name, execution in rungs.items():
        alone = fxlab.backtest(FRAME, "sma_cross", PARAMETERS, capital=5_000.0, execution=execution)
        assert ladder.results[name].fingerprint == alone.fingerprint
        assert ladder.results[name].fills.equals(alone.fills)
        assert ladder.results[name].equity.equals(alone.equity)


def test_higher_costs_leave_less(ladder):
    names = ["no costs", "half", "as given", "double"]
    returns = ladder.table.filter(ladder.table["rung"].is_in(names))["total_return"].to_list()
    assert returns == sorted(returns, reverse=True)
    assert len(set(returns)) == 4


def test_a_ladder_shows_itself(ladder):
    assert "latency 250ms" in ladder._repr_html_()
    assert [trace.name for trace in ladder.plot().data] == list(ladder.results)


def test_rungs_that_meet_other_markets_take_a_pass_of_their_own():
    quotes = FRAME.drop("price", "volume").with_columns(
        bid_price_1=FRAME["price"] - 0.01,
        bid_qty_1=FRAME["volume"] + 1e6,
        ask_price_1=FRAME["price"] + 0.01,
        ask_qty_1=FRAME["volume"] + 1e6,
    )
    rungs = {"print": fxlab.Execution(), "book": fxlab.Execution(fill="book")}
    ladder = fxlab.cost_ladder(quotes, "sma_cross", PARAMETERS, executions=rungs)
    for name, execution in rungs.items():
        alone = fxlab.backtest(quotes, "sma_cross", PARAMETERS, execution=execution)
        assert ladder.results[name].fills.equals(alone.fills)
    assert (
        ladder.results["book"].metrics["final_equity"]
        < (ladder.results["print"].metrics["final_equity"])
    )


def test_progress_runs_from_nothing_to_all_over_the_passes():
    told = []
    fxlab.cost_ladder(
        FRAME,
        "sma_cross",
        PARAMETERS,
        chunk_rows=500,
        progress=lambda share, _words: told.append(share),
    )
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_no_rungs_are_refused():
    with pytest.raises(errors.InvalidParameter, match="executions is empty"):
        fxlab.cost_ladder(FRAME, "sma_cross", PARAMETERS, executions={})
