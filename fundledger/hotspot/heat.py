"""Heavy-hitter sampler of hot accounts: tracks the accounts to which a worker posts most, in bounded memory.

Arrivals are counted by the Space-Saving algorithm (`fundledger/heavy_hitters.py`). If a batch has more than SAMPLE
commands, only every n-th command is counted, with weight n. The number n is chosen so that at most SAMPLE commands are
counted.
"""

from collections.abc import Sequence

import msgspec

from fundledger.heavy_hitters import SpaceSaving
from fundledger.ledger.model.batch import Command
from fundledger.ledger.model.voucher import Voucher

CAPACITY = 64
SAMPLE = 64
SHOWN = 16


class Warm(msgspec.Struct, array_like=True, frozen=True):
    """The load of one account in one report of one worker.

    - `arrivals`: number of voucher lines on the account
    - `busy_s`: total duration (s) of the batches that contain the account
    - `widened`: number of batches that needed more than one slot of the account
    """

    account_number: int
    arrivals: int
    busy_s: float
    widened: int = 0


class Report(msgspec.Struct, frozen=True):
    """The load of one worker since the worker's last report, which was `seconds` ago."""

    seconds: float
    arrivals: int
    hottest: list[Warm]


class HeatSampler:
    """The heavy-hitter sampler for all lanes of one worker. Each report resets the counters."""

    def __init__(self) -> None:
        self._top: SpaceSaving[int] = SpaceSaving(CAPACITY)
        self._busy: dict[int, float] = {}
        self._arrivals = 0

    def batch(self, commands: Sequence[Command], seconds: float) -> None:
        """Count a batch that was posted in `seconds`."""
        stride = (len(commands) + SAMPLE - 1) // SAMPLE
        seen: dict[int, int] = {}
        for command in commands[::stride]:
            if type(command) is Voucher:
                for account, amount in command.lines:
                    if not account.type.platform and not (account.buffered and amount > 0):
                        seen[account.number] = seen.get(account.number, 0) + stride
        self._arrivals += len(commands)
        busy = self._busy
        for number, count in seen.items():
            evicted = self._top.add(number, count)
            if evicted is not None:
                busy.pop(evicted, None)
            busy[number] = busy.get(number, 0.0) + seconds

    def report(self, seconds: float, widened: dict[int, int]) -> Report:
        """Return the load since the last report, which was `seconds` ago, and reset the counters.

        `widened[number]`: the number of batches that needed more than one slot of the account.
        """
        counts = self._top.counts
        shown = sorted(counts, key=lambda number: -self._busy.get(number, 0.0))[:SHOWN]
        shown += [number for number in widened if number not in shown]
        hottest = [
            Warm(number, counts.get(number, 0), round(self._busy.get(number, 0.0), 4), widened.get(number, 0))
            for number in shown
        ]
        report = Report(round(seconds, 3), self._arrivals, hottest)
        self._top = SpaceSaving(CAPACITY)
        self._busy = {}
        self._arrivals = 0
        return report
