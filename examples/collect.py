"""Record live trades and books, here from the venue in the box (its `url` is left out later)."""

import fxlab
from fxlab.mock import MockVenue, generated

lab = fxlab.connect()
with MockVenue(generated(["BTC_USDT"], rate=200)) as venue:
    collector = lab.collect("binance", ["BTC_USDT"], url=venue.url, duration="2s")
    session = collector.wait()  # a notebook would go on meanwhile

print(session)
print(session.events())  # gaps, reconnects: what was missed, and what of it was filled
print(lab.verify(session.id))
