"""Detection of hot accounts: pure functions over the load reports of all workers and a clock passed as an argument.

The signal is utilisation: the share of time in which a batch with the account is in a database transaction, summed over
all workers. At a utilisation near one, batches with the account wait for each other. A minimum share of the arrivals is
required as well, because in large batches every account has a high utilisation.

    cold -> warming -> hot -> cooling -> cold

The thresholds for promotion and demotion differ and each must hold for some time, so that accounts do not flap.
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
    """Thresholds of utilisation, and for how many seconds each must hold, for promotion and demotion.

    `share_min` is the share of all arrivals that promotion requires.
    """

    promote: float = 0.5
    promote_s: float = 3.0
    demote: float = 0.2
    demote_s: float = 600.0
    share_min: float = 0.05


class Temperature(msgspec.Struct, frozen=True):
    """The heat of one account, since when (seconds on the caller's clock), and its last utilisation."""

    heat: Heat
    since: float
    utilisation: float = 0.0


class Signal(msgspec.Struct):
    """The load of one account, summed over all workers."""

    utilisation: float = 0.0
    share: float = 0.0
    widened: int = 0


COLD = Temperature(Heat.COLD, 0.0)


def merge(reports: Sequence[Report]) -> dict[int, Signal]:
    """Sum the reports of all workers, by account number."""
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
