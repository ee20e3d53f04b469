"""The guard in front of a sweep: a strategy must not see the future, at a sample of its points.

A strategy that does gives the best results of all, so a sweep would find it first. The check is a
sample: few points, the first ticks; `fxlab.check_lookahead` does it thoroughly.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from fxlab.backtester.lookahead import check_lookahead
from fxlab.errors import FxlabError, LookaheadFound
from fxlab.sweeper.space import Point
from fxlab.sweeper.studies import Study

ROWS: Final = 20_000
CUTS: Final = 6


def check(study: Study, points: Sequence[Point]) -> None:
    """Raise `LookaheadFound` if one of the points depends on later ticks.

    A point whose strategy fails for another reason is left to the sweep, which says so.
    """
    symbol = study.run.symbols[0]
    start, end = study.terms.start, study.terms.end
    chunks = study.source.scan_ticks(symbol, start=start, end=end, chunk_rows=ROWS)
    ticks = next((chunk for chunk in chunks if chunk.height), None)
    if ticks is None:
        return
    until = ticks["timestamp"][-1] + timedelta(microseconds=1)
    for point in points:
        try:
            check_lookahead(
                study.source,
                study.run.strategy,
                point.values,
                symbols=[symbol],
                start=start,
                end=until,
                cuts=CUTS,
            )
        except LookaheadFound as found:
            raise LookaheadFound(
                f"{found} (checked before the sweep, at {point.key}; check_lookahead=False leaves "
                "the check out)"
            ) from None
        except FxlabError:  # the sweep meets it again, and keeps it with its point
            continue
