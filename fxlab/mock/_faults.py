"""Fault injection of the mock venue: seeded faults, mutated frames, and the log of faults done.

The same seed does the same damage to the same frames. Whether a frame is damaged depends on the
seed, its stream and the id of its event, never on how many clients listen or how fast they are. So
a failed test can be run again. Mutated frames are such as no venue documents: what a collector must
survive and quarantine.

The log lists everything that the venue did wrong, with the counts to reconcile with. It lives in
memory and, if a path is given, in a file of JSON lines that is flushed with every fault, so that it
outlives a venue that is killed.
"""

from __future__ import annotations

import heapq
import itertools
import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

from fxlab.errors import InvalidInput, InvalidParameter

Mutation = Callable[[random.Random, bytes], bytes]
_LONG: Final = 1_000_000
_DEEP: Final = 20_000
_NUMBER: Final = re.compile(rb'"-?\d+(?:\.\d+)?"|(?<=:)-?\d+(?:\.\d+)?')


def mutations(random_: random.Random, frame: bytes) -> Iterator[bytes]:
    """Yield mutilated copies of a frame without end, of all kinds in turn."""
    while True:
        for mutate in _KINDS.values():
            yield mutate(random_, frame)


def mutated(random_: random.Random, frame: bytes) -> tuple[bytes, str]:
    """Return one mutilated copy of a frame, and the name of what was done to it."""
    kind = random_.choice(list(_KINDS))
    return _KINDS[kind](random_, frame), kind


def _cut(random_: random.Random, frame: bytes) -> bytes:
    return frame[: random_.randrange(len(frame))]


def _flipped(random_: random.Random, frame: bytes) -> bytes:
    # In its structure, not in a digit: a changed digit is a frame that looks right.
    places = [place for place, byte in enumerate(frame) if chr(byte) in '{}[]":,']
    data = bytearray(frame)
    for place in random_.sample(places, min(len(places), 3)):
        data[place] ^= 1 << random_.randrange(8)
    return bytes(data) if _broken(data) else _cut(random_, frame)


def _broken(data: bytearray) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return True
    return False


def _with_number(text: bytes) -> Mutation:
    # Collectors may ignore fields that they do not need: all numbers become nonsense.
    return lambda _, frame: _NUMBER.sub(text, frame) if _NUMBER.search(frame) else text


