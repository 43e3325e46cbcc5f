"""The load drivers: their requests, their counts, and the start of their measurements."""

import asyncio
import time
from collections.abc import Iterator
from itertools import count, islice, repeat

import pytest
from aiohttp import web
from aiohttp.web_request import BaseRequest

from benchmarks.closed_loop import closed_loop
from benchmarks.open_loop import open_loop, poisson, steady, verdict_against
from benchmarks.runs import BenchFault, percentile, summary
from benchmarks.single_connection import single_connection
from benchmarks.wrk import read_report
from tests.benchmarks.tiny import TinyServer

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
STALL_S = 0.6


async def well(request: BaseRequest, number: int) -> web.StreamResponse:
    return web.Response(status=201, body=b"{}")


async def stalls_once(request: BaseRequest, number: int) -> web.StreamResponse:
    if number == 100:
        time.sleep(STALL_S)
    return web.Response(status=201, body=b"{}")


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([5.0], 0.5, 5.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([1.0, 2.0, 3.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 0.07, 7.0),
        ([float(n) for n in range(1, 1001)], 0.999, 999.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
        ([1.0, 2.0, 3.0], 0.0, 1.0),
    ],
)
def test_percentile_is_the_smallest_value_that_the_share_does_not_exceed(
    values: list[float], share: float, expected: float
) -> None:
    assert percentile(values, share) == expected


def test_summary_sorts_and_shows_milliseconds() -> None:
    latencies = [3_000_000, 1_000_000, 2_000_000]
    assert summary(latencies) == {"p50_ms": 2.0, "p99_ms": 3.0, "p999_ms": 3.0, "max_ms": 3.0}


@pytest.mark.parametrize("connections_max", [4, 1000])
def test_a_stall_is_felt_by_the_open_loop_and_hidden_by_the_closed_loop(connections_max: int) -> None:
    rate = 400
    with TinyServer(stalls_once) as server:
        closed = closed_loop(server.port, islice(repeat(REQUEST), 500), connections=1)
    with TinyServer(stalls_once, backlog=16) as server:
        due = steady(rate)
        felt = open_loop(server.port, repeat(REQUEST), due, 1.5, rate=rate, connections_max=connections_max)
    assert closed.answered == 500
    assert closed.max_ms >= STALL_S * 1000
    assert closed.p99_ms < STALL_S * 500, "one slow answer of 500 does not reach p99"
    assert felt.sent_in_time >= (500 if connections_max == 1000 else 300), "the driver did not stand still with it"
    # 600 requests were due. Requests that were due in the first half of the stall waited at least for the second half.
    assert felt.arrivals >= 599
    assert felt.p99_ms >= STALL_S * 500
    assert felt.max_ms >= STALL_S * 1000


def test_open_loop_does_not_wait_for_answers_before_it_sends() -> None:
    async def late(request: BaseRequest, number: int) -> web.StreamResponse:
        if number == 1:
            await all_came.wait()
        elif number == 50:
            all_came.set()
        return web.Response(body=b"{}")

    all_came = asyncio.Event()
    with TinyServer(late) as server:
        run = open_loop(server.port, repeat(REQUEST), steady(100), 1.0, rate=100)
    assert run.answered == run.arrivals == len(server.bodies) == 99
    assert run.unanswered == run.errors == 0


def test_open_loop_gives_no_verdict_when_it_could_not_send() -> None:
    async def slow(request: BaseRequest, number: int) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return web.Response(body=b"{}")

    with TinyServer(slow) as server:
        run = open_loop(server.port, repeat(REQUEST), steady(200), 1.0, rate=200, connections_max=1)
    assert run.sent_in_time <= 11
    assert run.no_verdict is not None
    assert "of the due requests, because all its connections were busy" in run.no_verdict
    assert run.max_ms >= 500, "who was never sent has waited"


def test_open_loop_gives_no_verdict_when_it_stood_still_itself() -> None:
    def stands_still() -> Iterator[bytes]:
        for number in count():
            if number == 5:
                time.sleep(0.6)
            yield REQUEST

    with TinyServer(well) as server:
        run = open_loop(server.port, stands_still(), steady(100), 0.5, rate=100)
    assert run.arrivals >= 49, "what was due meanwhile was due all the same"
    assert run.sent_in_time == 5
    assert run.no_verdict is not None
    assert run.answered == len(server.bodies) == run.arrivals


@pytest.mark.parametrize(
    ("arrivals", "sent", "cpu_share", "unanswered", "expected"),
    [
        (0, 0, 0.1, 0, "nothing was due"),
        (100, 94, 0.1, 0, "the driver sent 94% of the due requests"),
        (100, 95, 0.81, 0, "the driver used 81% of a processor"),
        (100, 95, 0.8, 1, "1 requests were not answered"),
        (100, 95, 0.8, 0, None),
    ],
)
def test_verdict_is_refused_by_the_first_reason(
    arrivals: int, sent: int, cpu_share: float, unanswered: int, expected: str | None
) -> None:
    assert verdict_against(arrivals, sent, cpu_share, unanswered) == expected


def test_arrivals_of_independent_callers_come_at_the_rate_that_was_asked_for() -> None:
    due = list(islice(poisson(100.0, seed=7), 10_000))
    assert due == sorted(due)
    assert 90 < due[-1] < 110
    assert due == list(islice(poisson(100.0, seed=7), 10_000))


def test_closed_loop_sends_each_request_once_and_counts_refusals() -> None:
    async def every_third_refused(request: BaseRequest, number: int) -> web.StreamResponse:
        return web.Response(status=503 if number % 3 == 0 else 201, body=b"{}")

    requests = [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n%04d" % n for n in range(300)]
    with TinyServer(every_third_refused) as server:
        run = closed_loop(server.port, iter(requests), connections=8)
    assert sorted(server.bodies) == [b"%04d" % n for n in range(300)]
    assert (run.answered, run.errors) == (300, 100)
    assert run.rate == pytest.approx(200 / run.seconds)


def test_requests_and_answers_larger_than_a_socket_buffer_arrive_whole() -> None:
    async def echo(request: BaseRequest, number: int) -> web.StreamResponse:
        return web.Response(body=server.bodies[number - 1])

    size = 16_000_000
    requests = [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"%d" % n * size for n in range(4)]
    with TinyServer(echo) as server:
        run = closed_loop(server.port, iter(requests), connections=2)
    assert (run.answered, run.errors) == (4, 0)
    assert sorted(server.bodies) == [b"%d" % n * size for n in range(4)]


def test_broken_connection_is_an_error_and_the_driver_goes_on() -> None:
    async def breaks_once(request: BaseRequest, number: int) -> web.StreamResponse:
        if number == 5:
            assert request.transport is not None
            request.transport.abort()
        return web.Response(body=b"{}")

    with TinyServer(breaks_once) as server:
        run = closed_loop(server.port, islice(repeat(REQUEST), 20), connections=2)
    assert (run.answered, run.errors, run.in_flight_max) == (20, 1, 1)


def test_single_connection_reads_answers_in_pieces() -> None:
    async def large(request: BaseRequest, number: int) -> web.StreamResponse:
        return web.Response(status=201, body=b"x" * 1_000_000)

    with TinyServer(large) as server:
        run = single_connection(server.port, repeat(REQUEST), 0.2)
    assert run.errors == 0
    assert run.answered == len(server.bodies) > 0


def test_a_missing_server_is_reported_in_one_line() -> None:
    with TinyServer(well) as server:
        port = server.port
    with pytest.raises(BenchFault, match=f"port {port} accepts no connection"):
        closed_loop(port, repeat(REQUEST), connections=1)


WRK_SAID = """Running 4s test @ http://127.0.0.1:8090/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.63ms  812.10us  31.20ms   91.52%
    Req/Sec    17.72k     1.02k   19.01k    75.00%
  Latency Distribution
     50%    3.51ms
     75%    3.83ms
     90%    4.20ms
     99%  900.00us
  70912 requests in 4.00s, 24.11MB read
{more}Requests/sec:  17728.00
Transfer/sec:      6.03MB
"""


def test_report_of_wrk_is_read() -> None:
    run = read_report(WRK_SAID.format(more=""), connections=64)
    assert (run.answered, run.errors, run.in_flight_max) == (70912, 0, 64)
    assert (run.p50_ms, run.p99_ms, run.max_ms) == (3.51, 0.9, 31.2)
    assert run.rate == pytest.approx(17728)


def test_failures_in_a_report_of_wrk_are_not_counted_as_vouchers() -> None:
    more = "  Socket errors: connect 0, read 3, write 0, timeout 2\n  Non-2xx or 3xx responses: 912\n"
    run = read_report(WRK_SAID.format(more=more), connections=64, vouchers_each=1000)
    assert run.errors == 917
    assert run.in_flight_max == 64 + 917
    assert run.rate == pytest.approx(70_000 * 1000 / 4.0)


def test_something_else_than_a_report_of_wrk_is_a_fault() -> None:
    with pytest.raises(BenchFault, match="no report"):
        read_report("unable to create thread", connections=1)
