"""Funding and swap: frames that are refused, records in order, rollovers by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

import fxlab
from fxlab import Execution, errors, swap_rates
from fxlab.backtester._state import funding_records
from fxlab.backtester.execution import parse_funding

TIMES = pl.Series("timestamp", [3_000, 1_000, 2_000]).cast(pl.Datetime("us", "UTC"))


def frame(**columns):
    return pl.DataFrame([TIMES]).with_columns(**{k: pl.Series(v) for k, v in columns.items()})


def test_a_rate_is_paid_by_longs_to_shorts():
    assert parse_funding(frame(rate=[0.3, 0.1, -0.2])) == (
        (None, 1_000, 0.1, -0.1),
        (None, 2_000, -0.2, 0.2),
        (None, 3_000, 0.3, -0.3),
    )


def test_each_side_may_have_its_own_rate():
    swap = frame(rate_long=[0.3, 0.1, 0.2], rate_short=[0, 1, -1], symbol=["B", "A", None])
    assert parse_funding(swap) == (
        ("A", 1_000, 0.1, 1.0),
        (None, 2_000, 0.2, -1.0),
        ("B", 3_000, 0.3, 0.0),
    )


def test_times_may_be_naive_or_of_another_unit_and_mean_utc():
    plain = parse_funding(frame(rate=[0.3, 0.1, 0.2]))
    for kind in (pl.Datetime("us"), pl.Datetime("ns", "UTC")):
        other = frame(rate=[0.3, 0.1, 0.2]).with_columns(pl.col("timestamp").cast(kind))
        assert parse_funding(other) == plain


def test_none_and_an_empty_frame_are_no_funding():
    assert parse_funding(None) == ()
    assert parse_funding(frame(rate=[0.1, 0.2, 0.3]).head(0)) == ()
    assert parse_funding(frame(rate=[0.1] * 3, symbol=["A"] * 3).head(0)) == ()
    assert len(funding_records((), ("A",))) == 0


def test_records_are_those_of_the_symbols_in_the_order_of_time_and_leg():
    rates = parse_funding(frame(rate=[0.3, 0.1, 0.2], symbol=[None, "B", "C"]))
    found = funding_records(rates, ("B", "A"))
    assert found["time"].tolist() == [1_000, 3_000, 3_000]
    assert found["leg"].tolist() == [0, 0, 1]
    assert found["rate_long"].tolist() == [0.1, 0.3, 0.3]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (5, "funding=5 is not a frame"),
        ({"rate": [1]}, "is not a frame"),
        (frame(cost=[1.0, 2.0, 3.0]), "has the columns timestamp, cost; it needs timestamp"),
        (frame(rate_long=[0.1] * 3), "rate_long and rate_short"),
        (pl.DataFrame({"rate": [0.1]}), "it needs timestamp"),
        (pl.DataFrame({"timestamp": [1], "rate": [0.1]}), "is not a Datetime"),
        (pl.DataFrame({"timestamp": [date(2025, 1, 1)], "rate": [0.1]}), "is not a Datetime"),
        (frame(rate=["0.1", "0.2", "0.3"]), "funding's rate is String, not a number"),
        (frame(rate=[0.1, 5.0, 0.1]), "has the rate 5.0"),
        (frame(rate=[0.1, None, 0.1]), "has the rate None"),
        (frame(rate=[0.1, float("nan"), 0.1]), "has the rate nan"),
        (frame(rate=[0.1, float("inf"), 0.1]), "has the rate inf"),
        (frame(rate_long=[0.1] * 3, rate_short=[0.1, 2.0, 0.1]), "a fraction of the notional"),
        (
            frame(rate=[0.1] * 3).with_columns(pl.lit(None, pl.Datetime("us")).alias("timestamp")),
            "the time None",
        ),
        (((None, 1, 0.1, 5.0),), "has the rate 5.0"),
        ((("BTC", 1, "0.1", 0.1),), "funding of BTC has the rate 0.1"),
        ((("BTC", 1, True, 0.1),), "has the rate True"),
        ((("BTC", "2025-01-01", 0.1, 0.1),), "the time 2025-01-01; a rate is"),
        ((("BTC", 10**30, 0.1, 0.1),), "the time 1000"),
        ((([], 1, 0.1, 0.1),), "a fraction of the notional"),
        (((5, 1, 0.1, 0.1),), "funding of 5 has"),
    ],
)
def test_what_is_no_funding_is_refused(value, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        Execution(funding=value)


def test_rates_of_a_plan_are_ordered_by_time():
    later, sooner = [None, 2, 0.1, -0.1], ["BTC", 1, 0.2, -0.2]
    found = Execution.from_dict({"funding": [later, sooner]})
    assert found.rates == (tuple(sooner), tuple(later))


def hold(*, target: float = 1.0) -> fxlab.Signals:
    """Hold a position from the first tick on."""
    return fxlab.Signals(target=pl.lit(target), lookback=0)


@pytest.mark.parametrize(("target", "paid"), [(1.0, 110.0), (-1.0, -110.0)])
def test_longs_pay_and_shorts_receive_at_the_last_price_before(target, paid):
    seconds = pl.Series("timestamp", [0, 1_000_000, 2_000_000, 3_000_000])
    ticks = pl.DataFrame([seconds.cast(pl.Datetime("us", "UTC"))]).with_columns(
        price=pl.Series([100.0, 100.0, 110.0, 120.0])
    )
    moment = pl.Series("timestamp", [2_500_000]).cast(pl.Datetime("us", "UTC"))
    funding = pl.DataFrame([moment]).with_columns(rate=pl.lit(0.01))
    execution = Execution(taker_bps=0.0, funding=funding)
    result = fxlab.backtest(ticks, hold, {"target": target}, execution=execution, capital=10_000)
    assert result.trades["funding"].to_list() == [pytest.approx(paid)]
    gain = target * 100 * 20.0
    assert result.metrics["final_equity"] == pytest.approx(10_000 + gain - paid)


# ---- Swap ----


def rollovers(start, end, **annual):
    found = swap_rates(
        "EURUSD", start, end, **{"long_annual": 0.0365, "short_annual": -0.0146} | annual
    )
    assert found["symbol"].unique().to_list() in (["EURUSD"], [])
    return found


def test_a_week_of_swap_by_hand():
    # New York is at UTC-5 in January: 17:00 is 22:00 UTC. 0.0365 a year is 0.0001 a day; the
    # rollover of Wednesday 2025-01-08 counts three days.
    found = rollovers("2025-01-06", "2025-01-13")
    assert found["timestamp"].to_list() == [
        datetime(2025, 1, day, 22, tzinfo=UTC) for day in (6, 7, 8, 9, 10)
    ]
    assert found["rate_long"].to_list() == pytest.approx([1e-4, 1e-4, 3e-4, 1e-4, 1e-4])
    assert found["rate_short"].to_list() == pytest.approx([-4e-5, -4e-5, -12e-5, -4e-5, -4e-5])


def test_rollover_follows_new_york_through_the_change_of_clocks():
    # Summer time began on Sunday 2025-03-09 and ended on Sunday 2025-11-02.
    spring = rollovers("2025-03-07", "2025-03-11")["timestamp"].to_list()
    assert spring == [datetime(2025, 3, 7, 22, tzinfo=UTC), datetime(2025, 3, 10, 21, tzinfo=UTC)]
    autumn = rollovers("2025-10-31", "2025-11-04")["timestamp"].to_list()
    assert autumn == [
        datetime(2025, 10, 31, 21, tzinfo=UTC),
        datetime(2025, 11, 3, 22, tzinfo=UTC),
    ]


def test_the_range_of_swap_is_half_open():
    monday, tuesday = (datetime(2025, 1, day, 22, tzinfo=UTC) for day in (6, 7))
    assert rollovers(monday, tuesday)["timestamp"].to_list() == [monday]
    later = monday.replace(microsecond=1)
    assert rollovers(later, tuesday)["timestamp"].to_list() == []
    assert rollovers(later, tuesday.replace(microsecond=1))["timestamp"].to_list() == [tuesday]
    # Early on Tuesday in UTC it is still Monday evening in New York.
    assert rollovers("2025-01-07T00:30", "2025-01-07T21:59")["timestamp"].to_list() == []


def test_a_year_of_swap_is_nearly_the_annual_rate():
    found = rollovers("2025-01-06", "2026-01-05")  # 52 whole weeks
    assert found["rate_long"].sum() == pytest.approx(0.0365 * 364 / 365)
    short = rollovers("2025-01-06", "2025-01-13", days_per_year=360.0)
    assert short["rate_long"].sum() == pytest.approx(0.0365 * 7 / 360)


def test_swap_is_funding():
    swap = rollovers("2025-01-06", "2025-01-13")
    rates = Execution(funding=swap).rates
    assert [rate[0] for rate in rates] == ["EURUSD"] * 5
    assert rates[2][2:] == pytest.approx((3e-4, -12e-5))


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"start": None}, errors.InvalidParameter, "needs a start and an end"),
        ({"end": None}, errors.InvalidParameter, "needs a start and an end"),
        ({"end": "2025-01-01"}, errors.InvalidTimeRange, "selects nothing"),
        ({"start": "soon"}, errors.InvalidTimeRange, "is not a time"),
        ({"days_per_year": 0}, errors.InvalidParameter, "days_per_year=0"),
    ],
)
def test_a_swap_without_sense_is_refused(values, error, words):
    given = {"start": "2025-01-06", "end": "2025-01-13", "long_annual": 0.0, "short_annual": 0.0}
    given |= values
    with pytest.raises(error, match=words):
        swap_rates("EURUSD", **given)


@pytest.mark.parametrize(
    ("rates", "symbols", "words"),
    [
        ([0.1, 0.1, 0.2], [None, None, None], "repeated rows go with .unique"),
        ([0.1, 0.3, 0.2], [None, None, None], "keep one"),
        ([0.1, 0.3, 0.2], ["A", "A", "A"], r"of A \(0.1\) and of A \(0.3\)"),
        ([0.1, 0.1, 0.2], ["A", None, "A"], r"of A \(0.1\) and of all symbols \(0.1\)"),
        ([0.1, 0.1, 0.2], [None, "A", "A"], r"of all symbols \(0.1\) and of A \(0.1\)"),
    ],
)
def test_one_moment_has_one_rate(rates, symbols, words):
    times = pl.Series("timestamp", [1_000, 1_000, 2_000]).cast(pl.Datetime("us", "UTC"))
    twice = pl.DataFrame([times]).with_columns(
        rate=pl.Series(rates), symbol=pl.Series(symbols, dtype=pl.String)
    )
    with pytest.raises(errors.InvalidParameter, match=words) as refused:
        Execution(funding=twice)
    assert "1970-01-01 00:00:00.001000" in str(refused.value)
    plain = twice.with_row_index().filter(pl.col("index") != 1).drop("index")
    with pytest.raises(errors.InvalidParameter, match="both would be charged"):
        Execution(funding=(*parse_funding(plain), (symbols[0], 1_000, 0.5, 0.5)))
    assert len(Execution(funding=plain).rates) == 2


def test_symbols_may_have_rates_of_the_same_moment():
    times = pl.Series("timestamp", [1_000, 1_000, 2_000]).cast(pl.Datetime("us", "UTC"))
    two = pl.DataFrame([times]).with_columns(
        rate=pl.Series([0.1] * 3), symbol=pl.Series(["A", "B", None])
    )
    assert len(Execution(funding=two).rates) == 3


def test_a_position_of_exactly_the_funding_time_does_not_pay_and_one_closed_then_does():
    start = 1_735_689_600_000_000
    times = pl.Series([start + row for row in range(5)]).cast(pl.Datetime("us", "UTC"))
    ticks = pl.DataFrame(
        {"timestamp": times, "price": [100.0] * 5, "want": [1.0, None, 0.0, None, None]}
    )

    def wanted() -> fxlab.Signals:
        return fxlab.Signals(target=pl.col("want"), lookback=0)

    paid = []
    for row in range(5):
        rate = pl.DataFrame({"timestamp": times[row : row + 1], "rate": [0.01]})
        execution = Execution(taker_bps=0, funding=rate)
        paid.append(fxlab.backtest(ticks, wanted, execution=execution).metrics["funding"])
    assert paid == [0.0, 0.0, 100.0, 100.0, 0.0]  # filled at row 1, closed at row 3
