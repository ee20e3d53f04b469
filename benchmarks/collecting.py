"""The recorder against the mock venue: sustained rate, time to visibility, memory, peers.

    python benchmarks/collecting.py [--trades 1000000] [--rounds 3] [--soak 60]
                                    [--latency 20] [--only rate,latency,soak] [--json FILE] [--tiny]

A server, a venue and each side have processes of their own. Peers only receive; fxlab receives,
journals with fsync, stores, counts and compares checksums. A peer that is not installed
(ccxt 4.5, cryptofeed 2.4.1; they may live in an environment of their own: --peers-python) is a row
that says so. Rates of one run may be compared with each other; on another day the machine is
another.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from command import options, server

SIDES = ("fxlab", "ccxt", "cryptofeed")
HERE = Path(__file__).parent
POLL_SECONDS = 0.005
RATE = 5_000
NEWEST = "select cast(max(received_at) as long) from tick_prices where session_id = '{}'"


@contextmanager
def venue(*options: str) -> Iterator[str]:
    """Start `fxlab mock` and give its address."""
    command = [sys.executable, "-m", "fxlab", "mock", "--symbol", "BTC_USDT", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        yield line.split(" at ")[1].split()[0]
    finally:
        process.terminate()
        process.communicate()


def rate(trades: int, rounds: int, peers_python: str) -> list[dict]:
    """Take the same tape with each side in turns, as fast as each one can."""
    rows = []
    for number in range(rounds):
        for side in SIDES:
            with venue("--rate", "20000", "--trades", str(trades), "--speed", "max") as url:
                python = sys.executable if side == "fxlab" else peers_python
                rows.append({"side": side, "round": number, **take(python, side, url, trades)})
            print(rows[-1], flush=True)
    return rows


def take(python: str, side: str, url: str, trades: int) -> dict:
    """Run one side in its process."""
    script = HERE / "collectors" / f"of_{side}.py"
    done = subprocess.run(
        [python, str(script), url, str(trades)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        return {"skipped": done.stderr.strip().splitlines()[-1] if done.stderr else "no answer"}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    seconds = max(found["seconds"], 1e-9)
    return {
        "per_second": round(found["distinct"] / seconds),
        "cpu_us": round(found["cpu"] / max(1, found["distinct"]) * 1e6, 2),
        "lost": trades - found["distinct"],
        "doubled": found["trades"] - found["distinct"],
        "rss_mb": round(found["rss_mb"]),
    }


def latency(seconds: int) -> dict:
    """Time from a trade's arrival to the moment a query shows it, at 5,000 a second.

    A query asks for the newest trade again and again; what it shows for the first time became
    visible since the question before. The time of a question counts as waiting.
    """
    import fxlab
    from fxlab._questdb.client import QuestDB

    waits: list[float] = []
    with venue("--rate", str(RATE)) as url, fxlab.connect() as lab:
        database = QuestDB(lab.endpoint)
        collector = lab.collect("binance", ["BTC_USDT"], url=url, book_depth=0)
        newest = NEWEST.format(collector.session_id)
        before, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            asked = time.time_ns() // 1_000
            found = database.execute(newest)
            shown = int(found[0][0] or 0) if found else 0
            if shown > before:
                # Between the two newest, arrivals are spread evenly at this rate.
                waits += [asked - (before + (shown - before) * k / 10) for k in range(1, 11)]
                before = shown
            time.sleep(POLL_SECONDS)
        collector.stop()
        database.close()
    late = sorted(wait / 1e3 for wait in waits[20:] or waits)
    if not late:
        return {"skipped": f"nothing became visible in {seconds} s"}
    cut = [late[int(len(late) * share)] for share in (0.5, 0.99)]
    return {"p50_ms": round(cut[0]), "p99_ms": round(cut[1]), "questions": len(late)}


def soak(seconds: int) -> dict:
    """Record 5,000 messages a second and watch the process's memory."""
    with venue("--rate", str(RATE)) as url:
        command = [sys.executable, "-m", "fxlab", "collect", "binance", "BTC_USDT", "--url", url]
        command += ["--duration", f"{seconds}s", "--book-depth", "10"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        sizes = []
        while process.poll() is None:
            sizes.append(psutil.Process(process.pid).memory_info().rss / 2**20)
            time.sleep(1.0)
        said = process.stdout.read().strip().splitlines()[-1]
    steady = sizes[min(10, len(sizes) // 4) : -5] or sizes
    half = len(steady) // 2
    before = steady[:half] or steady  # a tiny run may be over before the second look
    growth = statistics.mean(steady[half:]) - statistics.mean(before)
    return {
        "seconds": seconds,
        "rss_mb": round(max(steady)),
        "rss_mb_at_the_end": round(max(sizes)),
        "growth_mb_per_minute": round(growth / (half / 60 or 1), 2),
        "said": said,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trades", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=int, default=20)
    parser.add_argument("--soak", type=int, default=60)
    parser.add_argument("--only", default="rate,latency,soak")
    parser.add_argument("--peers-python", default=sys.executable, help="where the peers are")
    parser.add_argument("--json", type=Path)
    asked = options(parser, trades=2_000, rounds=1, latency=2, soak=2)
    only = asked.only.split(",")
    found: dict = {"machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    with server():
        if "rate" in only:
            found["rate"] = rate(asked.trades, asked.rounds, asked.peers_python)
        if "latency" in only:
            found["latency"] = latency(asked.latency)
            print(found["latency"])
        if "soak" in only:
            found["soak"] = soak(asked.soak)
            print(found["soak"])
    found["load"] = os.getloadavg()[0]
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
