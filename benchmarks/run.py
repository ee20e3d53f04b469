"""Speeds as ratios, all in one run: ours against the barest thing that does the same work.

    python benchmarks/run.py [--rows 1250000] [--rounds 7] [--tiny]
                             [--only backtest,import,ingest,files,read]

Both sides of a pair take turns (A B A B …), so a machine that slows down slows both. A row shows
the best time of each side, and the median of the pairwise ratios against its goal.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from command import options, server
from market import CAPITAL, FAST, SLOW, generate
from sides.floor import Floor
from turns import take_turns

import fxlab

BATCH = 100_000


@dataclass
class Row:
    """One comparison: what, both best times, the median ratio, and what it should be."""

    work: str
    ours: float
    bare: float
    ratio: float
    goal: str

    def line(self) -> str:
        """Return the comparison as a line of the table."""
        at_least = self.goal.startswith(">")
        ours, bare = (self.bare, self.ours) if at_least else (self.ours, self.bare)
        times = f"{ours * 1e3:8.1f}ms {bare * 1e3:8.1f}ms"
        return f"{self.work:46} {times} {self.ratio:8.2f}  {self.goal}"


def compare(
    work: str, ours: Callable[[], object], bare: Callable[[], object], rounds: int, goal: str
) -> Row:
    """Time two functions in turn, after one warm-up of each."""
    turns = take_turns(ours, bare, rounds)
    return Row(work, *turns.best, turns.ratio, goal)


def backtests(rows: int, rounds: int) -> list[Row]:
    """Compare frame in memory -> fills, trades, equity, metrics with a bare kernel by events."""
    market = generate(rows)
    frame, floor = market.frame(), Floor(market)
    options = {"capital": CAPITAL, "execution": fxlab.Execution(taker_bps=market.fee * 10_000)}

    def ours() -> fxlab.Result:
        return fxlab.backtest(frame, "sma_cross", {"fast": FAST, "slow": SLOW}, **options)

    result, bare = ours(), floor.one_run()
    trades, equity = bare.trades, bare.equity
    same = result.metrics["trades_count"] == trades
    close = abs(result.metrics["final_equity"] - equity) < 1e-6 * equity
    print(f"backtest: {trades:,} trades, final equity {equity:,.6f}; equal: {same and close}")
    title = f"backtest of {rows:,} ticks / bare kernel"
    return [compare(title, ours, floor.one_run, rounds, "<= 5")]


def imports(rounds: int) -> list[Row]:
    """Compare a process that imports fxlab with one that does nothing."""

    def start(code: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    row = compare(
        "process that imports fxlab / empty process",
        start("import fxlab"),
        start("pass"),
        rounds,
        "",
    )
    code = "import time; t = time.perf_counter(); import fxlab; print(time.perf_counter() - t)"
    done = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True
            ).stdout
        )
        for _ in range(rounds)
    ]
    print(f"import fxlab alone: best {min(done):.3f} s (goal < 0.3 s)")
    return [row]


def database(rows: int, rounds: int, wanted: set[str]) -> list[Row]:
    """Compare our ingest with the raw client, our bulk read with a raw export."""
    with server(), fxlab.connect(cache_size=0) as lab:
        return _database(lab, generate(rows).frame(), rounds, wanted)


def _database(lab: fxlab.Lab, frame: pl.DataFrame, rounds: int, wanted: set[str]) -> list[Row]:
    found = []
    numbers = iter(range(1_000))
    stored = frame.with_columns(
        session_id=pl.lit("raw"),
        symbol=pl.lit("BTC_USDT"),
        origin=pl.lit("synthetic"),
        trade_id=pl.lit(None, pl.String),
        received_at=pl.lit(None, pl.Datetime("us", "UTC")),
    )

    def ingest() -> None:
        lab.import_frames(
            {"prices": frame.with_columns(symbol=pl.lit("BTC_USDT"))},
            session_id=f"ingest_{next(numbers)}",
        )

    def raw_ingest() -> None:
        _raw_ingest(lab, stored.with_columns(session_id=pl.lit(f"raw_{next(numbers)}")))

    if "ingest" in wanted:
        row = compare("raw client / our ingest, rows visible", raw_ingest, ingest, rounds, ">= 0.7")
        rate = frame.height / row.bare
        print(f"ingest: {rate:,.0f} rows/s visible, checked and counted")
        found.append(row)
    if "files" in wanted:
        found += _files(lab, frame, raw_ingest, rounds)
    if "read" in wanted:
        ingest()
        session = lab.session(f"ingest_{next(numbers) - 1}")
        columns = ["timestamp", "seq", "price", "volume"]

        def read() -> pl.DataFrame:
            return session.prices(columns=columns)

        def bare() -> pl.DataFrame:
            return raw_read(lab, session.id, columns)

        print("read: equal rows:", read().equals(bare()))
        row = compare("raw export / our read", bare, read, rounds, ">= 0.8")
        print(f"read: {frame.height / row.bare:,.0f} rows/s")
        found.append(row)
    return found


def _files(
    lab: fxlab.Lab, frame: pl.DataFrame, raw_ingest: Callable[[], None], rounds: int
) -> list[Row]:
    """Compare the import of a file, read, checked, written and counted, with the raw client."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for suffix, write, goal in (
            ("csv", frame.write_csv, ">= 0.4"),
            ("parquet", frame.write_parquet, ">= 0.6"),
        ):
            path = Path(folder) / f"ticks.{suffix}"
            write(path)
            numbers = iter(range(1_000))

            def ours(path: Path = path, numbers: Iterator[int] = numbers) -> None:
                name = f"{path.suffix[1:]}_{next(numbers)}"
                lab.import_files(path, session_id=name, symbol="BTC_USDT")

            row = compare(f"raw client / import of {suffix}", raw_ingest, ours, rounds, goal)
            print(f"{suffix}: {frame.height / row.bare:,.0f} rows/s visible, checked and counted")
            found.append(row)
    return found


