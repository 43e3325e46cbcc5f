"""Currencies for tests that compare accounts of the platform, which all tests of a process share."""

from collections.abc import Iterator
from functools import cache

from fundledger.currencies import EXPONENTS

SHARED = frozenset({"CNY", "USD", "EUR", "JPY", "KWD", "BHD", "GBP", "TWD", "TND", "ILS", "HRK", "CLF", "AED", "ALL"})
"""Currencies that tests name."""


@cache
def _unused() -> Iterator[str]:
    return iter(sorted(set(EXPONENTS) - SHARED))


def unused_currency() -> str:
    """Return a currency that no other test of this process uses."""
    return next(_unused())
