"""Adaptive concurrency limit of one request class in the load shedder, derived from latency and throughput.

Latency alone does not distinguish overload from a slow database. A group commit has latency without any queue. If a
commit takes 50 ms longer, a lower limit does not make the answers faster. Little's law distinguishes the two cases:

- With a queue, the latency is proportional to the requests in flight. Half the requests give the same throughput.
- With slow work, the latency does not depend on the requests in flight. Half the requests give half the throughput.

`Queueing` measures which case applies.
"""

from collections.abc import Sequence
from typing import Final

from fundledger.ratelimit.classes import CRITICAL, RANKS, ApiClass
from fundledger.ratelimit.shedding.fairness import Shares

LIMIT_MIN: Final = 2
SAMPLES_MIN: Final = 10
"""Minimum number of ended requests for a mean latency. A window lasts until this many requests have ended."""
CUT: Final = 0.9
"""Maximum factor by which a limit is multiplied when it is lowered: the limit falls by at least a tenth."""
GROWTH: Final = 25
"""A limit is raised by 1 / GROWTH of its value (4 %), and at least by 1."""
QUIET: Final = 8
QUIET_WINDOWS: Final = 10
"""A class with at most QUIET requests in flight in each of QUIET_WINDOWS windows has no queue of its own."""
BASELINES: Final = 8
"""Target latency as a multiple of the baseline. A commit that waits for the previous one takes two baselines; the rest
allows for variation."""
BASELINES_MIN: Final = 3
"""Minimum target as a multiple of the baseline. A limit is raised if the latency is below half of the target. Half of
the target must therefore exceed the latency without a queue."""
TARGETS: Final = 5
"""Maximum target as a multiple of the configured target, however slow the database is (exception: see `close`)."""
DROPPED_TARGETS: Final = 10
"""The latency of a dropped request counts as this multiple of the target. One dropped request in ten is then
overload."""
RATE: Final = 0.3
"""Weight of the last window in the average rate. An average is needed, because one window has only zero to two
batches."""
FORGET: Final = 0.8
"""Factor by which the recent latency is multiplied after each window without answers."""
ALONE_S: Final = 1.0
"""Time (s) without arrivals, or the target latency if that is longer. After this time missing answers are ignored,
because no queue forms."""
SLOW: Final = 0.5
"""A baseline is raised only if at least this part of the latency is not queueing. A smaller part is noise."""


