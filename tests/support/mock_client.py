"""A plain client of the mock venue, which knows nothing of fxlab's feeds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from tornado.websocket import websocket_connect

from fxlab.mock import MockVenue


def converse(
    venue: MockVenue, path: str, requests: Sequence[Any], enough: Callable[[list[str]], bool]
) -> list[str]:
    """Return the frames of one connection, as texts, until they are enough."""

    async def run() -> list[str]:
        socket = await websocket_connect(venue.url.replace("http", "ws") + path)
        for request in requests:
            text = request if isinstance(request, str) else json.dumps(request)
            await socket.write_message(text)
        frames: list[str] = []
        while not enough(frames):
            frame = await socket.read_message()
            if frame is None:
                break
            frames.append(frame)
        socket.close()
        while await socket.read_message() is not None:
            pass
        return frames

    return asyncio.run(asyncio.wait_for(run(), 120))


def ask(venue: MockVenue, path: str, **query: Any) -> Any:
    """Return the JSON of a REST answer."""
    answer = httpx.get(venue.url + path, params=query)
    assert answer.status_code == 200
    return answer.json()
