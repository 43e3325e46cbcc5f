"""What one worker turns away when there is too much: the lowest first, and no merchant for the sake of another.

Pure and synchronous: `enter` and `leave` around each request, `tick` about ten times a second. See ADR 17.
"""

from typing import Final

from fundledger.ratelimit.classes import CRITICAL, RANKS, ApiClass
from fundledger.ratelimit.concurrency import LIMIT_MIN, QUIET_WINDOWS, SLOW, Gate, Queueing, Silence
from fundledger.ratelimit.counted import Shed
from fundledger.ratelimit.door import LOWER_S, Door

WINDOW_S: Final = 0.1
ROOM: Final = (1.0, 0.8, 0.75, 0.7, 0.65, 0.6)
"""By rank: it is let in while less than this part of `concurrency_max` is in flight. What a class gets of the
throughput is what it holds of the room: where others may hold all but a fifth, the critical ones get that fifth."""
LANES: Final = CRITICAL | {ApiClass.PAYMENT}
"""These wait for each other in the lanes, so that it is seen in them together whether there is a queue."""
HELPLESS_S: Final = 1.0
"""After so long in which nobody below them had anything left to give, the critical classes pay."""
HELPLESS_LATENCIES: Final = 3
"""But not before so many latencies: who was let in earlier is in the way for one, and then who waited behind them."""
LOWEST: Final = max(RANKS.values())
IDLE: Final = 8
"""A worker that had at most so many requests in flight has no queue: what was late is the machine or the database."""