def _huge(_: random.Random, frame: bytes) -> bytes:
    found = max(1, len(_NUMBER.findall(frame)))
    return _NUMBER.sub(b'"' + b"9" * (_LONG // found) + b'"', frame)


def _nested(_: random.Random, __: bytes) -> bytes:
    return b'{"data":' + b"[" * _DEEP + b"]" * _DEEP + b"}"


def _unknown(random_: random.Random, _: bytes) -> bytes:
    return json.dumps({"e": f"event{random_.randrange(1_000)}", "data": {"s": "?"}}).encode()


def _not_text(random_: random.Random, frame: bytes) -> bytes:
    place = random_.randrange(len(frame))
    return frame[:place] + b"\xff\xfe" + frame[place:]


_KINDS: Final[dict[str, Mutation]] = {
    "cut": _cut,
    "bits": _flipped,
    "not a number": _with_number(b'"NaN"'),
    "infinite": _with_number(b'"-Infinity"'),
    "wrong type": _with_number(b'{"a":[]}'),
    "no value": _with_number(b"null"),
    "huge": _huge,
    "deep": _nested,
    "unknown event": _unknown,
    "null": lambda _, __: b"null",
    "not UTF-8": _not_text,
}


KEPT: Final = 200_000


class FaultLog:
    """Faults in their order.

    Parameters
    ----------
    path
        A file of JSON lines that is overwritten; None for memory only.
    header
        What the first line says: the seed and the faults that were asked for.

    Raises
    ------
    InvalidInput
        If the file cannot be written.

    Attributes
    ----------
    faults
        The first `KEPT` of them; the file has them all.
    counts
        How often each fault was injected.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self.faults: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.header = dict(header)
        try:
            self._file = None if path is None else path.open("w", encoding="utf-8")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            said = f"the ledger {str(path)!r:.80} cannot be written ({why}); give another file"
            raise InvalidInput(said) from error
        self._write({"ledger": self.header})

    def add(self, fault: str, **figures: Any) -> None:  # noqa: ANN401 - any JSON
        """Write one fault down."""
        line = {"fault": fault, **figures}
        self.counts[fault] += 1
        if len(self.faults) < KEPT:
            self.faults.append(line)
        self._write(line)

    def close(self, state: Mapping[str, Any]) -> None:
        """Write the last lines: one for each symbol, then one with everything else."""
        if self._file is None:
            return
        for symbol, figures in state["symbols"].items():
            self._write({"symbol": symbol, **figures})
        self._write({"closed": {key: state[key] for key in ("venues", "counts")}})
        self._file.close()
        self._file = None

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


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
    late
        A part of streams' names, and the seconds by which all their frames come late, in order.
    garbage, garbage_replaces
        Share of frames before which a mutilated copy is sent, or which it replaces.
    cut_every
        Frames after which all connections of a protocol are cut, in the middle of the next one.
    cut_seconds
        The same, by seconds.
    stall_at, stall_seconds
        When nothing is sent any more, pongs included, and for how many real seconds; the market
        goes on meanwhile.
    silence
        A part of streams' names, and the second from which on they send nothing more to those who
        listen by then; their connections answer, and new ones get the streams again.
    id_restart_at
        Trades of a symbol after which its trade ids begin at 1 again.
    stale_snapshots
        How many of the first book snapshots are too old to be used.
    bad_history
        Trades whose ids it divides have price 0 and quantity 0 in answers of REST; 1 spoils all.
    rest_errors
        How many REST answers are replaced, by kind: "429", "503", "403", "malformed"; a part of a
        path may follow, as in ``{"503 depth": 2}``.
    ban
        A status (418, 429, 403), the second from which on all REST questions are refused with it,
        and for how many real seconds; the answers say for how long.
    rate_limit
        What REST questions to a venue may cost, and the real seconds for it; those beyond are
        refused with 429 until these seconds are over.
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
    late: tuple[str, float] | None = None
    garbage: float = 0.0
    garbage_replaces: bool = False
    cut_every: int | None = None
    cut_seconds: float | None = None
    stall_at: float | None = None
    stall_seconds: float = 10.0
    silence: tuple[str, float] | None = None
    id_restart_at: int | None = None
    stale_snapshots: int = 0
    bad_history: int | None = None
    rest_errors: Mapping[str, int] = field(default_factory=dict)
    ban: tuple[int, float, float] | None = None
    rate_limit: tuple[float, float] | None = None
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
        if self.bad_history is not None and self.bad_history < 1:
            raise InvalidParameter(f"bad_history={self.bad_history}: give a number above 0")

    @property
    def damages_frames(self) -> bool:
        """Return whether single frames are damaged at all."""
        return self.late is not None or any(getattr(self, name) > 0.0 for name in _SHARES)

    def wanted(self) -> dict[str, Any]:
        """Return the faults that differ from none, and the seed."""
        plain = Faults()
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name == "seed" or getattr(self, one.name) != getattr(plain, one.name)
        }


class OutgoingFrame(NamedTuple):
    """A frame on its way, and the place in truth of the trade that it tells, if it tells one."""

    stream: str
    payload: bytes
    symbol: str
    id: int
    time: int
    place: int | None
    good: bool = True


Draw = Callable[[str], float]
"""Returns a number from 0 to 1 for a name, always the same one for one frame."""


class FaultInjector:
    """Applies the faults of single frames."""

    def __init__(self, faults: Faults, venue: str, ledger: FaultLog, describe: Any) -> None:  # noqa: ANN401
        self._faults = faults
        self._venue = venue
        self._ledger = ledger
        self._describe = describe
        self._late: list[tuple[int, int, OutgoingFrame]] = []
        self._held: dict[str, OutgoingFrame] = {}
        self._order = itertools.count()

    def send(self, parcel: OutgoingFrame) -> Iterator[OutgoingFrame]:
        """Yield what is sent in place of a frame, in its order."""
        faults, draw = self._faults, self._draws(parcel)
        if draw("drop") < faults.drop:
            self._tell("drop", parcel)
            return
        for copy in self._copies(parcel, draw):
            if faults.late is not None and faults.late[0] in copy.stream:
                self._put_off(copy, int(faults.late[1] * 1e6))
            elif draw("delay") < faults.delay:
                self._postpone(copy, draw("late"))
            elif copy.stream not in self._held and draw("swap") < faults.swap:
                self._held[copy.stream] = copy
                self._tell("swap", copy)
            else:
                yield copy
                if held := self._held.pop(copy.stream, None):
                    yield held

    def due(self, time: int | None) -> Iterator[OutgoingFrame]:
        """Yield the frames whose delay has passed; all of them for None."""
        while self._late and (time is None or self._late[0][0] <= time):
            yield heapq.heappop(self._late)[2]
        if time is None:
            yield from self._held.values()
            self._held.clear()

    def _copies(self, parcel: OutgoingFrame, draw: Draw) -> Iterator[OutgoingFrame]:
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

    def _postpone(self, parcel: OutgoingFrame, share: float) -> None:
        late = int(share * self._faults.delay_seconds * 1e6)
        self._put_off(parcel, late)
        self._tell("delay", parcel, late_us=late)

    def _put_off(self, parcel: OutgoingFrame, late: int) -> None:
        heapq.heappush(self._late, (parcel.time + late, next(self._order), parcel))

    def _tell(self, fault: str, parcel: OutgoingFrame, **more: Any) -> None:  # noqa: ANN401
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

    def _draws(self, parcel: OutgoingFrame) -> Draw:
        state = _mix(self._faults.seed ^ _mix(zlib.crc32(parcel.stream.encode()) ^ parcel.id))

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
