"""Which points are tried: none twice, none that the strategy refuses, the same for a seed."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import random_walk
from sweep_strategies import moody

import fxlab
from fxlab import errors
from fxlab.backtester.strategy.strategy import get
from fxlab.sweeper._space import Point, Space, drawn

GRID = {"fast": range(2, 30), "slow": range(2, 60)}


@pytest.fixture(scope="module")
def space():
    return Space.of(get("sma_cross"), GRID)


@pytest.fixture(scope="module")
def ticks():
    return random_walk(1_500)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_every_number_is_a_point_of_its_own(sizes, data):
    names = ["fast", "slow"][: len(sizes)]
    axes = {name: range(1, size + 1) for name, size in zip(names, sizes, strict=False)}
    space = Space.of(get("sma_cross"), axes)
    keys = [Point(n, space.values(n)).key for n in range(space.count)]
    assert len(set(keys)) == space.count == np.prod(sizes[:2])
    number = data.draw(st.integers(0, space.count - 1))
    values = space.values(number)
    assert json.loads(Point(0, values).key) == values
    assert Point(0, dict(reversed(values.items()))).key == keys[number]


def test_the_last_axis_turns_fastest():
    space = Space.of(get("sma_cross"), {"slow": [20, 30], "fast": [3, 5, 7]})
    pairs = [(space.values(n)["slow"], space.values(n)["fast"]) for n in range(space.count)]
    assert pairs == [(20, 3), (20, 5), (20, 7), (30, 3), (30, 5), (30, 7)]


def test_random_points_differ_are_feasible_and_repeat_for_a_seed(space):
    points = drawn(space, 100, 5)
    assert [point.number for point in points] == list(range(100))
    assert len({point.key for point in points}) == 100
    assert all(point.values["fast"] < point.values["slow"] for point in points)
    assert points == drawn(space, 100, 5)
    assert points[:40] == drawn(space, 40, 5)
    assert points != drawn(space, 100, 6)


def test_more_points_than_there_are_gives_all(space):
    small = Space.of(get("sma_cross"), {"fast": [3, 5, 9], "slow": [4, 8]})
    assert len(drawn(small, 50, 0)) == 3


def test_random_points_of_a_space_that_nobody_could_list():
    huge = {"window": range(1, 1_000_001), "entry_bps": np.linspace(0, 100, 1_000_000)}
    space = Space.of(get("mean_reversion"), huge)
    assert space.count == 10**12
    points = drawn(space, 200, 1)
    assert len({point.key for point in points}) == 200
    assert points[:50] == drawn(space, 50, 1)
    # Both halves of both axes are visited.
    assert {point.values["window"] > 500_000 for point in points} == {True, False}
    assert {point.values["entry_bps"] > 50 for point in points} == {True, False}


def test_a_random_sweep_is_a_part_of_the_grid(ticks):
    grid = {"fast": [3, 5, 8], "slow": [5, 13, 21]}
    whole = fxlab.sweep(ticks, "sma_cross", grid).table
    found = fxlab.sweep(ticks, "sma_cross", grid, search="random", points=5, seed=3).table
    assert found["state"].to_list() == ["done"] * 5
    assert set(found["fingerprint"]) <= set(whole["fingerprint"])


@pytest.fixture(scope="module")
def proposed(ticks):
    grid = {"fast": range(2, 12), "slow": range(10, 60, 2), "allow_short": [False, True]}
    return grid, fxlab.sweep(
        ticks, "sma_cross", grid, search="optuna", points=40, seed=1, metric="total_return"
    )


def test_optuna_proposes_so_many_points(proposed):
    grid, found = proposed
    assert found.table["point"].to_list() == list(range(40))
    assert found.table["state"].to_list() == ["done"] * 40
    assert found.table.select(*grid).n_unique() == 40
    for name, values in grid.items():
        assert set(found.table[name]) <= set(values)


def test_optuna_finds_the_same_with_any_number_of_workers(ticks, proposed):
    grid, found = proposed
    options = {"search": "optuna", "points": 40, "seed": 1, "metric": "total_return"}
    again = fxlab.sweep(ticks, "sma_cross", grid, workers=1, chunk_rows=100, **options)
    assert again.table.equals(found.table, null_equal=True)


def test_optuna_learns(ticks):
    """On a figure with one clear optimum it looks near it more often than chance."""
    grid = {"fast": [2], "slow": range(4, 1004, 2)}
    options = {"search": "optuna", "points": 64, "seed": 2, "metric": "fees"}
    found = fxlab.sweep(ticks, "sma_cross", grid, **options)  # fees fall with the window
    later = found.table.filter(pl.col("point") >= 32)["slow"].to_list()
    assert np.mean([slow > 500 for slow in later]) > 0.6
    assert found.best["slow"] > 900


def test_optuna_lives_with_points_that_fail_or_have_no_figure(ticks):
    grid = {"mood": ["calm", "early", "late"], "level": [1, 2]}
    found = fxlab.sweep(ticks, moody, grid, search="optuna", points=20)
    assert found.table.select("mood", "level").n_unique() == found.table.height <= 6
    assert {"done", "failed"} == set(found.table["state"])


def test_optuna_resumes_without_repeating(lab, unique, proposed):
    name = unique("optuna")
    walk = random_walk(1_000, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    lab.import_frame(walk, "prices", session_id=name)
    session, grid = lab.session(name), proposed[0]

    def stop(share, words):
        if share > 0.5:
            raise errors.Cancelled("enough")

    options = {"search": "optuna", "points": 48, "seed": 4, "metric": "total_return", "lab": lab}
    with pytest.raises(errors.SweepCancelled) as caught:
        fxlab.sweep(session, "sma_cross", grid, progress=stop, **options)
    done = caught.value.sweep.table.height
    whole = fxlab.sweep(session, "sma_cross", grid, **options)
    assert whole.resumed >= done >= 16
    del options["lab"]
    alone = fxlab.sweep(session, "sma_cross", grid, **options)
    assert whole.table.equals(alone.table, null_equal=True)


def test_without_optuna_the_error_says_what_to_install(monkeypatch, ticks):
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(errors.InvalidParameter, match=r"fxlab\[optuna\]"):
        fxlab.sweep(ticks, "sma_cross", GRID, search="optuna", points=3)
