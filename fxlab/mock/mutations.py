"""Frames as no venue documents them: what a collector must survive and set aside."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Final

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


def _null(_: random.Random, __: bytes) -> bytes:
    return b"null"


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
    "null": _null,
    "not UTF-8": _not_text,
}
