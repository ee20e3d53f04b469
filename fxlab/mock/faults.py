"""What a venue does wrong, by a seed: the same seed does the same harm to the same frames.

Whether a frame is harmed depends on the seed, its stream and the id of what it tells, never on
how many clients listen or how fast they are. So a failed test can be run again.
"""

from __future__ import annotations

import heapq
import random
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, NamedTuple

from fxlab.errors import InvalidParameter
from fxlab.mock.ledger import Ledger
from fxlab.mock.mutations import mutated

_SHARES: Final = ("drop", "duplicate", "swap", "delay", "garbage")
_WORD: Final = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Faults of a mock venue; none by default.

    Seconds are seconds of market time, from the first subscription on; with a speed of 1 those
    are seconds.

    Attributes
    ----------
    seed
        Of everything below.
    drop
        Share of frames that are never sent.
    duplicate
        Share of frames that are sent two or three times.
    swap
        Share of frames that change places with the next one of their stream.
    delay, delay_seconds
        Share of frames (each copy by itself) that come up to so many seconds late.
    garbage, garbage_replaces
        Share of frames before which a mutilated copy is sent, or which it replaces.
    cut_every
        Frames after which all connections of a protocol are cut, in the middle of the next one.
    cut_seconds
        The same, by seconds.
    stall_at, stall_seconds
        When nothing is sent any more, pongs included, and for how many real seconds; the market
        goes on meanwhile.
    id_restart_at
        Trades of a symbol after which its trade ids begin at 1 again.
    stale_snapshots
        How many of the first book snapshots are too old to be used.
    rest_errors
        How many REST answers are replaced, by kind: "429", "503", "403", "malformed"; a part of a
        path may follow, as in ``{"503 depth": 2}``.
    delist
        A symbol, and the second from which on it is traded no more.
    clock_skew_ms
        How far the venue's clock is ahead.
    """

    seed: int = 1
    drop: float = 0.0
    duplicate: float = 0.0
    swap: float = 0.0
    delay: float = 0.0
    delay_seconds: float = 5.0
    garbage: float = 0.0
    garbage_replaces: bool = False
    cut_every: int | None = None
    cut_seconds: float | None = None
    stall_at: float | None = None
    stall_seconds: float = 10.0
    id_restart_at: int | None = None
    stale_snapshots: int = 0
    rest_errors: Mapping[str, int] = field(default_factory=dict)
    delist: tuple[str, float] | None = None
    clock_skew_ms: int = 0

    def __post_init__(self) -> None:
        for name in _SHARES:
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise InvalidParameter(
                    f"{name}={getattr(self, name)} is a share of frames: give 0.0 to 1.0"
                )
        for kind in self.rest_errors:
            what = kind.partition(" ")[0]
            if what != "malformed" and not (what.isdecimal() and 400 <= int(what) <= 599):
                raise InvalidParameter(
                    f"rest_errors={dict(self.rest_errors)}: {kind!r} begins with no status of 400 "
                    "to 599 and not with malformed"
                )
        if self.cut_every is not None and self.cut_every < 1:
            raise InvalidParameter(f"cut_every={self.cut_every}: give a number of frames above 0")

    @property
    def harms_frames(self) -> bool:
        """Return whether single frames are harmed at all."""
        return any(getattr(self, name) > 0.0 for name in _SHARES)

    def wanted(self) -> dict[str, Any]:
        """Return the faults that differ from none, and the seed."""
        plain = Faults()
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name == "seed" or getattr(self, one.name) != getattr(plain, one.name)
        }


class Parcel(NamedTuple):
    """A frame on its way, and the place in truth of the trade that it tells, if it tells one."""

    stream: str
    payload: bytes
    symbol: str
    id: int
    time: int
    place: int | None
    good: bool = True


class Harm:
    """Applies the faults that befall single frames."""

    def __init__(self, faults: Faults, venue: str, ledger: Ledger, describe: Any) -> None:  # noqa: ANN401
        self._faults = faults
        self._venue = venue
        self._ledger = ledger
        self._describe = describe
        self._late: list[tuple[int, int, Parcel]] = []
        self._held: dict[str, Parcel] = {}
        self._pushed = 0

    def send(self, parcel: Parcel) -> Iterator[Parcel]:
        """Yield what is sent in place of a frame, in its order."""
        faults, draw = self._faults, self._draws(parcel)
        if draw("drop") < faults.drop:
            self._tell("drop", parcel)
            return
        for copy in self._copies(parcel, draw):
            if draw("delay") < faults.delay:
                self._postpone(copy, draw("late"))
            elif copy.stream not in self._held and draw("swap") < faults.swap:
                self._held[copy.stream] = copy
                self._tell("swap", copy)
            else:
                yield copy
                if held := self._held.pop(copy.stream, None):
                    yield held

    def due(self, time: int | None) -> Iterator[Parcel]:
        """Yield the frames whose delay has passed; all of them for None."""
        while self._late and (time is None or self._late[0][0] <= time):
            yield heapq.heappop(self._late)[2]
        if time is None:
            yield from self._held.values()
            self._held.clear()

    def _copies(self, parcel: Parcel, draw: Any) -> Iterator[Parcel]:  # noqa: ANN401
        faults = self._faults
        if draw("garbage") < faults.garbage:
            text, how = mutated(random.Random(draw("mutation")), parcel.payload)  # noqa: S311
            self._tell("garbage", parcel, how=how, replaces=faults.garbage_replaces)
            yield parcel._replace(payload=text, good=False)
            if faults.garbage_replaces:
                return
        yield parcel
        if draw("duplicate") < faults.duplicate:
            more = 1 + (draw("copies") < 0.5)
            self._tell("duplicate", parcel, copies=1 + more)
            for _ in range(more):
                yield parcel

    def _postpone(self, parcel: Parcel, share: float) -> None:
        late = int(share * self._faults.delay_seconds * 1e6)
        self._pushed += 1
        heapq.heappush(self._late, (parcel.time + late, self._pushed, parcel))
        self._tell("delay", parcel, late_us=late)

    def _tell(self, fault: str, parcel: Parcel, **more: Any) -> None:  # noqa: ANN401
        self._ledger.add(
            fault,
            venue=self._venue,
            stream=parcel.stream,
            symbol=parcel.symbol,
            id=parcel.id,
            time=parcel.time,
            **(self._describe(parcel.payload) if parcel.good else {}),
            **more,
        )

    def _draws(self, parcel: Parcel) -> Any:  # noqa: ANN401
        root = _mix(self._faults.seed ^ _mix(zlib.crc32(parcel.stream.encode()) ^ parcel.id))
        state = root

        def draw(kind: str) -> float:
            nonlocal state
            state = _mix(state + zlib.crc32(kind.encode()))
            return state / (_WORD + 1)

        return draw


def _mix(word: int) -> int:
    # SplitMix64 (https://prng.di.unimi.it/splitmix64.c): neighbours come out unrelated.
    word = (word + 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)
