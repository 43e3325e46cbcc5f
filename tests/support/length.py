"""The size of tests that sample their input: small, unless `FUNDLEDGER_TEST_LONG=1` is set."""

import os
from typing import Final, TypeVar

LONG: Final = os.environ.get("FUNDLEDGER_TEST_LONG", "0") not in ("", "0")
T = TypeVar("T")


def unless_long(short: T, long: T) -> T:
    """Return `short` in CI and on a developer's machine, `long` in a long run."""
    return long if LONG else short
