"""Load driver of mixed requests, as an open or a closed loop. It records the outcome of each request, with the class
and the merchant of the request.

If a request takes too long, its client closes the connection, and a later response does not count. Latency counts from
the time at which a request was due. The driver also reports whether the driver itself was the bottleneck.
"""

import re
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from benchmarks.mix import Asking
from benchmarks.open_loop import verdict_against
from benchmarks.runs import percentile
from benchmarks.wire import Connection, Wire

PATIENCE_S: Final = 5.0
CONNECTIONS_MAX: Final = 4000
BROKEN: Final = 0
HUNG_UP: Final = -1
NEVER_SENT: Final = -2
"""Status of a request that was never sent, because its client gave up while it waited for a connection."""
RETRY_LATER: Final = (429, 503)
_TYPE = re.compile(rb'"type":"(?:urn:fundledger:problem:|https?://[^"#]*#)?([^"]*)"')
_GIVEN_UP: Final = {BROKEN: "broken", HUNG_UP: "hung up", NEVER_SENT: "never sent"}
_WAIT_S: Final = 0.05


class Answer(NamedTuple):
    """Outcome of a request. `status` is an HTTP status or a constant above. `due_ns` is a `perf_counter_ns`."""

    due_ns: int
    took_ns: int
    kind: str
    merchant: int
    vouchers: int
    status: int

    @property
    def well(self) -> bool:
        return 200 <= self.status < 300


@dataclass
class MixedRun:
    """Outcomes of the requests due between `began_ns` and `ended_ns`. `problems` counts refusals by status and code,
    such as `503 overloaded`.

    `uncertain` is the number of vouchers that may have been posted although no response was received.
    """

    asked_rate: float
    began_ns: int
    ended_ns: int
    answers: list[Answer] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    without_retry_after: int = 0
    uncertain: int = 0
    late_p99_ms: float = 0.0
    cpu_share: float = 0.0
    no_verdict: str | None = None

    @property
    def seconds(self) -> float:
        return (self.ended_ns - self.began_ns) / 1e9

    @property
    def in_time(self) -> list[Answer]:
        """Return the successful responses that arrived before the end of the run. Rates exclude later responses."""
        return [answer for answer in self.answers if answer.well and answer.due_ns + answer.took_ns <= self.ended_ns]

    @property
    def acknowledged(self) -> int:
        """Return the number of acknowledged vouchers."""
        return sum(answer.vouchers for answer in self.answers if answer.well)


def mixed_loop(
    port: int,
    askings: Iterator[Asking],
    due: Iterator[float] | None,
    seconds: float,
    *,
    rate: float = 0.0,
    connections: int = CONNECTIONS_MAX,
    patience_s: float = PATIENCE_S,
) -> MixedRun:
    """Send requests at the times `due` (open loop), on at most `connections` connections. Without `due`, send each
    request after a response (closed loop). Raises BenchFault.
    """
    with Wire(port) as wire:
        return _Loop(wire, askings, due, seconds, rate, connections, patience_s).run()


