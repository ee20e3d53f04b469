"""Sparse and wide data on default limits: decades, many hours, sessions and symbols."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Self

import polars as pl
import pytest

import fxlab
from fxlab import schema
from fxlab._questdb import migrations, sql
from fxlab._questdb.sql import Scope, Span
from fxlab._times import to_micros
from fxlab.sessions import _reader

SESSIONS = 5_000 if os.environ.get("FXLAB_FAULTS") == "long" else 120
START = datetime(2004, 1, 1, tzinfo=UTC)
MANY_MAPS = 16_000
"""A quarter of what Linux allows a process."""

READ = """
import sys, fxlab
session = fxlab.connect().session(sys.argv[1])
print(session.prices().height, session.ohlcv("1d").height, session.count_ticks())
"""


def ticks(every: str, rows: int, start: datetime = START) -> pl.DataFrame:
    """Return one tick at a time."""
    step = {"12m": timedelta(minutes=12), "1h": timedelta(hours=1)}[every]
    times = pl.datetime_range(
        start, start + step * (rows - 1), every, eager=True, time_unit="us", time_zone="UTC"
    )
    price = pl.Series([round(1.1 + (n % 997) * 1e-5, 5) for n in range(rows)])
    return pl.DataFrame(
        {"timestamp": times, "symbol": "EUR_USD", "seq": range(rows), "price": price}
    ).with_columns(volume=pl.lit(1.0))


class Maps:
    """The most maps that the server's process has had while this was open."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/maps")
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self.most = 0

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watch.join()

    def _look(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, self._path.read_bytes().count(b"\n"))


@pytest.fixture
def maps(server):
    if not Path("/proc/self/maps").exists():
        pytest.skip("this system does not tell the maps of a process")
    return Maps(server.pid)


def partitions_of(db, span: Span) -> int:
    found = migrations.partitions(db, schema.PRICES)
    return sum(place.start < span.end and place.end > span.start for place in found)


def test_twenty_years_are_read_by_four_processes(lab, db, maps, unique):
    frame = ticks("12m", 876_000)
    name = unique("years")
    with maps:
        report = lab.import_frames({"prices": frame}, session_id=name)
        assert report.table()["rows"].sum() == frame.height
        running = [
            subprocess.Popen([sys.executable, "-c", READ, name], stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        found = {process.communicate()[0].strip() for process in running}
        assert found == {f"{frame.height} 7300 {frame.height}"}
        session = lab.session(name)
        assert session.prices(columns=["timestamp", "seq", "price"]).equals(
            frame.select("timestamp", "seq", "price")
        )
        result = fxlab.backtest(session, "sma_cross", {"fast": 50, "slow": 200})
        assert result.ticks == frame.height
        assert name in lab.sessions(text=name)["session_id"]
        found = lab.analysis(name)
        assert found.statistics["rows"].to_list() == [frame.height]
        assert found.statistics["interval_mean"].to_list() == [720.0]
        assert found.quality.table.row(0)[1:4] == (100, frame.height, 0)
    assert maps.most < MANY_MAPS
    whole = Span(to_micros(frame["timestamp"][0]), to_micros(frame["timestamp"][-1]) + 1)
    assert 1_043 <= partitions_of(db, whole) <= 1_046  # a deletion rewrites so many, no more


def test_an_hour_with_a_tick_for_two_years(lab, maps, unique):
    frame = ticks("1h", 17_544, datetime(2023, 1, 1, tzinfo=UTC))
    name = unique("hours")
    with maps:
        lab.import_frames({"prices": frame}, session_id=name)
        session = lab.session(name)
        assert session.prices()["price"].equals(frame["price"])
        assert session.ohlcv("1h").height == frame.height
    assert maps.most < MANY_MAPS


def test_many_small_sessions_are_imported_and_listed(lab, unique):
    name = unique("small")
    for number in range(SESSIONS):
        start = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(hours=number)
        few = ticks("12m", 5, start)
        lab.import_frames({"prices": few}, session_id=f"{name}_{number}")
    listed = lab.sessions(text=name, limit=10_000)
    assert listed.height == SESSIONS
    assert listed["prices_count"].unique().to_list() == [5]
    assert lab.sessions(text=name).height == min(50, SESSIONS)
    assert lab.session(f"{name}_{SESSIONS - 1}").prices()["seq"].to_list() == [0, 1, 2, 3, 4]


def count_requests(lab, monkeypatch) -> list[str]:
    """Return a list that gets the name of each road to the server that is taken from now on."""
    asked: list[str] = []
    client = type(lab._db)
    for road in ("execute", "catalogue", "export", "write"):
        ask = getattr(client, road)

        def counted(*parts, ask=ask, road=road, **more):
            asked.append(road)
            return ask(*parts, **more)

        monkeypatch.setattr(client, road, counted)
    return asked


def test_five_thousand_symbols_cost_a_few_requests(lab, unique, monkeypatch):
    rows, symbols = 20_000, 5_000
    frame = ticks("12m", rows).with_columns(
        pl.format("S{}", pl.int_range(rows) % symbols).alias("symbol")
    )
    asked = count_requests(lab, monkeypatch)
    name = unique("wide")
    lab.import_frames({"prices": frame}, session_id=name)
    session = lab.session(name)
    found = session.statistics()
    assert len(asked) < 60
    assert found["rows"].unique().to_list() == [rows // symbols]
    expected = frame.group_by("symbol").agg(close=pl.col("price").last()).sort("symbol")
    assert found.select("symbol", "close").sort("symbol").equals(expected)
    assert session.counts()["rows"].sum() == rows
    assert fxlab.backtest(session, "sma_cross", {"fast": 1, "slow": 2}, symbols="S42").ticks == 4
    asked.clear()
    run = fxlab.backtest(session, "buy_and_hold")
    assert (run.ticks, len(run.symbols)) == (rows, symbols)
    assert len(asked) < 100, len(asked)
    own = fxlab.backtest(frame, "buy_and_hold", symbols=list(session.symbols))
    assert run.fills.equals(own.fills)
    assert run.equity.equals(own.equity)
    assert run.fills.height == symbols
    assert len(repr(session)) < 500
    assert len(session._repr_html_()) < 5_000
    with pytest.raises(fxlab.errors.InvalidParameter, match=r"5000 symbols.* and 4,980 more$"):
        session.prices()


YEARS = Scope(schema.PRICES, "s", start=0, end=20 * sql.YEAR + 5)


@pytest.mark.parametrize(
    ("scope", "parts"),
    [
        (YEARS, 21),
        (Scope(schema.PRICES, "s", start=0, end=5), 1),
        (Scope(schema.PRICES, "s", start=0, end=10**18), 100),
        (Scope(schema.PRICES, "s", start=9, end=5), 1),
        (Scope(schema.PRICES, "s", start=9), 1),
    ],
)
def test_a_range_is_asked_for_by_the_year(scope, parts):
    found = scope.by_year()
    assert len(found) == parts
    assert (found[0].start, found[-1].end) == (scope.start, scope.end)
    for before, after in pairwise(found):
        assert before.start < before.end == after.start < after.end


def test_a_slice_is_not_longer_than_a_year():
    bins = [_reader.Slice(n * sql.YEAR // 4, n * sql.YEAR // 4 + 1, 1) for n in range(40)]
    found = _reader.plan_slices(bins, 1_000)
    assert sum(piece.rows for piece in found) == 40
    assert all(piece.end - piece.start <= sql.YEAR for piece in found)
    assert len(found) == 10
