"""Does a strategy see the future? Change the future at many ticks and see whether it notices."""

import polars as pl

import fxlab


@fxlab.strategy
def clairvoyant() -> fxlab.Signals:
    """Buy whenever the next price is higher: it can not be done, and is found out."""
    rises = pl.col("price").shift(-1) > pl.col("price")
    return fxlab.Signals(target=pl.when(rises).then(1.0).otherwise(0.0), lookback=1)


session = fxlab.connect().session("demo_synthetic_book")
print(fxlab.check_lookahead(session, "sma_cross"))
try:
    fxlab.check_lookahead(session, clairvoyant)
except fxlab.FxlabError as error:
    print(error)
