"""Read a session: what is recorded, its ticks, its candles, its statistics."""

import fxlab

lab = fxlab.connect()
print(lab.sessions().select("session_id", "symbols", "status", "prices_count"))

session = lab.session("demo_synthetic_book")
symbol = session.symbols[0]
print(session.prices(symbol, limit=5))
print(session.ohlcv("1m", symbol).head())
print(session.statistics())

# A day of ticks need not fit into memory: read it in chunks.
rows = sum(chunk.height for chunk in session.scan_ticks(symbol, chunk_rows=10_000))
print(f"{rows:,} ticks of {symbol}")
