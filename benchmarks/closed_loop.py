"""Closed-loop load driver: every connection sends its next request after the previous response.

A closed loop measures the capacity of the service. It sends nothing while the service stalls, so the stall affects few
latencies: use the open loop to measure latencies.
"""

import time
from collections.abc import Iterator

from benchmarks.runs import BenchFault, Run, summary
from benchmarks.wire import Connection, Wire

ANSWER_S = 60.0


def closed_loop(
    port: int, requests: Iterator[bytes], connections: int, seconds: float | None = None, vouchers_each: int = 1
) -> Run:
    """Send requests for `seconds` or until `requests` ends, then wait for outstanding responses.

    Raises BenchFault if no response arrives for `ANSWER_S` seconds.
    """
    latencies: list[int] = []
    errors = out = 0
    with Wire(port) as wire:
        idle = [wire.connect() for _ in range(connections)]
        started = time.perf_counter_ns()
        stop_at = None if seconds is None else started + int(seconds * 1e9)
        more = True
        while True:
            now = time.perf_counter_ns()
            if more and stop_at is not None and now >= stop_at:
                more = False
            while more and idle:
                request = next(requests, None)
                if request is None:
                    more = False
                else:
                    wire.send(_open(wire, idle.pop()), request, time.perf_counter_ns())
                    out += 1
            if out == 0:
                break
            answers = wire.answers(ANSWER_S)
            if not answers and time.perf_counter_ns() - now > ANSWER_S * 0.9e9:
                raise BenchFault(f"no response for {ANSWER_S:.0f} s")
            now = time.perf_counter_ns()
            for connection, status in answers:
                assert connection.sent_ns is not None
                latencies.append(now - connection.sent_ns)
                connection.sent_ns = None
                out -= 1
                errors += not 200 <= status < 300
                idle.append(connection)
        elapsed = (time.perf_counter_ns() - started) / 1e9
    return Run("own", elapsed, len(latencies), errors, errors, vouchers_each=vouchers_each, **summary(latencies))


def _open(wire: Wire, connection: Connection) -> Connection:
    return wire.connect() if connection.closed else connection
