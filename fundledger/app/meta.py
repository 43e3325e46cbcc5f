"""What is not money: liveness, readiness, metrics, hot keys."""

import asyncio
import contextlib
import resource
from collections.abc import Callable
from pathlib import Path

import msgspec

from fundledger.app.logs import dropped_lines
from fundledger.app.metrics import Answered, Pool, Snapshot
from fundledger.app.problems import problem
from fundledger.app.reply import Reply
from fundledger.app.routing import Call
from fundledger.app.served import Worker
from fundledger.app.service import Service
from fundledger.app.sockets import HOT_KEYS, METRICS, ask

PROBE_S = 2.0
CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
HTML_TYPE = "text/html; charset=utf-8"


async def healthz(service: Worker, call: Call) -> Reply:
    """`GET /healthz`: this process answers."""
    del service, call
    return Reply(200, b'{"status":"alive"}')


async def readyz(service: Worker, call: Call) -> Reply:
    """`GET /readyz`: 503 while draining, and while the database takes no reads or no writes."""
    del call
    if service.draining:
        return problem(
            503, "draining", "Stopping", "this worker is finishing what it accepted", headers={"Retry-After": "1"}
        )
    why_not = await service.readiness.why_not(PROBE_S)
    if why_not is not None:
        return problem(503, "no-database", "Not ready", why_not, headers={"Retry-After": "1"})
    return Reply(200, b'{"status":"ready"}')


async def get_metrics(service: Worker, call: Call) -> Reply:
    """`GET /metrics`: the page of the supervisor, whichever worker was asked. Raises Unavailable."""
    del call
    return Reply(200, await ask(service.supervisor_path(), METRICS), CONTENT_TYPE)


async def get_hot_keys(service: Worker, call: Call) -> Reply:
    """`GET /debug/hotkeys`: who asks most, of all workers. Raises Unavailable."""
    del call
    return Reply(200, await ask(service.supervisor_path(), HOT_KEYS))


def snapshot(service: Service) -> Snapshot:
    """What this worker has counted, with its gauges as they are now."""
    service.metrics.take_commits()
    now = service.metrics.now
    now.waiting = sum(lane.statistics().waiting for lane in service.lanes)
    now.in_flight = sum(lane.statistics().in_flight for lane in service.lanes)
    now.accounts_remembered = len(service.directory)
    now.hot = service.daemons.keeper.counted
    now.buffer = service.daemons.folder.counted
    now.daemons = service.roster.counted()
    now.feed_lag_s = service.feed.lag_s
    show_gauges(service, now)
    return now


def show_gauges(service: Worker, now: Answered) -> None:
    """What is true of a worker of either service at this moment."""
    now.rss_bytes = _rss()
    now.log_lines_dropped = dropped_lines()
    now.connections = len(service.connections)
    now.connections_closed = dict(service.connections.closed)
    now.body_bytes = service.bodies.bytes
    now.pool = _pool(service)
    now.hot_keys = service.hot_keys.last()
    limiter = service.gate.limiter
    if limiter is not None:
        now.limits = limiter.counted()
    now.shed = service.gate.shedder.counted()


def _pool(service: Worker) -> Pool:
    idle = service.pool.get_idle_size()
    waiting = len(service.pool._queue._getters)  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    return Pool(idle, service.pool.get_size() - idle, waiting)


def _rss() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def tell_supervisor(service: Worker, count: Callable[[], Answered]) -> asyncio.Server:
    """Answer each connection to a worker's socket with its snapshot."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        with contextlib.suppress(ConnectionError):
            writer.write(msgspec.json.encode(count()))
            await writer.drain()
        writer.close()

    path = service.socket_path()
    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(tell, str(path))
