"""Detection of hot accounts: pure functions of the load reports of all workers and of the time.

The signal is the utilisation of an account: the share of time in which a batch with the account is in a database
transaction, summed over all workers. At a utilisation near 1, batches with the account wait for each other. In large
batches every account has a high utilisation. A hot account must therefore also have a minimum share of the arrivals.

    cold -> warming -> hot -> cooling -> cold

The threshold for promotion (to hot) is higher than the one for demotion (to cold), and each must hold for some time.
Both prevent that an account changes between hot and cold repeatedly.
"""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from fundledger.hotspot.heat import Report


class Heat(StrEnum):
    COLD = "cold"
    WARMING = "warming"
    HOT = "hot"
    COOLING = "cooling"


class Thresholds(msgspec.Struct, frozen=True):
    """Thresholds of utilisation for promotion and demotion, and the seconds for which each must hold.

    For promotion, an account must also have at least the part `share_min` of all arrivals.
    """

    promote: float = 0.5
    promote_s: float = 3.0
    demote: float = 0.2
    demote_s: float = 600.0
    share_min: float = 0.05


class Temperature(msgspec.Struct, frozen=True):
    """The heat of one account, the time (seconds on the caller's clock) at which it began, and the utilisation."""

    heat: Heat
    since: float
    utilisation: float = 0.0


class Signal(msgspec.Struct):
    """The load of one account, summed over all workers. `share`: the account's part of all arrivals."""

    utilisation: float = 0.0
    share: float = 0.0
    widened: int = 0


COLD = Temperature(Heat.COLD, 0.0)


def merge(reports: Sequence[Report]) -> dict[int, Signal]:
    """Return the sum of all workers' reports, by account number."""
    arrivals = sum(report.arrivals / report.seconds for report in reports if report.seconds > 0)
    signals: dict[int, Signal] = {}
    for report in reports:
        if report.seconds <= 0:
            continue
        for warm in report.hottest:
            signal = signals.setdefault(warm.account_number, Signal())
            signal.utilisation += warm.busy_s / report.seconds
            signal.share += warm.arrivals / report.seconds / arrivals if arrivals else 0.0
            signal.widened += warm.widened
    return signals


def step(now: Temperature, signal: Signal, at: float, thresholds: Thresholds) -> Temperature:
    """Return the heat of an account after one more observation."""
    up = signal.utilisation >= thresholds.promote and signal.share >= thresholds.share_min
    down = signal.utilisation < thresholds.demote
    heat, since = now.heat, now.since
    if heat is Heat.COLD and up:
        heat, since = Heat.WARMING, at
    elif heat is Heat.WARMING and not up:
        heat, since = Heat.COLD, at
    elif heat is Heat.WARMING and at - since >= thresholds.promote_s:
        heat, since = Heat.HOT, at
    elif heat is Heat.HOT and down:
        heat, since = Heat.COOLING, at
    elif heat is Heat.COOLING and not down:
        heat, since = Heat.HOT, at
    elif heat is Heat.COOLING and at - since >= thresholds.demote_s:
        heat, since = Heat.COLD, at
    return Temperature(heat, since, signal.utilisation)
