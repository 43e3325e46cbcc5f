"""What is not money: liveness, readiness, metrics, hot keys."""

import asyncio
import contextlib
import resource
from pathlib import Path

import msgspec

from fundledger.app.metrics import Pool, Snapshot
from fundledger.app.problems import problem
from fundledger.app.reply import Reply
from fundledger.app.routing import Call
from fundledger.app.service import Service
from fundledger.app.sockets import HOT_KEYS, METRICS, ask_supervisor

PROBE_S = 2.0
CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
HTML_TYPE = "text/html; charset=utf-8"


async def healthz(service: Service, call: Call) -> Reply:
    """`GET /healthz`: this process answers."""
    del service, call
    return Reply(200, b'{"status":"alive"}')


async def readyz(service: Service, call: Call) -> Reply:
    """`GET /readyz`: 503 while draining or without database."""
    del call
    if service.draining:
        return problem(
            503, "draining", "Stopping", "this worker is finishing what it accepted", headers={"Retry-After": "1"}
        )
    if not await service.database_answers(PROBE_S):
        headers = {"Retry-After": "1"}
        return problem(503, "no-database", "Not ready", "the account database does not answer", headers=headers)
    return Reply(200, b'{"status":"ready"}')


async def get_metrics(service: Service, call: Call) -> Reply:
    """`GET /metrics`: the page of the supervisor, whichever worker was asked. Raises Unavailable."""
    del call
    return Reply(200, await ask_supervisor(service.run_dir, METRICS), CONTENT_TYPE)


async def get_hot_keys(service: Service, call: Call) -> Reply:
    """`GET /debug/hotkeys`: who asks most, of all workers. Raises Unavailable."""
    del call
    return Reply(200, await ask_supervisor(service.run_dir, HOT_KEYS))


def snapshot(service: Service) -> Snapshot:
    """What this worker has counted, with its gauges as they are now."""
    service.metrics.take_commits()
    now = service.metrics.now
    now.waiting = sum(lane.statistics().waiting for lane in service.lanes)
    now.in_flight = sum(lane.statistics().in_flight for lane in service.lanes)
    now.accounts_remembered = len(service.directory)
    now.rss_bytes = _rss()
    now.pool = _pool(service)
    now.hot_keys = service.hot_keys.last()
    now.hot = service.daemons.keeper.counted
    now.buffer = service.daemons.folder.counted
    limiter = service.gate.limiter
    if limiter is not None:
        now.limits = limiter.counted()
    now.shed = service.gate.shedder.counted()
    now.daemons = service.roster.counted()
    return now


def _pool(service: Service) -> Pool:
    idle = service.pool.get_idle_size()
    waiting = len(service.pool._queue._getters)  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    return Pool(idle, service.pool.get_size() - idle, waiting)


def _rss() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def tell_supervisor(service: Service) -> asyncio.Server:
    """Answer each connection to this worker's socket with its snapshot."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        with contextlib.suppress(ConnectionError):
            writer.write(msgspec.json.encode(snapshot(service)))
            await writer.drain()
        writer.close()

    path = service.socket_path()
    path.unlink(missing_ok=True)
    return await asyncio.start_unix_server(tell, str(path))
