"""Where the outcomes of a sweep come together: kept, counted, and told to whoever watches."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from fxlab.progress import Advance
from fxlab.sweeper.estimate import duration_words
from fxlab.sweeper.lane import Outcome
from fxlab.sweeper.space import Point
from fxlab.sweeper.store import Store
from fxlab.sweeper.studies import Study

STORE_SECONDS: Final = 1.0
"""How long finished points may wait for others to be stored with them."""


class Desk:
    """Takes outcomes as they come; a point counts as done when it is stored.

    Parameters
    ----------
    studies
        One a session.
    store
        Where points are kept.
    total
        How many outcomes are coming: points times sessions.
    progress
        Told the share done and the time left; it may raise `Cancelled`.

    Attributes
    ----------
    points : dict
        Number to point.
    outcomes : list of dict
        For each study, number to outcome.
    resumed : int
        How many outcomes were found in the store.
    """

    def __init__(
        self, studies: Sequence[Study], store: Store, total: int, progress: Advance
    ) -> None:
        self.points: dict[int, Point] = {}
        self.outcomes: list[dict[int, Outcome]] = [{} for _ in studies]
        self.resumed = 0
        self.total = max(1, total)
        self._studies = studies
        self._store = store
        self._progress = progress
        self._known = [store.known(study) for study in studies]
        self._waiting: list[tuple[int, Outcome]] = []
        self._began = self._stored_at = time.monotonic()

    def open(self, batch: Sequence[Point]) -> list[list[Point]]:
        """Note the points; return for each study those that are not in the store."""
        self.points.update((point.number, point) for point in batch)
        missing = [self._missing(number, batch) for number in range(len(self._studies))]
        self.report()
        return missing

    def _missing(self, number: int, batch: Sequence[Point]) -> list[Point]:
        known = self._known[number]
        if not known:
            return list(batch)
        missing = []
        for point in batch:
            found = known.get(point.key)
            if found is None:
                missing.append(point)
            else:
                self.outcomes[number][point.number] = replace(found, number=point.number)
                self.resumed += 1
        return missing

    def take(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes of a study, and store them now or with those that come next."""
        self._waiting.extend((number, outcome) for outcome in outcomes)
        if not self._store.keeps or time.monotonic() - self._stored_at >= STORE_SECONDS:
            self.flush()
        self.report()

    def flush(self) -> None:
        """Store what waits."""
        groups = defaultdict(list)
        for number, outcome in self._waiting:
            groups[number].append(outcome)
        for number, outcomes in groups.items():
            pairs = [(self.points[outcome.number], outcome) for outcome in outcomes]
            self._store.keep(self._studies[number], pairs)
            self.outcomes[number].update((outcome.number, outcome) for outcome in outcomes)
        self._waiting.clear()
        self._stored_at = time.monotonic()

    def finish(self) -> None:
        """Tell that all there was is done: a search may have found fewer points than it could."""
        self.total = max(1, self.done)
        self.report()

    @property
    def done(self) -> int:
        """Return how many outcomes there are, the stored ones of earlier sweeps included."""
        return sum(map(len, self.outcomes))

    def report(self, under_way: float = 0.0) -> None:
        """Tell how far it is; `under_way` counts the work on unfinished points, in points."""
        worked = self.done - self.resumed + len(self._waiting) + under_way
        left = max(0.0, self.total - self.resumed - worked)
        words = f"{self.done:,} of {self.total:,} points"
        if self.resumed:
            words += f", {self.resumed:,} of them from before"
        if worked and left:
            spent = time.monotonic() - self._began
            words += f", {duration_words(spent * left / worked)} left"
        self._progress(1.0 - left / self.total, words)
