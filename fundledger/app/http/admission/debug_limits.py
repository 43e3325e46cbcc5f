"""Handler of `GET /debug/limits`: the policies that apply to an HTTP request, and the use of each."""

import re
import time
from typing import Any, Final

from fundledger.app.http.bodies.decoding import ID_PATTERN
from fundledger.app.http.problems import malformed
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.app.http.worker import Served
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.store import StoreAway

_is_id: Final = re.compile(ID_PATTERN).match


async def get_limits(service: Served, call: Call) -> Reply:
    """Return the policies that apply to the described request, the use of each, and the source of that figure.

    Reads the store and charges the caller one query. While the store is unreachable, the figures are the last ones that
    this worker has read. Raises BadRequest (400).
    """
    query = call.query
    try:
        api_class = ApiClass(query.get("class", "payment"))
    except ValueError:
        raise malformed(f"class must be one of {', '.join(ApiClass)}", field="class") from None
    for name in ("caller", "merchant", "account"):
        if name in query and not _is_id(query[name]):
            raise malformed(f"{name} must have 1 to 128 characters of [A-Za-z0-9:_.-]", field=name)
    limiter = service.gate.limiter
    if limiter is None:
        return Reply(200, encode({"mode": "off", "version": "", "policies": []}))
    caller = query.get("caller", call.module)
    chain = limiter.chain(caller, api_class, query.get("merchant"), query.get("account"))
    try:
        known: list[Any] = await limiter.peek(chain)
        source = "store"
    except StoreAway:
        known, source = [None] * len(chain.buckets), "fallback"
    policies = []
    for bucket, figures in zip(chain.buckets, known, strict=True):
        rate = bucket.policy.rate
        left, reset_us = (bucket.left(time.monotonic()), bucket.reset_us) if figures is None else figures
        policies.append(
            {
                "policy": bucket.policy.name,
                "key": bucket.policy.kind,
                "of": bucket.name,
                "rate": rate.per_second,
                "limit": rate.burst,
                "used": rate.burst - left,
                "reset_ms": reset_us // 1000,
                "mode": "strict" if bucket.hold == 0 else "leased",
                "shadow": bucket.shadowed,
                "source": source,
                "held_here": bucket.tokens,
            }
        )
    counts = limiter.counted()
    body = {"mode": counts.mode, "version": counts.version, "class": api_class, "caller": caller, "policies": policies}
    return Reply(200, encode(body))