def _raw_ingest(lab: fxlab.Lab, frame: pl.DataFrame) -> None:
    """Write with the client alone: no checks, no catalogue, no count."""
    from questdb import Sender

    end = lab.endpoint
    address = f"http::addr={end.host}:{end.http_port};username={end.user};password={end.password};"
    symbols = ["session_id", "symbol", "side", "origin"]
    with Sender.from_conf(address + "auto_flush=off;") as sender:
        for start in range(0, frame.height, BATCH):
            part = frame.slice(start, BATCH).with_columns(pl.col(symbols).cast(pl.Categorical))
            sender.dataframe(
                part.to_pandas(), table_name="tick_prices", symbols=symbols, at="timestamp"
            )
            sender.flush()
    _ask(lab, "/exec", "select wait_wal_table('tick_prices')")


def raw_read(lab: fxlab.Lab, session_id: str, columns: list[str]) -> pl.DataFrame:
    """Read with one `/exp` call."""
    query = (
        f"select {', '.join(columns)} from tick_prices where session_id = '{session_id}' "  # noqa: S608 - our own id
        "order by timestamp, seq"
    )
    return pl.read_parquet(io.BytesIO(_ask(lab, "/exp", query)))


def _ask(lab: fxlab.Lab, path: str, query: str) -> bytes:
    import httpx

    end = lab.endpoint
    answer = httpx.get(
        f"{end.http_url}{path}",
        auth=(end.user, end.password or ""),
        params={"query": query, "fmt": "parquet"},
        timeout=300,
    )
    return answer.raise_for_status().content


def main() -> None:
    """Run the comparisons and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_250_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="backtest,import,ingest,files,read")
    asked = options(parser, rows=5_000, rounds=2)
    wanted = set(asked.only.split(","))
    found: list[Row] = []
    if "backtest" in wanted:
        found += backtests(asked.rows, asked.rounds)
    if "import" in wanted:
        found += imports(asked.rounds)
    if wanted & {"ingest", "files", "read"}:
        found += database(asked.rows, asked.rounds, wanted)
    print(f"\n{'work':46} {'ours':>10} {'bare':>10} {'ratio':>8}  goal")
    for row in found:
        print(row.line())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
