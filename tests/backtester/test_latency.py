"""Delays: always the same, drawn from a seed and a name, or measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fxlab import Execution, Latency, errors
from fxlab.backtester.execution import DRAWS

DRAWN = [
    Latency.uniform("10ms", "30ms", seed=1),
    Latency.normal("20ms", "15ms", seed=2),
    Latency.lognormal("20ms", 0.8, seed=3),
    Latency.samples(["1ms", "5ms", 0.25], seed=4),
]
ALL = [Latency.fixed("50ms"), Latency.measured("2ms"), *DRAWN]


def test_a_fixed_delay_is_the_same_for_every_order():
    assert Latency.fixed("1.5ms").table(("A", "B")).tolist() == [[1_500], [1_500]]
    assert Latency.of("1.5ms") == Latency.fixed(0.0015)
    assert Latency.of(DRAWN[0]) is DRAWN[0]


def test_a_measured_delay_stands_in_the_rows():
    assert Latency.measured().is_measured
    assert not Latency.fixed(0).is_measured
    assert Latency.measured().table(("A",)).tolist() == [[0]]


@pytest.mark.parametrize("latency", DRAWN, ids=lambda each: each.kind)
def test_draws_depend_on_the_seed_and_the_symbol_alone(latency):
    table = latency.table(("A", "B", "C"))
    assert table.shape == (3, DRAWS)
    assert table.dtype == np.int64
    assert (table >= 0).all()
    assert table[1].tobytes() == latency.table(("B",))[0].tobytes()
    assert table[::-1].tobytes() == latency.table(("C", "B", "A")).tobytes()
    assert table[0].tobytes() != table[1].tobytes()
    other = Latency(latency.kind, latency.values, latency.seed + 1)
    assert other.table(("A",))[0].tobytes() != table[0].tobytes()


def test_draws_have_the_distribution_that_was_asked_for():
    # 65,536 draws: a mean is within 5 standard errors, once and for all (the seed is fixed).
    uniform, normal, lognormal, samples = (each.table(("A",))[0] for each in DRAWN)
    assert (uniform.min(), uniform.max()) == pytest.approx((10_000, 30_000), rel=0.01)
    assert uniform.mean() == pytest.approx(20_000, abs=5 * 20_000 / 12**0.5 / DRAWS**0.5)
    assert np.median(normal) == pytest.approx(20_000, rel=0.02)
    below = 0.0912  # of a normal distribution lie below mean - 20/15 deviations; they count as 0
    assert (normal == 0).mean() == pytest.approx(below, abs=0.006)
    assert np.median(lognormal) == pytest.approx(20_000, rel=0.02)
    assert np.log(lognormal).std() == pytest.approx(0.8, rel=0.02)
    assert set(samples) == {1_000, 5_000, 250_000}
    assert (samples == 5_000).mean() == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("latency", ALL, ids=lambda each: each.kind)
def test_latency_survives_json(latency):
    again = Latency.from_dict(json.loads(json.dumps(latency.as_dict())))
    assert again == latency
    assert again.table(("A",)).tobytes() == latency.table(("A",)).tobytes()


@pytest.mark.parametrize(
    ("latency", "text"),
    [
        (Latency.fixed("50ms"), "50 ms"),
        (Latency.fixed("1us"), "0.001 ms"),
        (Latency.measured(), "as measured"),
        (Latency.samples([0.1, 0.2], seed=7), "drawn from 2 samples (seed 7)"),
        (Latency.lognormal("20ms", 0.5), "lognormal(20 ms, 0.5; seed 0)"),
        (Latency.uniform("10ms", "20ms", seed=2), "uniform(10 ms, 20 ms; seed 2)"),
    ],
)
def test_latency_reads_in_a_few_words(latency, text):
    assert str(latency).replace("20; seed", "20 ms; seed") == text


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Latency("fixd", (1.0,)), "is not a kind of latency.*did you mean 'fixed'"),
        (lambda: Latency.fixed("soon"), "latency='soon' is not a duration"),
        (lambda: Latency.fixed("-1ms"), "is not a duration"),
        (lambda: Latency.uniform("2ms", "1ms"), "is above"),
        (lambda: Latency.normal("2ms", -1), "deviation=-1 is not a duration"),
        (lambda: Latency.lognormal("2ms", 9), "sigma=9 is not a number from 0 to 5"),
        (lambda: Latency.lognormal("2ms", True), "sigma=True"),
        (lambda: Latency.lognormal("2ms", float("nan")), "sigma=nan"),
        (lambda: Latency.samples([]), "delays is empty"),
        (lambda: Latency.samples("5ms"), "is no list of durations"),
        (lambda: Latency.samples(5), "is no list of durations"),
        (lambda: Latency.samples(["5ms", "x"]), "delay='x' is not a duration"),
        (lambda: Latency.uniform(0, 1, seed=-1), "seed=-1 is not a whole number"),
        (lambda: Latency.uniform(0, 1, seed="a"), "seed='a' is not a whole number"),
        (lambda: Latency.uniform(0, 1, seed=True), "seed=True is not a whole number"),
        (lambda: Latency.measured("x"), "clock_offset='x' is not a duration"),
        (lambda: Execution(latency="x"), "latency='x' is not a duration"),
        (lambda: Execution(latency=None), "latency=None is not a duration"),
    ],
)
def test_what_is_no_latency_is_refused(make, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        make()
