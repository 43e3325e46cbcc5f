"""Health checks of an HTTP worker: `GET /healthz` and `GET /readyz`."""

from typing import Final

from fundledger.app.http.problems import problem
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply
from fundledger.app.http.worker import Worker

PROBE_S: Final = 2.0


async def healthz(service: Worker, call: Call) -> Reply:
    """Answer `GET /healthz`: 200 while the process runs."""
    del service, call
    return Reply(200, b'{"status":"alive"}')


async def readyz(service: Worker, call: Call) -> Reply:
    """Answer `GET /readyz`: 503 while the worker drains, or while the database takes no reads or no writes."""
    del call
    if service.draining:
        return problem(
            503,
            "draining",
            "Shutting down",
            "this worker is finishing its accepted requests; send new requests to another one",
            headers={"Retry-After": "1"},
        )
    why_not = await service.readiness.why_not(PROBE_S)
    if why_not is not None:
        return problem(503, "no-database", "Not ready", why_not, headers={"Retry-After": "1"})
    return Reply(200, b'{"status":"ready"}')
