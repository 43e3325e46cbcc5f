"""How many requests of one class may be in flight at once: a limit found by what the latency does.

Latency alone does not tell too much load from a slow database: a group commit has latency without any queue, and where
one commit takes 50 ms more, fewer requests in flight are answered no sooner. What tells them apart is Little's law. In
a queue the latency is in proportion to what is in flight, and letting in half of it costs no throughput; where it is
the work itself that is slow, half in flight is half the throughput at the same latency. `Queueing` compares just that.
"""

from collections.abc import Sequence
from typing import Final

from fundledger.ratelimit.classes import CRITICAL, RANKS, ApiClass
from fundledger.ratelimit.fairness import Shares

LIMIT_MIN: Final = 2
SAMPLES_MIN: Final = 10
"""Fewer do not make a mean: a window lasts until it has them."""
CUT: Final = 0.9
GROWTH: Final = 25
"""A limit grows by this fraction of itself, 4 %, or by 1."""
QUIET: Final = 8
QUIET_WINDOWS: Final = 10
"""A class that had at most QUIET in flight in so many windows has no queue of its own."""
BASELINES: Final = 8
"""The target is so many baselines: a commit that waits for the one before takes two, the rest is spread."""
BASELINES_MIN: Final = 3
"""A class grows below half of its target: that must be more than it takes when it waits for nobody."""
TARGETS: Final = 5
"""However slow the database, so many times the usual target is too slow (but see `Gate.close`)."""
DROPPED_TARGETS: Final = 10
"""A request that was lost counts as one that took so many targets: one in ten is overload."""
RATE: Final = 0.3
"""Weight of the last window in the rate: one holds one batch, or two, or none."""
FORGET: Final = 0.8
"""What is known of the latency fades by so much with each window in which nobody was answered."""
ALONE_S: Final = 1.0
"""Who waits while nobody else has come for so long, or for the target, does not show what others would wait."""
SLOW: Final = 0.5
"""What does not come from a queue is believed in from this part of the latency on: less is noise of the rates."""


