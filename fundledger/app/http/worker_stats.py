"""Statistics of HTTP workers: gauges of one worker, and handlers for the supervisor's pages about all workers."""

import resource
from pathlib import Path
from typing import Final

from fundledger.app.console.logs import dropped_lines
from fundledger.app.http.metrics.counters import Answered, Pool
from fundledger.app.http.routing import Call
from fundledger.app.http.sockets import HOT_KEYS, METRICS, ask
from fundledger.app.http.wire.reply import Reply
from fundledger.app.http.worker import Worker

CONTENT_TYPE: Final = "text/plain; version=1.0.0; charset=utf-8"


async def get_metrics(service: Worker, call: Call) -> Reply:
    """Handle `GET /metrics`: return the metrics of all workers, in a page that the supervisor renders.

    Raises Unavailable.
    """
    del call
    return Reply(200, await ask(service.supervisor_path(), METRICS), CONTENT_TYPE)


async def get_hot_keys(service: Worker, call: Call) -> Reply:
    """Handle `GET /debug/hotkeys`: return the most frequent keys over all workers. Raises Unavailable."""
    del call
    return Reply(200, await ask(service.supervisor_path(), HOT_KEYS))


def set_gauges(service: Worker, now: Answered) -> None:
    """Set the gauges that the workers of both services have, in the snapshot `now`."""
    now.rss_bytes = _rss()
    now.log_lines_dropped = dropped_lines()
    now.connections = len(service.connections)
    now.connections_closed = dict(service.connections.closed)
    now.body_bytes = service.bodies.bytes
    now.pool = _pool(service)
    now.hot_keys = service.hot_keys.last()
    limiter = service.controller.limiter
    if limiter is not None:
        now.limits = limiter.counted()
    now.shed = service.controller.shedder.counted()


def _pool(service: Worker) -> Pool:
    idle = service.pool.get_idle_size()
    waiting = len(service.pool._queue._getters)  # type: ignore[attr-defined]  # noqa: SLF001 - no public way
    return Pool(idle, service.pool.get_size() - idle, waiting)


def _rss() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
