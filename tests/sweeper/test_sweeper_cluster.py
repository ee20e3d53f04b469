"""Sweeps over a Dask cluster: the same table, also when a worker is killed on the way."""

from __future__ import annotations

import os
import signal

import pytest
from distributed import Client, LocalCluster
from markets import random_walk
from sweep_strategies import moody, slow_digit

import fxlab
from fxlab import errors
from fxlab.sweeper import _executors as clusters
from fxlab.sweeper._executors import forget

GRID = {"fast": [3, 5, 8], "slow": [5, 13, 21]}


@pytest.fixture(scope="module")
def cluster(server):
    """Start workers after the server, whose address they find in their environment."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as started:
        yield started


@pytest.fixture(scope="module")
def frames():
    return [random_walk(1_500, seed) for seed in (1, 2)]


def test_a_cluster_changes_no_bit(cluster, frames):
    alone = fxlab.sweep(frames, "sma_cross", GRID)
    heard = []
    spread = fxlab.sweep(
        frames,
        "sma_cross",
        GRID,
        scheduler=cluster.scheduler_address,
        progress=lambda *said: heard.append(said),
    )
    assert spread.table.equals(alone.table, null_equal=True)
    assert heard[-1] == (1.0, "18 of 18 points")


def test_workers_read_sessions_themselves_and_forget_them(cluster, lab, unique):
    name = unique("cluster")
    walk = random_walk(1_000, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    lab.import_frame(walk, "prices", session_id=name)
    session = lab.session(name)
    with Client(cluster, set_as_default=False) as client:
        spread = fxlab.sweep(session, "sma_cross", GRID, scheduler=client, lab=lab)
        assert client.status == "running"
        shelves = client.run(forget, [])
    assert all(not studies for studies in shelves.values())
    alone = fxlab.sweep(session, "sma_cross", GRID)
    assert spread.table.equals(alone.table, null_equal=True)
    assert fxlab.sweep(session, "sma_cross", GRID, lab=lab).resumed == 9


def test_a_strategy_of_this_process_only_travels_by_value(cluster, frames):
    def local(*, level: int = 1) -> fxlab.Signals:
        return moody(level=level)

    alone = fxlab.sweep(frames[0], local, {"level": [1, 2]})
    spread = fxlab.sweep(frames[0], local, {"level": [1, 2]}, scheduler=cluster.scheduler_address)
    assert spread.table.equals(alone.table, null_equal=True)


def test_points_fail_alone_on_a_cluster_too(cluster, frames):
    grid = {"mood": ["calm", "early", "late"]}
    found = fxlab.sweep(frames[0], moody, grid, scheduler=cluster.scheduler_address)
    assert found.table["state"].to_list() == ["done", "failed", "failed"]


@pytest.mark.faults
def test_a_killed_worker_changes_no_bit(cluster, frames):
    grid = {"level": range(10), "seconds": [0.1, 0.11]}
    alone = fxlab.sweep(frames[0], slow_digit, grid, check_lookahead=False)
    killed = []

    def progress(share, words):
        if share > 0.2 and not killed:
            with Client(cluster, set_as_default=False) as client:
                killed.extend(client.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    spread = fxlab.sweep(
        frames[0],
        slow_digit,
        grid,
        scheduler=cluster.scheduler_address,
        check_lookahead=False,
        progress=progress,
    )
    assert killed
    assert spread.table.equals(alone.table, null_equal=True)


def test_cancelling_ends_the_work_on_the_cluster(cluster, frames):
    def stop(share, words):
        if not words.startswith("0 "):
            raise errors.Cancelled("enough")

    grid = {"level": [1, 2, 3, 4], "seconds": [0.1, 0.2]}
    with pytest.raises(errors.SweepCancelled) as caught:
        fxlab.sweep(
            frames[0],
            slow_digit,
            grid,
            scheduler=cluster.scheduler_address,
            check_lookahead=False,
            progress=stop,
        )
    assert 0 < caught.value.sweep.table.height < 8


@pytest.mark.parametrize(
    ("scheduler", "words"),
    [("tcp://127.0.0.1:1", "no Dask scheduler answers"), (8786, "neither an address")],
)
def test_a_scheduler_that_is_none_is_one_sentence(monkeypatch, frames, scheduler, words):
    monkeypatch.setattr(clusters, "CONNECT_SECONDS", 1)
    with pytest.raises(errors.InvalidParameter, match=words):
        fxlab.sweep(frames[0], "sma_cross", GRID, scheduler=scheduler)


def test_other_versions_are_refused(cluster, monkeypatch, frames):
    monkeypatch.setattr(clusters, "VERSIONED", ("fxlab",))
    monkeypatch.setattr(clusters, "_versions", lambda: {"fxlab": "0.0"})
    with Client(cluster, set_as_default=False) as client:
        monkeypatch.setattr(client, "run", lambda _: {"tcp://w": {"fxlab": "9.9"}})
        with pytest.raises(
            errors.InvalidParameter, match=r"has fxlab 9.9, and this process has 0.0"
        ):
            fxlab.sweep(frames[0], "sma_cross", GRID, scheduler=client)
