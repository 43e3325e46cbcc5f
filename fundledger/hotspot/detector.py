"""Detection of hot accounts: pure functions of the time and of all workers' load reports.

The signal is the utilisation of an account: the share of time in which a batch that contains the account is in a
database transaction, summed over all workers. At a utilisation near 1, the batches that contain the account wait for
each other. If batches are large, every account in them has a high utilisation. A hot account must therefore also have a
minimum share of the arrivals.

    cold -> warming -> hot -> cooling -> cold

An account becomes hot after its utilisation has been high for some time, and cold after its utilisation has been low
for some time. The threshold for hot is higher than the threshold for cold. The two times and the gap between the
thresholds prevent repeated changes between hot and cold.
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
    """Conditions under which an account becomes hot (promotion) or cold (demotion).

    - `promote`, `promote_s`: for promotion, the utilisation must be at least `promote` for `promote_s` seconds
    - `demote`, `demote_s`: for demotion, the utilisation must be below `demote` for `demote_s` seconds
    - `share_min`: the fraction of all arrivals that an account must also have for promotion
    """

    promote: float = 0.5
    promote_s: float = 3.0
    demote: float = 0.2
    demote_s: float = 600.0
    share_min: float = 0.05


class Temperature(msgspec.Struct, frozen=True):
    """The heat and the utilisation of one account. The heat began at `since`, in seconds on the caller's clock."""

    heat: Heat
    since: float
    utilisation: float = 0.0


class Signal(msgspec.Struct):
    """The load of one account, summed over all workers.

    `share`: the account's fraction of all arrivals. `widened`: the number of batches that needed more than one slot.
    """

    utilisation: float = 0.0
    share: float = 0.0
    widened: int = 0


COLD = Temperature(Heat.COLD, 0.0)


def merge(reports: Sequence[Report]) -> dict[int, Signal]:
    """Add up the reports of all workers. Return the load of each account, by account number."""
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
    """Return the heat of an account after one more observation, made at the time `at`."""
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
