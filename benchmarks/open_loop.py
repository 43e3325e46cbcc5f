"""Open-loop load driver: each request is sent when it is due, even if earlier requests have no responses yet.

Latency counts from the time at which a request was due. So a stall affects every request that was due during the stall.
The driver also reports whether the driver itself was the bottleneck; if it was, the latencies are not conclusive.
"""

import random
import time
from collections import deque
from collections.abc import Iterator
from itertools import accumulate, repeat

from benchmarks.runs import OpenRun, percentile, summary
from benchmarks.wire import Connection, Wire

SENT_SHARE_MIN = 0.95
CPU_SHARE_MAX = 0.8
ANSWER_S = 30.0


def steady(rate: float) -> Iterator[float]:
    """Yield evenly spaced due times, in seconds from the start."""
    return accumulate(repeat(1 / rate))


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Yield due times of independent callers (a Poisson process), on average `rate` per second."""
    pick = random.Random(seed)
    return accumulate(pick.expovariate(rate) for _ in repeat(None))


def open_loop(
    port: int,
    requests: Iterator[bytes],
    due: Iterator[float],
    seconds: float,
    *,
    rate: float,
    warm_up_s: float = 0.0,
    connections_max: int = 1000,
) -> OpenRun:
    """Send requests for `warm_up_s + seconds`. Only requests after the warm-up count. `rate` is the mean rate of `due`.

    If a request is due while every connection is busy, another connection is opened. If there are `connections_max`
    connections already, the request waits for a connection. Raises BenchFault.
    """
    with Wire(port) as wire:
        return _Loop(wire, requests, due, warm_up_s, seconds, connections_max).run(rate)


class _Loop:
    def __init__(
        self,
        wire: Wire,
        requests: Iterator[bytes],
        due: Iterator[float],
        warm_up_s: float,
        seconds: float,
        connections_max: int,
    ) -> None:
        self._wire = wire
        self._requests = requests
        self._due = due
        self._connections_max = connections_max
        self._idle: list[Connection] = [wire.connect() for _ in range(min(16, connections_max))]
        self._waiting: deque[int] = deque()
        self._seconds = warm_up_s + seconds
        self._started = time.perf_counter_ns()
        self._counts_from = self._started + int(warm_up_s * 1e9)
        self._ends = self._counts_from + int(seconds * 1e9)
        self._next = self._started + int(next(due) * 1e9)
        self._starved = False
        self._latencies: list[int] = []
        self._late: list[int] = []
        self._arrivals = self._sent_in_time = self._errors = self._answered = self._out = 0

    def run(self, rate: float) -> OpenRun:
        cpu = time.thread_time()
        now = self._started
        while now < self._ends:
            self._send_due(now)
            self._take(max(0.0, (min(self._next, self._ends) - time.perf_counter_ns()) / 1e9))
            now = time.perf_counter_ns()
        # Also count the requests that became due while the driver was late.
        self._send_due(self._ends)
        busy = time.thread_time() - cpu
        elapsed = (now - self._started) / 1e9
        self._settle(now)
        unanswered = self._out + len(self._waiting)
        return OpenRun(
            "open loop",
            self._seconds,
            self._answered,
            self._errors,
            self._out + self._errors,
            **summary(self._latencies),
            asked_rate=rate,
            arrivals=self._arrivals,
            sent_in_time=self._sent_in_time,
            unanswered=unanswered,
            late_p99_ms=percentile(sorted(self._late), 0.99) / 1e6 if self._late else 0.0,
            cpu_share=busy / elapsed,
            no_verdict=verdict_against(self._arrivals, self._sent_in_time, busy / elapsed, unanswered, self._starved),
        )

    def _send_due(self, now: int) -> None:
        while self._next <= now and self._next < self._ends:
            due = self._next
            self._next = self._started + int(next(self._due) * 1e9)
            self._arrivals += due >= self._counts_from
            connection = self._connection()
            if connection is None:
                self._starved = True
                self._waiting.append(due)
            else:
                self._send(connection, due)

    def _connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return self._wire.connect() if len(self._wire) < self._connections_max else None

    def _send(self, connection: Connection, due: int) -> None:
        request = next(self._requests)
        now = time.perf_counter_ns()
        self._wire.send(connection, request, due)
        self._out += 1
        if due >= self._counts_from:
            self._sent_in_time += now < self._ends
            self._late.append(now - due)

    def _take(self, timeout_s: float) -> None:
        answers = self._wire.answers(timeout_s)
        now = time.perf_counter_ns()
        for connection, status in answers:
            due = connection.sent_ns
            assert due is not None
            connection.sent_ns = None
            self._out -= 1
            if due >= self._counts_from:
                self._latencies.append(now - due)
            self._answered += 1
            self._errors += not 200 <= status < 300
            if self._waiting and not connection.closed:
                self._send(connection, self._waiting.popleft())
            else:
                self._idle.append(connection)

    def _settle(self, now: int) -> None:
        """Wait for outstanding responses. If a request was never sent, the time since it was due counts as its latency,
        because the request has waited at least that long.
        """
        give_up_at = now + int(ANSWER_S * 1e9)
        never_sent, self._waiting = self._waiting, deque()
        while self._out and time.perf_counter_ns() < give_up_at:
            self._take(0.1)
        now = time.perf_counter_ns()
        self._latencies += [now - due for due in never_sent if due >= self._counts_from]
        self._waiting = never_sent


def verdict_against(
    arrivals: int, sent_in_time: int, cpu_share: float, unanswered: int, starved: bool = False
) -> str | None:
    """Return the reason why the latencies of a run are not conclusive, None if they are. `starved` is True if a due
    request had to wait for a free connection.
    """
    if arrivals == 0:
        return "nothing was due"
    if sent_in_time < SENT_SHARE_MIN * arrivals:
        why = ", because all its connections were busy" if starved else ""
        return f"the driver sent {sent_in_time / arrivals:.0%} of the due requests{why}"
    if cpu_share > CPU_SHARE_MAX:
        return f"the driver used {cpu_share:.0%} of a processor"
    if unanswered:
        return f"{unanswered} requests were not answered"
    return None
