"""What every side of the comparison measures of itself."""

from __future__ import annotations

import json
import resource
import time

SILENT_SECONDS = 3.0


class Taken:
    """Trades that came to a side."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.ids: set[int] = set()
        self.trades = 0
        self.first = self.last = 0.0
        self.cpu = time.process_time()

    def take(self, identity: int) -> None:
        """Note one trade."""
        now = time.perf_counter()
        self.first = self.first or now
        self.last = now
        self.trades += 1
        self.ids.add(identity)

    def is_over(self) -> bool:
        """Whether all came, or nothing comes any more."""
        silent = self.last and time.perf_counter() - self.last > SILENT_SECONDS
        return len(self.ids) >= self.wanted or bool(silent)

    def report(self, **more: object) -> None:
        """Print the line."""
        print(
            json.dumps(
                {
                    "trades": self.trades,
                    "distinct": len(self.ids),
                    "seconds": self.last - self.first,
                    "cpu": time.process_time() - self.cpu,
                    "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                    **more,
                }
            ),
            flush=True,
        )
