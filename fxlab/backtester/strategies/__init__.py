"""The strategies that come with fxlab: small, exact, and meant to be read and copied.

Importing the package registers them. Each says what its idea is, what its parameters mean, and
where it was published; none of them is advice.
"""

from fxlab.backtester.strategies import breakouts, order_flow, reversion, trend

__all__ = ["breakouts", "order_flow", "reversion", "trend"]
