"""How well a paced replay keeps its pace: market time against wall time, at several speeds.

    python benchmarks/pace.py [--seconds 60] [--speeds 1,10,100] [--batch-size 100] [--asynchronous]
                              [--tiny]

A made-up session of two symbols is replayed with a strategy on it. The error is how far market
time is from wall time x speed when the last batch comes; the worst error is the largest of any
batch after the first second. Lateness is wall time from the moment a tick is due to the moment it
is in the loop's hands; up to the interval (100 ms) it is by design, where no batch is full.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import polars as pl
from command import options

import fxlab
from fxlab._times import to_micros
from fxlab.demo import generate
from fxlab.replayer._cursor import ReplayBatch

GOAL = 0.05


@dataclass
class Watch:
    """What was seen of one replay: wall seconds and market seconds of each batch."""

    speed: float
    began: float = 0.0
    first: int | None = None
    walls: list[float] = field(default_factory=list)
    markets: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    ticks: int = 0
    cpu: float = 0.0

    def see(self, batch: ReplayBatch) -> None:
        """Note when a batch came, and how late its oldest tick was."""
        wall = time.perf_counter()
        if self.first is None:
            self.first, self.began, self.cpu = (
                to_micros(batch.timestamp),
                wall,
                -time.process_time(),
            )
        market = (to_micros(batch.timestamp) - self.first) / 1e6
        self.walls.append(wall - self.began)
        self.markets.append(market)
        if batch.frame.height:
            due = (to_micros(batch.frame["timestamp"][0]) - self.first) / 1e6 / self.speed
            self.late.append(wall - self.began - due)
            self.ticks += batch.frame.height

    def report(self) -> str:
        """Return the row of the table."""
        walls, markets = np.array(self.walls), np.array(self.markets)
        share = markets[1:] / self.speed / walls[1:] - 1
        settled = np.abs(share[walls[1:] >= 1.0])
        late = np.array(self.late) * 1e3
        cpu = (time.process_time() + self.cpu) / walls[-1]
        return (
            f"{self.speed:6g}x {walls[-1]:7.2f} s {markets[-1]:9.2f} s {share[-1]:+9.3%} "
            f"{settled.max(initial=0):8.3%} {np.median(late):7.1f} {np.quantile(late, 0.99):7.1f} "
            f"{late.max():7.1f} {self.ticks:9,} {len(walls):7,} {cpu:6.1%}"
        )

    @property
    def kept(self) -> bool:
        """Return whether the goal was reached."""
        return abs(self.markets[-1] / self.speed / self.walls[-1] - 1) <= GOAL


def session(seconds: float) -> pl.DataFrame:
    """Return about 30 trades a second of two symbols."""
    trades, _ = generate(seed=7, seconds=int(seconds) + 2)
    return trades.rename({"trade_id": "seq", "qty": "volume"}).drop("received_at")


def watch(ticks: pl.DataFrame, speed: float, seconds: float, size: int, *, loop: bool) -> Watch:
    """Replay so much wall time, and look at the clock at each batch."""
    first = ticks["timestamp"].min()
    replay = fxlab.replay(
        ticks,
        speed=speed,
        batch_size=size,
        end=first + timedelta(seconds=seconds * speed),
        strategy="sma_cross",
        parameters={"fast": 20, "slow": 60},
    )
    seen = Watch(speed)

    async def read() -> None:
        async for batch in replay:
            seen.see(batch)

    if loop:
        asyncio.run(read())
    else:
        for batch in replay:
            seen.see(batch)
    return seen


def main() -> None:
    """Replay at each speed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--speeds", default="1,10,100")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--asynchronous", action="store_true")
    asked = options(parser, seconds=1.0, speeds="5,50")
    speeds = [float(speed) for speed in asked.speeds.split(",")]
    ticks = session(asked.seconds * max(speeds))
    print(
        f"{'speed':>7} {'wall':>9} {'market':>11} {'error':>9} {'worst':>8} "
        f"{'late ms':>7} {'99 %':>7} {'most':>7} {'ticks':>9} {'batches':>7} {'CPU':>6}"
    )
    kept = True
    for speed in speeds:
        seen = watch(ticks, speed, asked.seconds, asked.batch_size, loop=asked.asynchronous)
        kept &= seen.kept
        print(seen.report(), flush=True)
    print(f"error <= {GOAL:.0%} at each speed: {kept}")


if __name__ == "__main__":
    main()
