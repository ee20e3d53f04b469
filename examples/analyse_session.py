"""Analyse a session: statistics, what is wrong with it, candles of several kinds, charts."""

import fxlab

lab = fxlab.connect()
session = lab.session("demo_synthetic_book")
symbol = session.symbols[0]

found = lab.analysis(session.id)
print(found.statistics.select("symbol", "rows", "realised_volatility", "mean_spread_bps"))
print(found)  # the score, its reasons, and why a figure does not exist

print(session.ohlcv("7m", symbol, fill=True).head())
print(session.ohlcv(1_000, symbol, kind="tick").head())

for name, figure in session.charts(symbol).items():
    print(name, "has", len(figure.data), "traces")  # figure.show() in a notebook
