"""cryptofeed's trade callback: received only, nothing is stored."""

from __future__ import annotations

import os
import sys
import threading
import time

import cryptofeed.connection
from cryptofeed import FeedHandler
from cryptofeed.connection import RestEndpoint, Routes, WebsocketEndpoint
from cryptofeed.defines import TRADES
from cryptofeed.exchanges import Binance
from taking import Taken

_init = cryptofeed.connection.WSAsyncConn.__init__


def _plain_allowed(self, address, *arguments, **options):
    """Take ws:// addresses, which this version refuses, and loopback has no certificate."""
    _init(self, address.replace("ws://", "wss://", 1), *arguments, **options)
    self.address = address


def main(url: str, wanted: int) -> None:
    cryptofeed.connection.WSAsyncConn.__init__ = _plain_allowed
    taken = Taken(wanted)

    routes = Routes("/api/v3/exchangeInfo", l2book="/api/v3/depth?symbol={}&limit={}")
    ends = {
        "websocket_endpoints": [WebsocketEndpoint(f"{url.replace('http', 'ws')}/binance")],
        "rest_endpoints": [RestEndpoint(f"{url}/binance", routes=routes)],
    }
    local = type("Local", (Binance,), ends)

    async def trade(one, _received) -> None:
        taken.take(int(one.id))

    def watch() -> None:
        while not taken.is_over():
            time.sleep(0.1)
        taken.report()
        os._exit(0)  # the handler has no clean end from another thread

    threading.Thread(target=watch, daemon=True).start()
    handler = FeedHandler({"log": {"filename": os.devnull, "level": "ERROR"}, "uvloop": False})
    handler.add_feed(local(symbols=["BTC-USDT"], channels=[TRADES], callbacks={TRADES: trade}))
    handler.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
