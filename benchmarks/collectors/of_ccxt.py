"""ccxt.pro's `watch_trades`, as its documentation shows it: received only, nothing is stored."""

from __future__ import annotations

import asyncio
import sys

import ccxt.pro
from taking import Taken


def local(exchange, url: str):
    """Point every address of the exchange at the mock venue."""

    def walk(part: dict) -> None:
        for key, value in part.items():
            if isinstance(value, dict):
                walk(value)
            elif isinstance(value, str) and value.startswith("http"):
                path = value.split("/", 3)[3] if value.count("/") > 2 else ""
                part[key] = f"{url}/binance/{path}"
            elif isinstance(value, str) and value.startswith("ws"):
                part[key] = f"{url.replace('http', 'ws')}/binance/ws"

    exchange.options["fetchMarkets"] = {"types": ["spot"]}
    exchange.options["fetchCurrencies"] = False
    walk(exchange.urls["api"])
    return exchange


async def main(url: str, wanted: int) -> None:
    exchange = local(ccxt.pro.binance({"newUpdates": True}), url)
    await exchange.load_markets()
    taken = Taken(wanted)

    async def watch() -> None:
        while True:
            for trade in await exchange.watch_trades("BTC/USDT"):
                taken.take(int(trade["id"]))

    task = asyncio.ensure_future(watch())
    while not taken.is_over() and not task.done():  # noqa: ASYNC110 - nobody could set an event
        await asyncio.sleep(0.1)
    task.cancel()
    taken.report()
    await exchange.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