class Gate:
    """The requests in flight of one class, its limit, and the latencies of the window since the last tick.

    `mean_s`, `used` and `target_s` are those of the last window; `mean_s` is None when too few requests ended. The
    baseline is how long a request takes that waits for nobody else: it falls with the means of windows, and rises only
    on evidence, since a baseline that follows the latency forgets in an hour of overload that there is any.
    """

    __slots__ = (
        "_baseline_s",
        "_calm",
        "_rated",
        "_rated_s",
        "_unanswered",
        "api_class",
        "critical",
        "ended",
        "full",
        "in_flight",
        "in_flight_max",
        "lent",
        "limit",
        "lost_s",
        "mean_s",
        "quiet",
        "rank",
        "rate",
        "recent_s",
        "room",
        "shares",
        "shed",
        "start",
        "target_s",
        "total_s",
        "used",
        "window_ended",
        "window_s",
    )

    def __init__(self, api_class: ApiClass, target_s: float, start: int, room: int) -> None:
        self.api_class = api_class
        self.rank = RANKS[api_class]
        self.critical = api_class in CRITICAL
        self.shares = Shares()
        self.shed = {"concurrency": 0, "fleet": 0, "worker": 0, "deadline": 0}
        self.start = start
        self.in_flight = self.in_flight_max = self.used = self.ended = 0
        self.window_ended = self.quiet = self._rated = self._unanswered = 0
        self.rate = self._rated_s = 0.0
        self.total_s = self.recent_s = self.window_s = 0.0
        self.mean_s: float | None = None
        self.target_s = target_s
        self.lost_s = DROPPED_TARGETS * target_s
        self.room = room
        self.full = False
        self._calm = True
        self._baseline_s = 0.0
        self._set(start)

    def answered(self) -> int:
        """How many ended since the last tick, which may be too few for a mean."""
        return self.ended - self._rated

    def close(self, silent_s: float, elapsed_s: float, lag_s: float, target_s: float) -> None:
        """End the window, if enough requests ended in it. `silent_s`: see `Silence`.

        The target is `target_s` or BASELINES times the baseline, at most TARGETS times `target_s`; and never less than
        BASELINES_MIN baselines, since a class that takes seconds by nature would else be overload when it is alone.
        """
        ended, answered, self.used = self.ended, self.answered(), self.in_flight_max
        self.mean_s = None
        self.quiet = self.quiet + 1 if self.used <= QUIET else 0
        self.window_ended, self.window_s = 0, 0.0
        self.rate += (RATE if self.rate else 1.0) * (answered / elapsed_s - self.rate)
        if answered:
            self.recent_s = (self.total_s - self._rated_s) / answered
            self._unanswered = 0
        else:
            # Who is turned away for its deadline is no sample: without this, nobody would ever be let in again.
            self.recent_s *= FORGET
            self._unanswered += 1
            if silent_s > self.target_s and self.in_flight > 1:
                self.mean_s = self.recent_s = silent_s
        self._rated, self._rated_s = ended, self.total_s
        if ended >= SAMPLES_MIN:
            self.mean_s = self.total_s / ended + lag_s
            self._baseline_s += 0.1 * min(0.0, self.mean_s - self._baseline_s)
            self.window_ended, self.window_s = ended, self.total_s
            self._restart()
        self.in_flight_max = self.in_flight
        self.shares.window(was_full=self.full)
        self.full = False
        self.lent = int(self.shares.lent * self.limit)
        longest_s = max(TARGETS * target_s, BASELINES_MIN * self._baseline_s)
        self.target_s = max(target_s, min(BASELINES * self._baseline_s, longest_s))
        if self.mean_s is not None:
            self._calm = self.mean_s < self.target_s / 2
        elif not self.used or (self._unanswered >= QUIET_WINDOWS and not silent_s):
            self._calm = True

    def is_over(self) -> bool:
        return self.mean_s is not None and self.mean_s > self.target_s

    def is_calm(self) -> bool:
        """Below half of the target when it was last known, or nothing in flight since but what hangs."""
        return self._calm

    def learn(self, part: float) -> None:
        """So much of the last window's mean was no queue."""
        if self.mean_s is not None:
            self._baseline_s = max(self._baseline_s, part * self.mean_s)

    def excess(self) -> float:
        """How many more are in flight than leave within the target at the present rate."""
        return max(0.0, self.in_flight - self.rate * self.target_s)

    def cut(self, excess: float) -> float:
        """Make room for `excess` requests, at least a tenth of its own; returns what it has made.

        From what was used, not from what was allowed: a limit far above it would take seconds to be felt.
        """
        before = min(self.limit, self.used)
        self._set(max(LIMIT_MIN, min(self.limit, int(min(CUT * before, before - excess)))))
        return max(0.0, before - self.limit)

    def grow(self) -> None:
        self._set(min(self.room, self.limit + max(1, self.limit // GROWTH)))

    def settle(self) -> None:
        """Down to one and a half of what is used, at most to the start: nobody is turned away by that."""
        wanted = max(self.start, self.used * 3 // 2)
        if wanted < self.limit:
            self._set(max(wanted, self.limit - max(1, self.limit // GROWTH)))

    def shut(self) -> None:
        self._set(LIMIT_MIN)

    def reopen(self) -> None:
        """Let in again: from the floor, and with nothing remembered of the time of too much."""
        self._set(LIMIT_MIN)
        self.recent_s = 0.0
        self._restart()

    def _restart(self) -> None:
        self.ended = self._rated = 0
        self.total_s = self._rated_s = 0.0

    def _set(self, limit: int) -> None:
        self.limit = limit
        self.lent = int(self.shares.lent * limit)


class Silence:
    """For how long requests that wait for the same, be they of one class or of several, came and none was answered.

    One request tells nothing: it may wait for its own client. Nor do many that came at one time: it takes SAMPLES_MIN
    in flight, and others that go on coming. When nobody has come for a while, it starts anew.
    """

    __slots__ = ("_asked_at", "_gates", "_in_flight", "_since")

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = gates
        self._in_flight = 0
        self._since = self._asked_at = 0.0

    def window(self, now: float, target_s: float) -> float:
        """Seconds; 0 when there is nothing to tell. To be asked before the gates close the window."""
        before, self._in_flight = self._in_flight, sum([gate.in_flight for gate in self._gates])
        if self._in_flight > before or any(gate.full for gate in self._gates):
            self._asked_at = now
        alone = now - self._asked_at > max(target_s, ALONE_S)
        if alone or not before or any(gate.answered() for gate in self._gates):
            self._since = now
        return max(0.0, self._asked_at - self._since) if self._in_flight >= SAMPLES_MIN else 0.0


class Queueing:
    """Tells a queue from slow work, by the throughput (1/s) and what is in flight (throughput times latency).

    Both are taken from requests that ended, so that they belong together however far the latency lags behind.
    """

    __slots__ = ("_in_flight", "_peak", "_peak_rate", "_rate")

    def __init__(self) -> None:
        self._rate = self._in_flight = self._peak = self._peak_rate = 0.0

    def window(self, ended: int, total_s: float, elapsed_s: float) -> None:
        """Averages over about half a second: a window holds one batch, or two, or none."""
        weight = min(1.0, 2 * elapsed_s)
        self._rate += weight * (ended / elapsed_s - self._rate)
        self._in_flight += weight * (total_s / elapsed_s - self._in_flight)

    def calm(self) -> None:
        self._peak = 0.0

    def watch(self) -> None:
        """While the latency is too high: remember when most was in flight."""
        if self._in_flight >= self._peak:
            self.restart()

    def restart(self) -> None:
        self._peak, self._peak_rate = self._in_flight, self._rate

    def unqueued(self) -> float | None:
        """Which part of the latency is no queue, 0 to 1. None until half of what was in flight is gone, and where
        nothing was in flight since `calm`.

        The line through (in flight, latency) at the peak and now meets zero in flight at the latency of the work.
        """
        if not self._peak or not self._peak_rate or self._in_flight > self._peak / 2:
            return None
        lost_rate = max(0.0, self._peak_rate - self._rate)
        return min(1.0, self._peak / self._peak_rate * lost_rate / (self._peak - self._in_flight))
