"""What is compared in `benchmarks/collecting.py`: each side is a script with a process of its own.

    python benchmarks/collectors/of_<side>.py URL TRADES

It takes trades of BTC_USDT from the mock venue at URL until TRADES have come or nothing comes for
three seconds, and prints one JSON line: `trades`, `distinct`, `seconds`, `cpu` and `rss_mb`.
"""
