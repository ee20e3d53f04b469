"""The way through an HTTP proxy to a venue's WebSocket, which tornado's client does not know."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import SplitResult, unquote

from tornado.iostream import IOStream
from tornado.tcpclient import TCPClient


class Tunnel(TCPClient):
    """Connects through an HTTP proxy, which tornado's own client does not know."""

    def __init__(self, proxy: SplitResult) -> None:
        super().__init__()
        self._proxy = proxy

    async def connect(  # type: ignore[override]  # of tornado's arguments, those its client gives
        self,
        host: str,
        port: int,
        *,
        ssl_options: Any = None,  # noqa: ANN401 - as tornado's
        timeout: float | None = None,  # noqa: ASYNC109 - as tornado's
        **options: Any,  # noqa: ANN401 - as tornado's
    ) -> IOStream:
        """Return a stream to the host; tornado calls this."""
        proxy = self._proxy
        stream = await super().connect(
            proxy.hostname or "", proxy.port or 80, timeout=timeout, **options
        )
        try:
            await self._ask(stream, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            if ssl_options is None:
                return stream
            return await stream.start_tls(
                server_side=False, ssl_options=ssl_options, server_hostname=host
            )
        except BaseException:
            stream.close()
            raise

    async def _ask(self, stream: IOStream, where: str) -> None:
        login = _proxy_login(self._proxy)
        await stream.write(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{login}\r\n".encode())
        answer = await stream.read_until(b"\r\n\r\n", max_bytes=65_536)
        first = answer.partition(b"\r\n")[0].decode("latin-1")
        if first.split(" ", 2)[1:2] != ["200"]:
            raise ConnectionError(f"the proxy answers {first[:100]!r}")


def _proxy_login(proxy: SplitResult) -> str:
    if proxy.username is None:
        return ""
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return f"Proxy-Authorization: Basic {base64.b64encode(words.encode()).decode()}\r\n"
