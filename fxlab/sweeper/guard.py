"""The guard in front of a sweep: a strategy must not see the future, at a sample of its points.

A strategy that does gives the best results of all, so a sweep would find it first. The check is a
sample: few points, the first ticks; `fxlab.check_lookahead` does it thoroughly.
"""

from __future__ import annotations

from collections.abc import Sequence

from fxlab.backtester.lookahead import SAMPLE_CUTS, SAMPLE_ROWS, check_lookahead
from fxlab.errors import Cancelled, FxlabError, LookaheadFound
from fxlab.progress import Advance
from fxlab.sweeper.space import Point
from fxlab.sweeper.studies import Study


def check(study: Study, points: Sequence[Point], progress: Advance) -> None:
    """Raise `LookaheadFound` if one of the points depends on later ticks.

    `progress` hears that it goes on, and may raise `Cancelled`.

    A point whose strategy fails for another reason is left to the sweep, which says so.
    """
    for point in points:
        try:
            check_lookahead(
                study.source,
                study.run.strategy,
                point.values,
                symbols=study.run.symbols,
                start=study.run.start,
                end=study.run.end,
                cuts=SAMPLE_CUTS,
                sample_rows=SAMPLE_ROWS,
                progress=progress,
            )
        except LookaheadFound as found:
            raise LookaheadFound(
                f"{found} (checked before the sweep, at {point.key}; check_lookahead=False leaves "
                "the check out)"
            ) from None
        except Cancelled:
            raise
        except FxlabError:  # the sweep meets it again, and keeps it with its point
            continue
