"""Load shedder of one worker: rejects requests of the lowest ranks first, and of merchants beyond their fair share.

The shedder is synchronous and does no I/O. Call `enter` and `leave` around each request, and `tick` about ten times a
second. See ADR 17.
"""

from typing import Final

from fundledger.ratelimit.classes import CRITICAL, RANKS, ApiClass
from fundledger.ratelimit.shedding.concurrency import (
    LIMIT_MIN,
    QUIET_WINDOWS,
    SLOW,
    ConcurrencyLimiter,
    Queueing,
    Silence,
)
from fundledger.ratelimit.shedding.level import LOWER_S, ShedLevel
from fundledger.ratelimit.stats import Shed

WINDOW_S: Final = 0.1
ROOM: Final = (1.0, 0.8, 0.75, 0.7, 0.65, 0.6)
"""Part of `concurrency_max`, by rank. A request is admitted while fewer requests are in flight in the worker.
Throughput is shared in proportion to the requests in flight. The critical classes (rank 0) therefore always have at
least a fifth of the throughput."""
LANES: Final = CRITICAL | {ApiClass.PAYMENT}
"""Classes whose requests share the lanes. A queue in the lanes is visible only in the sum of these classes."""
HELPLESS_S: Final = 1.0
"""If no lower rank can be throttled further, the critical classes are throttled after this time (s) of overload."""
HELPLESS_LATENCIES: Final = 3
"""The same time as a multiple of the latency; the longer of the two applies. Requests that were admitted earlier need
one latency to end, and the requests queued behind them another one."""
LOWEST: Final = max(RANKS.values())
IDLE: Final = 8
"""A worker with at most IDLE requests in flight has no queue. If it is slow, the machine or the database is slow."""


