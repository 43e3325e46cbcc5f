"""Load driver of a single connection. It uses a blocking socket, which adds least to the measured time."""

import socket
import time
from collections.abc import Iterator

from benchmarks.runs import BenchFault, Run, summary
from benchmarks.wire import HOST, answer_bytes


def single_connection(port: int, requests: Iterator[bytes], seconds: float) -> Run:
    """Send requests for `seconds`, each after the response to the previous request. Raises BenchFault."""
    latencies: list[int] = []
    errors = 0
    try:
        with socket.create_connection((HOST, port), timeout=60) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            started = time.perf_counter_ns()
            stop_at = started + int(seconds * 1e9)
            sent = started
            while sent < stop_at:
                request = next(requests)
                sent = time.perf_counter_ns()
                connection.sendall(request)
                status = _answer(connection)
                latencies.append(time.perf_counter_ns() - sent)
                errors += not 200 <= status < 300
            elapsed = (time.perf_counter_ns() - started) / 1e9
    except OSError as error:
        raise BenchFault(f"the connection to port {port} broke: {error}") from None
    return Run("own", elapsed, len(latencies), errors, 0, **summary(latencies))


def _answer(connection: socket.socket) -> int:
    received = connection.recv(1 << 16)
    while len(received) < answer_bytes(received):
        more = connection.recv(1 << 16)
        if not more:
            raise ConnectionError("closed by the other side")
        received += more
    return int(received[9:12])