class Shedder:
    """Who may come in, decided from how long those before took.

    Each class has a limit of what is in flight (`concurrency.Gate`). When a class takes longer than its target, the
    lowest rank pays that was let in, is not more important than that class, and has more than its floor: classes wait
    in the same lanes, so whoever is in the way must make room, not whoever feels it. The critical classes pay when
    nobody else was let in. Those that do not pay go on growing as they need.

    Above the limits stands the level (`door.Door`): for when ranks at their floors are still too many.
    """

    __slots__ = (
        "_by_rank",
        "_door",
        "_gates",
        "_helpless_s",
        "_in_flight",
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
        self._gates = {
            api_class: Gate(api_class, target_s, _start(rank, concurrency_max), int(ROOM[rank] * concurrency_max))
            for api_class, rank in RANKS.items()
        }
        self._by_rank = [[g for g in self._gates.values() if g.rank == rank] for rank in range(LOWEST + 1)]
        self._door = Door(LOWEST)
        gates = list(self._gates.values())
        lanes = [gate for gate in gates if gate.api_class in LANES]
        self._queueing = [(Queueing(), lanes), (Queueing(), gates)]
        self._silences = [(Silence(of), of) for of in [lanes, *([gate] for gate in gates if gate not in lanes)]]
        self._rank_max = LOWEST
        self._in_flight = 0
        self._helpless_s = 0.0
        self._ticked_at: float | None = None
        self._shut_out = self._turned_away = 0

    @property
    def level(self) -> int:
        """0: no rank is turned away at the door; n: the n lowest ranks are, while any other request is in flight. The
        critical classes never are.
        """
        return self._door.level

    def enter(
        self,
        api_class: ApiClass,
        merchant: str | None,
        now: float,  # noqa: ARG002, callers know it, and what stands in for this one in tests may decide by it
        budget_s: float | None = None,
    ) -> str | None:
        """None: it is in flight until `leave`, which must be called once with the same class and merchant.

        Else why not: "worker", the level, unless nothing else is in flight; "deadline", what is left of its time
        (`budget_s`) is gone, or more than half of it would be spent waiting; "fleet", the worker holds all that leaves
        room for this rank; "concurrency", the class holds as much as it may, or this merchant its share. `now` in
        monotonic seconds. A merchant None has no share to keep to.
        """
        gate = self._gates[api_class]
        in_flight = gate.in_flight
        if self._on:
            reason = None
            if gate.rank > self._rank_max and self._in_flight:
                reason = "worker"
            elif budget_s is not None and (budget_s <= 0.0 or gate.recent_s > 0.5 * budget_s):
                reason = "deadline"
            elif self._in_flight >= gate.room:
                reason = "fleet"
            elif in_flight >= gate.limit:
                reason = "concurrency"
                gate.full = True
            elif in_flight >= gate.lent and merchant is not None and gate.shares.is_spent(merchant, gate.limit):
                reason = "concurrency"
            if reason is not None:
                gate.shed[reason] += 1
                return reason
        in_flight += 1
        gate.in_flight = in_flight
        if in_flight > gate.in_flight_max:  # noqa: PLR1730, as in `fairness`
            gate.in_flight_max = in_flight
        self._in_flight += 1
        if merchant is not None:
            gate.shares.enter(merchant)
        return None

    def leave(self, api_class: ApiClass, merchant: str | None, seconds: float, *, dropped: bool = False) -> None:
        """What was let in has ended, `seconds` after it was read. `dropped`: by a fault or a time-out of ours.

        Who was turned away does not leave: how quickly somebody was told no says nothing about the others.
        """
        gate = self._gates[api_class]
        assert gate.in_flight > 0, "a request left that never entered"
        if merchant is not None:
            gate.shares.leave(merchant)
        gate.in_flight -= 1
        self._in_flight -= 1
        gate.ended += 1
        gate.total_s += max(seconds, gate.lost_s) if dropped else seconds

    def tick(self, now: float, loop_lag_s: float) -> None:
        """End a window: about every 100 ms; sooner than half of that does nothing. `loop_lag_s`: how late it is.

        A window in which the worker was idle takes nothing from any class and does not raise the level.
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
        for silence, gates in self._silences:
            silent_s = silence.window(now, self._target_s)
            for gate in gates:
                gate.close(silent_s, elapsed_s, loop_lag_s, self._target_s)
        over = [gate for gate in self._gates.values() if gate.is_over()]
        late = loop_lag_s > self._target_s
        hurt = 0 if late else None if idle else min((gate.rank for gate in over), default=None)
        calm = loop_lag_s < self._target_s / 2 and all(gate.is_calm() for gate in self._gates.values())
        self._tell_queue_from_slowness(elapsed_s, over, calm=calm)
        lowest = max((gate.rank for gate in self._gates.values() if gate.used), default=0)
        payer = self._payer(hurt or 0, lowest, max((gate.mean_s or 0.0 for gate in over), default=0.0))
        self._move_limits(payer, calm=calm)
        helpless = hurt == 0 and payer in (0, LOWEST + 1) and (late or self._is_too_much())
        self._helpless_s = self._helpless_s + elapsed_s if helpless else 0.0
        if hurt is not None:
            self._make_room(hurt, payer, over)
        stuck = late or (hurt is not None and self._is_at_floor(lowest))
        self._move_door(now, stuck=stuck and max(hurt or 0, 1) <= self._rank_max, calm=calm)

    def is_shut(self, api_class: ApiClass) -> bool:
        """Whether the level turns a request of this class away, which counts it as turned away. Not if nothing else is
        in flight.
        """
        shut = self._on and RANKS[api_class] > self._rank_max and self._in_flight > 0
        self._shut_out += shut
        return shut

    def retry_after_s(self, api_class: ApiClass) -> int:
        """When to ask again: a second more for each level, and while the class is shut out, until it may be let in."""
        return 1 + self._door.level + int(LOWER_S) * max(0, RANKS[api_class] - self._rank_max)

    def counted(self) -> Shed:
        return Shed(
            shed={f"{c} {reason}": n for c, gate in self._gates.items() for reason, n in gate.shed.items() if n},
            in_flight={str(c): gate.in_flight for c, gate in self._gates.items()},
            limit={str(c): gate.limit for c, gate in self._gates.items()},
            level=self._door.level,
            level_changes=self._door.changes,
        )

    def _is_idle(self) -> bool:
        """Whether in the window that ends at most IDLE requests were in flight and none was turned away.

        Requests that are turned away cost time of the loop, too, and are not in flight.
        """
        before, gates = self._turned_away, self._gates.values()
        self._turned_away = self._shut_out + sum([n for gate in gates for n in gate.shed.values()])
        return self._turned_away == before and sum([gate.in_flight_max for gate in gates]) <= IDLE

    def _tell_queue_from_slowness(self, elapsed_s: float, over: list[Gate], *, calm: bool) -> None:
        """What waits in the lanes may wait behind others, and others may not wait there at all: both must agree."""
        for queueing, gates in self._queueing:
            queueing.window(sum(g.window_ended for g in gates), sum(g.window_s for g in gates), elapsed_s)
            if calm:
                queueing.calm()
            elif over:
                queueing.watch()
        parts = [part for queueing, _ in self._queueing if (part := queueing.unqueued()) is not None]
        if over and len(parts) == len(self._queueing):
            for queueing, _ in self._queueing:
                queueing.restart()
            for gate in self._gates.values() if min(parts) >= SLOW else ():
                gate.learn(min(parts))
        # Of the lanes it is known that they are quick: where none of them was answered, they stand still.
        alone = [g for g in over if g.quiet >= QUIET_WINDOWS and (g.window_ended or g.api_class not in LANES)]
        if all(gate in alone or gate.is_calm() for gate in self._gates.values()):
            for gate in alone:
                gate.learn(1.0)

    def _payer(self, hurt: int, lowest: int, latency_s: float) -> int:
        """The rank that has to make room: the lowest that was let in and is above its floor; LOWEST + 1: none has."""
        for rank in range(lowest, max(hurt, 1) - 1, -1):
            if any(gate.used and gate.limit > LIMIT_MIN for gate in self._by_rank[rank]):
                return rank
        helpless = self._helpless_s > max(HELPLESS_S, HELPLESS_LATENCIES * latency_s)
        return 0 if hurt == 0 and (lowest == 0 or helpless) else LOWEST + 1

    def _move_limits(self, payer: int, *, calm: bool) -> None:
        """Grow what is calm and needs it, and what has somebody below it to make room; settle what is neither."""
        room = True
        for gates in self._by_rank[: self._rank_max + 1]:
            room = room and all(gate.is_calm() for gate in gates)
            for gate in gates:
                pressed = 2 * gate.used >= gate.limit
                if (room and (calm or gate.mean_s is not None)) or (pressed and gate.rank < payer <= LOWEST):
                    if pressed or gate.limit < gate.start:
                        gate.grow()
                elif gate.rank >= payer and not gate.is_over():
                    gate.settle()

    def _make_room(self, hurt: int, payer: int, over: list[Gate]) -> None:
        """For what is in flight beyond what leaves within the target, by Little's law; lowest first.

        By a tenth of the lowest payers at least, and by half of what is in flight at most: however far above its target
        a worker is, it is there after some windows, and does not have to cut one rank after the other by tenths.
        """
        excess = min(sum(g.excess() for g in over), sum(g.in_flight for g in over) / 2)
        for rank in range(min(payer, LOWEST), min(payer, max(hurt, 1)) - 1, -1):
            gates = [gate for gate in self._by_rank[rank] if gate.used]
            used = sum(gate.used for gate in gates)
            excess -= sum([gate.cut(max(0.0, excess) * gate.used / used) for gate in gates])
            if excess <= 0:
                return

    def _is_too_much(self) -> bool:
        """More is in flight in the lanes than leaves within the target; else only what came earlier is late."""
        lanes = [gate for gate in self._gates.values() if gate.api_class in LANES]
        return sum(g.in_flight for g in lanes) > sum(g.rate * g.target_s for g in lanes)

    def _is_at_floor(self, rank: int) -> bool:
        return rank > 0 and all(gate.limit <= LIMIT_MIN for gate in self._by_rank[rank] if gate.used)

    def _move_door(self, now: float, *, stuck: bool, calm: bool) -> None:
        shut_before = self._rank_max
        moved = self._door.tick(now, stuck=stuck, calm=calm)
        self._rank_max = LOWEST - self._door.level
        if moved > 0:
            for gate in self._by_rank[shut_before]:
                gate.shut()
        elif moved < 0:
            for gate in self._by_rank[self._rank_max]:
                gate.reopen()


def _start(rank: int, concurrency_max: int) -> int:
    """Where a limit starts. What a worker holds at its target is about half of `concurrency_max`."""
    parts = (2, 4)
    return max(LIMIT_MIN, concurrency_max // (parts[rank] if rank < len(parts) else 10))
