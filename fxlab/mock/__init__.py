"""A venue in the box: an exchange on loopback that misbehaves on request, and knows the truth.

No collector can prove by itself that it lost nothing. This one side of the wire is written
without a look at the other: it speaks the venues' public protocols, plays a recorded or a
made-up market, injects the faults it is told to, and says afterwards what really happened.

In a test::

    from fxlab.mock import Faults, MockVenue, generated

    market = generated(["BTC_USDT"], seed=7, rate=5_000, trades=100_000)
    with MockVenue(market, speed="max", faults=Faults(drop=0.01, cut_every=20_000)) as venue:
        ...                       # point the collector at venue.url
        venue.wait(60)            # the market has ended
        said = venue.ledger()     # or: GET {venue.url}/ledger

    said["symbols"]["BTC_USDT"]             # trades, first_id, last_id, sum_qty, checksum
    said["venues"]["binance"]["BTC_USDT"]   # sent_first_id, happened, sent, unsent: [[a, b], ...]
    venue.truth.deals["BTC_USDT"].frame()   # every trade, as a Polars frame

What a collector with backfill has to hold is every id from `sent_first_id` to `last_id`; the
gaps that it has to see on the stream are exactly `unsent`. A connection that is cut, or silent,
gets every frame that was sent before, so both are exact.

In a notebook, keep it running in its own thread and stop it when done::

    venue = MockVenue(generated(["BTC_USDT", "ETH_USDT"], rate=50)).start()
    lab.collect("binance", ["BTC_USDT"], url=venue.url)
    venue.cut()                   # trouble by hand: cut(), stall(), stall(False)
    venue.stop()

In a shell: ``fxlab mock --symbol BTC_USDT --rate 1000 --drop 0.01``. There, ``GET /ledger`` says
the same, ``GET /truth/BTC_USDT?from_id=1&limit=1000`` shows the trades (numbers in units of their
last decimals), and ``POST /cut``, ``/stall`` and ``/speak`` make trouble by hand.
"""

from __future__ import annotations

from fxlab.mock._faults import Faults, mutations
from fxlab.mock._market import Listing, MockMarket
from fxlab.mock._sources import generated, recorded
from fxlab.mock._venue import MockVenue

__all__ = ["Faults", "Listing", "MockMarket", "MockVenue", "generated", "mutations", "recorded"]