class _Loop:
    def __init__(
        self,
        wire: Wire,
        askings: Iterator[Asking],
        due: Iterator[float] | None,
        seconds: float,
        rate: float,
        connections: int,
        patience_s: float,
    ) -> None:
        self._wire = wire
        self._askings = askings
        self._due = due
        self._connections_max = connections
        self._patience_ns = int(patience_s * 1e9)
        # Connections are used in turn, so that every worker gets an equal share of the requests.
        self._idle = deque(wire.connect() for _ in range(connections if due is None else min(64, connections)))
        self._waiting: deque[tuple[int, Asking]] = deque()
        self._out: dict[Connection, Asking] = {}
        self._sent: deque[tuple[int, Connection]] = deque()
        began = time.perf_counter_ns()
        self._run = MixedRun(rate, began, began + int(seconds * 1e9))
        self._next = began if due is None else began + int(next(due) * 1e9)
        self._arrivals = self._sent_in_time = 0
        self._starved = False
        self._late: list[int] = []

    def run(self) -> MixedRun:
        run, cpu = self._run, time.thread_time()
        now = run.began_ns
        while now < run.ended_ns:
            self._send_due(now)
            soon = min(self._next if self._due is not None else now + int(_WAIT_S * 1e9), run.ended_ns)
            self._take(min(_WAIT_S, max(0.0, (soon - time.perf_counter_ns()) / 1e9)))
            now = time.perf_counter_ns()
            self._hang_up(now)
        if self._due is not None:
            self._send_due(run.ended_ns)
        run.cpu_share = (time.thread_time() - cpu) / ((now - run.began_ns) / 1e9)
        while self._out or self._waiting:
            self._take(_WAIT_S)
            self._hang_up(time.perf_counter_ns())
        run.late_p99_ms = percentile(sorted(self._late), 0.99) / 1e6 if self._late else 0.0
        run.no_verdict = verdict_against(self._arrivals, self._sent_in_time, run.cpu_share, 0, self._starved)
        return run

    def _send_due(self, now: int) -> None:
        if self._due is None:
            while self._idle:
                self._arrivals += 1
                self._send(self._opened(self._idle.popleft()), next(self._askings), time.perf_counter_ns())
            return
        while self._next <= now and self._next < self._run.ended_ns:
            due = self._next
            self._next = self._run.began_ns + int(next(self._due) * 1e9)
            self._arrivals += 1
            asking = next(self._askings)
            connection = self._connection()
            if connection is None:
                self._starved = True
                self._waiting.append((due, asking))
            else:
                self._send(connection, asking, due)

    def _connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.popleft()
            if not connection.closed:
                return connection
        return self._wire.connect() if len(self._wire) < self._connections_max else None

    def _opened(self, connection: Connection) -> Connection:
        return self._wire.connect() if connection.closed else connection

    def _send(self, connection: Connection, asking: Asking, due: int) -> None:
        now = time.perf_counter_ns()
        self._wire.send(connection, asking.request, due)
        self._out[connection] = asking
        self._sent.append((due, connection))
        self._sent_in_time += now < self._run.ended_ns
        self._late.append(now - due)

    def _take(self, timeout_s: float) -> None:
        answers = self._wire.answers(timeout_s)
        now = time.perf_counter_ns()
        for connection, status in answers:
            due = connection.sent_ns
            assert due is not None
            connection.sent_ns = None
            self._keep(self._out.pop(connection), due, now, status, connection.answer)
            if self._waiting and now - self._waiting[0][0] < self._patience_ns:
                due, asking = self._waiting.popleft()
                self._send(self._opened(connection), asking, due)
            else:
                self._idle.append(connection)

    def _keep(self, asking: Asking, due: int, now: int, status: int, answer: bytes) -> None:
        self._run.answers.append(Answer(due, now - due, asking.kind, asking.merchant, asking.vouchers, status))
        if 200 <= status < 300:
            return
        found = _TYPE.search(answer) if status > 0 else None
        problem = found[1].decode(errors="replace") if found else _GIVEN_UP.get(status, "")
        self._run.problems[f"{status} {problem}" if status > 0 else problem] += 1
        if status in (BROKEN, HUNG_UP) or problem == "outcome-unknown":
            self._run.uncertain += asking.vouchers
        self._run.without_retry_after += status in RETRY_LATER and b"\r\nRetry-After: " not in answer

    def _hang_up(self, now: int) -> None:
        """Close the connections whose requests have timed out. Requests are checked in the order in which they were
        sent, which is nearly the order in which they time out.
        """
        while self._sent and now - self._sent[0][0] > self._patience_ns:
            due, connection = self._sent.popleft()
            if connection.sent_ns != due or connection not in self._out:
                continue
            self._keep(self._out.pop(connection), due, now, HUNG_UP, b"")
            connection.sent_ns = None
            self._wire.drop(connection)
            self._idle.append(connection)
        while self._waiting and now - self._waiting[0][0] > self._patience_ns:
            due, asking = self._waiting.popleft()
            self._keep(asking, due, now, NEVER_SENT, b"")
        while self._waiting and (free := self._connection()) is not None:
            due, asking = self._waiting.popleft()
            self._send(free, asking, due)