class Shedder:
    """Load shedder: admits or rejects requests according to the latencies of earlier requests.

    Each class has a concurrency limiter. If the latency of a class exceeds its target, the limits of one rank are
    lowered (the rank is throttled). It is the lowest rank that is active, is not more important than the class, and has
    a limit above the minimum. Classes share the lanes, so the load is reduced where it is least important instead of
    where the latency appears. The critical classes are throttled only if no other class can be throttled. The limits of
    other classes are raised as needed.

    If the load is too high although all limits are at their minimum, the shed level (`level.ShedLevel`) rejects whole
    ranks.
    """

    __slots__ = (
        "_by_rank",
        "_helpless_s",
        "_in_flight",
        "_level",
        "_limiters",
        "_on",
        "_queueing",
        "_rank_max",
        "_shut_out",
        "_silences",
        "_target_s",
        "_ticked_at",
        "_turned_away",
    )

    def __init__(self, target_s: float = 0.1, concurrency_max: int = 4000, on: bool = True) -> None:
        self._target_s = target_s
        self._on = on
        self._limiters = {
            api_class: ConcurrencyLimiter(
                api_class, target_s, _start(rank, concurrency_max), int(ROOM[rank] * concurrency_max)
            )
            for api_class, rank in RANKS.items()
        }
        self._by_rank = [[g for g in self._limiters.values() if g.rank == rank] for rank in range(LOWEST + 1)]
        self._level = ShedLevel(LOWEST)
        limiters = list(self._limiters.values())
        lanes = [limiter for limiter in limiters if limiter.api_class in LANES]
        self._queueing = [(Queueing(), lanes), (Queueing(), limiters)]
        self._silences = [
            (Silence(of), of) for of in [lanes, *([limiter] for limiter in limiters if limiter not in lanes)]
        ]
        self._rank_max = LOWEST
        self._in_flight = 0
        self._helpless_s = 0.0
        self._ticked_at: float | None = None
        self._shut_out = self._turned_away = 0

    @property
    def level(self) -> int:
        """Return the shed level: the number of lowest ranks that are rejected while any other request is in flight.

        The level never rejects the critical classes.
        """
        return self._level.level

    def enter(
        self,
        api_class: ApiClass,
        merchant: str | None,
        now: float,  # noqa: ARG002, callers have it, and replacements in tests may decide by it
        budget_s: float | None = None,
    ) -> str | None:
        """Admit a request, or return the reason for its rejection.

        If the result is None, call `leave` once with the same class and merchant. The reasons are:

        - "worker": the shed level rejects the rank, and another request is in flight.
        - "deadline": the remaining time (`budget_s`) is over, or the recent latency exceeds half of it.
        - "fleet": too many requests of all classes are in flight in this worker for a request of this rank.
        - "concurrency": the class is at its limit, or the merchant exceeds its fair share.

        `now` is in monotonic seconds. Without a merchant, fair shares are not checked.
        """
        limiter = self._limiters[api_class]
        in_flight = limiter.in_flight
        if self._on:
            reason = None
            if limiter.rank > self._rank_max and self._in_flight:
                reason = "worker"
            elif budget_s is not None and (budget_s <= 0.0 or limiter.recent_s > 0.5 * budget_s):
                reason = "deadline"
            elif self._in_flight >= limiter.room:
                reason = "fleet"
            elif in_flight >= limiter.limit:
                reason = "concurrency"
                limiter.full = True
            elif (
                in_flight >= limiter.lent and merchant is not None and limiter.shares.is_spent(merchant, limiter.limit)
            ):
                reason = "concurrency"
            if reason is not None:
                limiter.shed[reason] += 1
                return reason
        in_flight += 1
        limiter.in_flight = in_flight
        if in_flight > limiter.in_flight_max:  # noqa: PLR1730, as in `fairness`
            limiter.in_flight_max = in_flight
        self._in_flight += 1
        if merchant is not None:
            limiter.shares.enter(merchant)
        return None

    def leave(self, api_class: ApiClass, merchant: str | None, seconds: float, *, dropped: bool = False) -> None:
        """Record that an admitted request ended. `seconds`: the time since the request was read.

        `dropped`: the request ended by a server fault or a timeout. Do not call it for rejected requests: the duration
        of a rejection says nothing about the load.
        """
        limiter = self._limiters[api_class]
        assert limiter.in_flight > 0, "a request left that never entered"
        if merchant is not None:
            limiter.shares.leave(merchant)
        limiter.in_flight -= 1
        self._in_flight -= 1
        limiter.ended += 1
        limiter.total_s += max(seconds, limiter.lost_s) if dropped else seconds

    def tick(self, now: float, loop_lag_s: float) -> None:
        """End a window, and adjust the limits and the shed level. Call it about every 100 ms.

        A call less than 50 ms after the last one has no effect. `loop_lag_s`: event loop lag. After a window in which
        the worker was idle, no limit is lowered and the level is not raised.
        """
        if not self._on:
            return
        if self._ticked_at is None:
            self._ticked_at = now
            return
        elapsed_s = now - self._ticked_at
        if elapsed_s < WINDOW_S / 2:
            return
        self._ticked_at = now
        idle = self._is_idle()
        if idle:
            loop_lag_s = 0.0
        for silence, limiters in self._silences:
            silent_s = silence.window(now, self._target_s)
            for limiter in limiters:
                limiter.close(silent_s, elapsed_s, loop_lag_s, self._target_s)
        over = [limiter for limiter in self._limiters.values() if limiter.is_over()]
        late = loop_lag_s > self._target_s
        slow = 0 if late else None if idle else min((limiter.rank for limiter in over), default=None)
        calm = loop_lag_s < self._target_s / 2 and all(limiter.is_calm() for limiter in self._limiters.values())
        self._learn_baselines(elapsed_s, over, calm=calm)
        lowest = max((limiter.rank for limiter in self._limiters.values() if limiter.used), default=0)
        throttled = self._payer(slow or 0, lowest, max((limiter.mean_s or 0.0 for limiter in over), default=0.0))
        self._move_limits(throttled, calm=calm)
        helpless = slow == 0 and throttled in (0, LOWEST + 1) and (late or self._is_too_much())
        self._helpless_s = self._helpless_s + elapsed_s if helpless else 0.0
        if slow is not None:
            self._make_room(slow, throttled, over)
        stuck = late or (slow is not None and self._is_at_floor(lowest))
        self._move_level(now, stuck=stuck and max(slow or 0, 1) <= self._rank_max, calm=calm)

    def is_shut(self, api_class: ApiClass) -> bool:
        """Return whether the shed level rejects a request of this class. If so, count the request as rejected.

        Return False if no other request is in flight.
        """
        shut = self._on and RANKS[api_class] > self._rank_max and self._in_flight > 0
        self._shut_out += shut
        return shut

    def retry_after_s(self, api_class: ApiClass) -> int:
        """Return the seconds after which a rejected request should be retried.

        The result is 1 plus the shed level, plus the minimum time until the level admits the class again.
        """
        return 1 + self._level.level + int(LOWER_S) * max(0, RANKS[api_class] - self._rank_max)

    def counted(self) -> Shed:
        return Shed(
            shed={
                f"{c} {reason}": n for c, limiter in self._limiters.items() for reason, n in limiter.shed.items() if n
            },
            in_flight={str(c): limiter.in_flight for c, limiter in self._limiters.items()},
            limit={str(c): limiter.limit for c, limiter in self._limiters.items()},
            level=self._level.level,
            level_changes=self._level.changes,
        )

    def _is_idle(self) -> bool:
        """Return whether at most IDLE requests were in flight in the ending window and none was rejected.

        Rejected requests are checked separately, because they use time of the event loop but are never in flight.
        """
        before, limiters = self._turned_away, self._limiters.values()
        self._turned_away = self._shut_out + sum([n for limiter in limiters for n in limiter.shed.values()])
        return self._turned_away == before and sum([limiter.in_flight_max for limiter in limiters]) <= IDLE

    def _learn_baselines(self, elapsed_s: float, over: list[ConcurrencyLimiter], *, calm: bool) -> None:
        """Raise the baselines if queueing is excluded, both for the classes of the lanes and for all classes together.

        Both are required, because requests in the lanes may wait behind other classes, and other classes may have a
        queue outside of the lanes.
        """
        for queueing, limiters in self._queueing:
            queueing.window(sum(g.window_ended for g in limiters), sum(g.window_s for g in limiters), elapsed_s)
            if calm:
                queueing.calm()
            elif over:
                queueing.watch()
        parts = [part for queueing, _ in self._queueing if (part := queueing.unqueued()) is not None]
        if over and len(parts) == len(self._queueing):
            for queueing, _ in self._queueing:
                queueing.restart()
            for limiter in self._limiters.values() if min(parts) >= SLOW else ():
                limiter.learn(min(parts))
        # A class of the lanes is stalled if it gets no answers, because lanes are fast. Its latency is no baseline.
        alone = [g for g in over if g.quiet >= QUIET_WINDOWS and (g.window_ended or g.api_class not in LANES)]
        if all(limiter in alone or limiter.is_calm() for limiter in self._limiters.values()):
            for limiter in alone:
                limiter.learn(1.0)

    def _payer(self, slow: int, lowest: int, latency_s: float) -> int:
        """Return the rank to throttle: the lowest active rank with a limit above the minimum.

        Return LOWEST + 1 if there is none, and 0 only if the critical classes have to be throttled. `slow` is the most
        important rank above its target, `lowest` the lowest active rank.
        """
        for rank in range(lowest, max(slow, 1) - 1, -1):
            if any(limiter.used and limiter.limit > LIMIT_MIN for limiter in self._by_rank[rank]):
                return rank
        helpless = self._helpless_s > max(HELPLESS_S, HELPLESS_LATENCIES * latency_s)
        return 0 if slow == 0 and (lowest == 0 or helpless) else LOWEST + 1

    def _move_limits(self, throttled: int, *, calm: bool) -> None:
        """Raise the limits of classes that need more, and lower unused limits of the other classes.

        A class needs more if it uses half of its limit, or if its limit is below the initial one. The limit of such a
        class is raised if the class and all more important classes are calm, or if the class is more important than the
        throttled rank.
        """
        room = True
        for limiters in self._by_rank[: self._rank_max + 1]:
            room = room and all(limiter.is_calm() for limiter in limiters)
            for limiter in limiters:
                pressed = 2 * limiter.used >= limiter.limit
                if (room and (calm or limiter.mean_s is not None)) or (pressed and limiter.rank < throttled <= LOWEST):
                    if pressed or limiter.limit < limiter.start:
                        limiter.grow()
                elif limiter.rank >= throttled and not limiter.is_over():
                    limiter.settle()

    def _make_room(self, slow: int, throttled: int, over: list[ConcurrencyLimiter]) -> None:
        """Lower limits by the number of requests in flight beyond the target (Little's law), the lowest rank first.

        The limits of the lowest throttled rank are lowered at least by a tenth. All limits together are lowered at most
        by half of the requests in flight. A worker that is far above its target therefore reaches the target within
        some windows.
        """
        excess = min(sum(g.excess() for g in over), sum(g.in_flight for g in over) / 2)
        for rank in range(min(throttled, LOWEST), min(throttled, max(slow, 1)) - 1, -1):
            limiters = [limiter for limiter in self._by_rank[rank] if limiter.used]
            used = sum(limiter.used for limiter in limiters)
            excess -= sum([limiter.cut(max(0.0, excess) * limiter.used / used) for limiter in limiters])
            if excess <= 0:
                return

    def _is_too_much(self) -> bool:
        """Return whether more requests are in flight in the lanes than can end within the target.

        If the result is False, only requests that were admitted earlier are late.
        """
        lanes = [limiter for limiter in self._limiters.values() if limiter.api_class in LANES]
        return sum(g.in_flight for g in lanes) > sum(g.rate * g.target_s for g in lanes)

    def _is_at_floor(self, rank: int) -> bool:
        return rank > 0 and all(limiter.limit <= LIMIT_MIN for limiter in self._by_rank[rank] if limiter.used)

    def _move_level(self, now: float, *, stuck: bool, calm: bool) -> None:
        shut_before = self._rank_max
        moved = self._level.tick(now, stuck=stuck, calm=calm)
        self._rank_max = LOWEST - self._level.level
        if moved > 0:
            for limiter in self._by_rank[shut_before]:
                limiter.shut()
        elif moved < 0:
            for limiter in self._by_rank[self._rank_max]:
                limiter.reopen()


def _start(rank: int, concurrency_max: int) -> int:
    """Return the initial limit of a class: a half, a quarter or a tenth of `concurrency_max`, by rank.

    A worker whose latency is at the target has about half of `concurrency_max` in flight.
    """
    parts = (2, 4)
    return max(LIMIT_MIN, concurrency_max // (parts[rank] if rank < len(parts) else 10))