class ConcurrencyLimiter:
    """Concurrency limiter of one request class: requests in flight, the limit, and the latencies of the current window.

    `mean_s`, `used` and `target_s` are values of the last window. `mean_s` is None if too few requests ended in it.

    The baseline is an estimate of the latency without queueing. The baseline falls when the mean of a window is lower,
    and rises only when queueing is excluded. If the baseline rose with the latency, an hour of overload would count as
    normal.
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
        """Return the number of requests that ended since the last tick, which may be too few for a mean."""
        return self.ended - self._rated

    def close(self, silent_s: float, elapsed_s: float, lag_s: float, target_s: float) -> None:
        """Update the averages and the target. If enough requests ended in the window, also begin a new window.

        `silent_s`: the silence (s) from `Silence.window`. `lag_s`: the event loop lag (s).

        The new target is BASELINES times the baseline, but at least `target_s`. The maximum of the new target is
        TARGETS times `target_s`, or BASELINES_MIN times the baseline if that is more. Without the second maximum, a
        class whose requests always take seconds would always be overloaded.
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
            # Requests that are rejected because of their deadline give no latency. Without the decay, no request with a
            # deadline would be admitted again.
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
        """Return whether the last mean latency was below half of the target.

        Also return True if since then no request was in flight, or if all requests in flight hang.
        """
        return self._calm

    def learn(self, part: float) -> None:
        """Raise the baseline to `part` of the last window's mean latency. `part`: the fraction without queueing."""
        if self.mean_s is not None:
            self._baseline_s = max(self._baseline_s, part * self.mean_s)

    def excess(self) -> float:
        """Return the number of requests in flight beyond those that can end within the target at the current rate."""
        return max(0.0, self.in_flight - self.rate * self.target_s)

    def cut(self, excess: float) -> float:
        """Lower the limit by `excess` requests, and at least by a tenth. Return the reduction.

        If the limit is above `used`, the highest number of requests in flight, the reduction begins at `used`.
        Without this rule, the reduction of a limit far above `used` would have no effect for seconds.
        """
        before = min(self.limit, self.used)
        self._set(max(LIMIT_MIN, min(self.limit, int(min(CUT * before, before - excess)))))
        return max(0.0, before - self.limit)

    def grow(self) -> None:
        self._set(min(self.room, self.limit + max(1, self.limit // GROWTH)))

    def settle(self) -> None:
        """Lower the limit by one step towards 1.5 times `used`, but not below the initial limit.

        No request is rejected because of the lower limit.
        """
        wanted = max(self.start, self.used * 3 // 2)
        if wanted < self.limit:
            self._set(max(wanted, self.limit - max(1, self.limit // GROWTH)))

    def shut(self) -> None:
        self._set(LIMIT_MIN)

    def reopen(self) -> None:
        """Admit requests of the class again. The limit begins at LIMIT_MIN, and earlier latencies are forgotten."""
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
    """Silence: the time during which requests arrived and none was answered, over all classes that share a resource.

    Silence is counted only while at least SAMPLES_MIN requests are in flight and further requests arrive. A single
    request may be waiting for its own client, and a burst of simultaneous requests proves nothing. A pause in the
    arrivals ends the silence.
    """

    __slots__ = ("_asked_at", "_in_flight", "_limiters", "_since")

    def __init__(self, limiters: Sequence[ConcurrencyLimiter]) -> None:
        self._limiters = limiters
        self._in_flight = 0
        self._since = self._asked_at = 0.0

    def window(self, now: float, target_s: float) -> float:
        """Return the silence in seconds, or 0 if it is not counted. Call it before `close` of the limiters."""
        before, self._in_flight = self._in_flight, sum([limiter.in_flight for limiter in self._limiters])
        if self._in_flight > before or any(limiter.full for limiter in self._limiters):
            self._asked_at = now
        alone = now - self._asked_at > max(target_s, ALONE_S)
        if alone or not before or any(limiter.answered() for limiter in self._limiters):
            self._since = now
        return max(0.0, self._asked_at - self._since) if self._in_flight >= SAMPLES_MIN else 0.0


class Queueing:
    """Distinction of queueing from slow work, by the throughput (1/s) and the requests in flight (Little's law).

    Both numbers are averages computed from the same ended requests, so they are consistent with each other.
    """

    __slots__ = ("_in_flight", "_peak", "_peak_rate", "_rate")

    def __init__(self) -> None:
        self._rate = self._in_flight = self._peak = self._peak_rate = 0.0

    def window(self, ended: int, total_s: float, elapsed_s: float) -> None:
        """Update the averages.

        The averages extend over about half a second, because one window has only zero to two batches.
        """
        weight = min(1.0, 2 * elapsed_s)
        self._rate += weight * (ended / elapsed_s - self._rate)
        self._in_flight += weight * (total_s / elapsed_s - self._in_flight)

    def calm(self) -> None:
        self._peak = 0.0

    def watch(self) -> None:
        """Record a new peak of the requests in flight. Call it while the latency is too high."""
        if self._in_flight >= self._peak:
            self.restart()

    def restart(self) -> None:
        self._peak, self._peak_rate = self._in_flight, self._rate

    def unqueued(self) -> float | None:
        """Return the part of the latency that is not queueing, as a fraction from 0 to 1.

        Return None if there was no peak since `calm`, or if the requests in flight have not halved since the peak.

        The two points (requests in flight, latency), at the peak and now, define a line. The latency of this line at
        zero requests in flight is the latency of the work.
        """
        if not self._peak or not self._peak_rate or self._in_flight > self._peak / 2:
            return None
        lost_rate = max(0.0, self._peak_rate - self._rate)
        return min(1.0, self._peak / self._peak_rate * lost_rate / (self._peak - self._in_flight))
