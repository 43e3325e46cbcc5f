"""Health checks of an HTTP worker: `GET /healthz` and `GET /readyz`."""

from typing import Annotated, Final

import msgspec

from fundledger.app.http.problems import problem
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.app.http.worker import Worker
from fundledger.json_values import about

PROBE_S: Final = 2.0


class Alive(msgspec.Struct):
    status: Annotated[str, about(enum=["alive"])]


class Ready(msgspec.Struct):
    status: Annotated[str, about(enum=["ready"])]


async def healthz(service: Worker, call: Call) -> Reply:
    """Handle `GET /healthz`: 200 as long as the process runs."""
    del service, call
    return Reply(200, encode(Alive("alive")))


async def readyz(service: Worker, call: Call) -> Reply:
    """Handle `GET /readyz`: 503 while the worker drains or the database rejects reads or writes, otherwise 200."""
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
    return Reply(200, encode(Ready("ready")))
