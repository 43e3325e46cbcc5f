"""What is not money: liveness, readiness, metrics, the OpenAPI file and its page."""

import asyncio
import contextlib
import resource
from pathlib import Path

import msgspec

from fundledger.app import metrics
from fundledger.app.problems import problem
from fundledger.app.reply import Reply
from fundledger.app.routing import Call
from fundledger.app.service import Service

PROBE_S = 2.0
METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"
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


def snapshot(service: Service) -> metrics.Snapshot:
    """What this worker has counted, with its gauges as they are now."""
    now = service.metrics.now
    now.waiting = sum(lane.statistics().waiting for lane in service.lanes)
    now.in_flight = sum(lane.statistics().in_flight for lane in service.lanes)
    now.accounts_remembered = len(service.directory)
    now.rss_bytes = _rss()
    now.hot = service.daemons.keeper.counted
    now.buffer = service.daemons.folder.counted
    return now


def _rss() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def get_metrics(service: Service, call: Call) -> Reply:
    """`GET /metrics`: the sum over all workers that answer, whichever of them was asked."""
    del call
    mine = msgspec.json.encode(snapshot(service))
    total = msgspec.json.decode(mine, type=metrics.Snapshot)
    for other in await asyncio.gather(*(_sibling(path) for path in service.siblings())):
        if other is not None:
            total.add(other)
    return Reply(200, metrics.render(total), METRICS_TYPE)


async def _sibling(path: Path) -> metrics.Snapshot | None:
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_unix_connection(str(path))
            sent = await reader.read()
            writer.close()
        return msgspec.json.decode(sent, type=metrics.Snapshot)
    except (OSError, TimeoutError, msgspec.DecodeError):
        return None


async def tell_siblings(service: Service, path: Path) -> asyncio.Server:
    """Answer each connection on a socket with this worker's snapshot."""

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader
        with contextlib.suppress(ConnectionError):
            writer.write(msgspec.json.encode(snapshot(service)))
            await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)  # noqa: ASYNC240 - once, before this worker serves
    return await asyncio.start_unix_server(tell, str(path))
