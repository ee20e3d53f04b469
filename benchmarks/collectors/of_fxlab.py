"""fxlab: from the socket through the journal into the database, counted there."""

from __future__ import annotations

import json
import resource
import sys
import time

import fxlab


def main(url: str, wanted: int) -> None:
    with fxlab.connect() as lab:
        collector = lab.collect("binance", ["BTC_USDT"], url=url, book_depth=0, settle="1s")
        first, last, seen, cpu = 0.0, 0.0, 0, time.process_time()
        while not collector.status().is_over:
            time.sleep(0.02)
            now, status = time.perf_counter(), collector.status()
            if status.trades > seen:
                first = first or now
                last, seen = now, status.trades
            if seen >= wanted or (last and now - last > 3.0):
                break
        while collector.status().waiting_rows:  # the last row is stored, not only journaled
            time.sleep(0.005)
        stored = time.perf_counter()
        used = time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        session = collector.stop()
        receipt = lab.verify(session.id)
    result = {
        "trades": session.prices_count,
        "distinct": int(receipt.ids["ids_found"].sum()),
        "seconds": stored - first,
        "cpu": used,
        "rss_mb": peak,
        "whole": receipt.whole,
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
