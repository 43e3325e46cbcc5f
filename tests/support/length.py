"""How long tests look that could look for ever: shortly, unless `FUNDLEDGER_TEST_LONG=1` says otherwise."""

import os
from typing import Final, TypeVar

LONG: Final = os.environ.get("FUNDLEDGER_TEST_LONG", "0") not in ("", "0")
T = TypeVar("T")


def unless_long(short: T, long: T) -> T:
    """`short` in CI and on a developer's machine; `long` where somebody has the time."""
    return long if LONG else short
