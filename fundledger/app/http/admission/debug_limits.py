"""Admission of HTTP requests: handler of `GET /debug/limits`, with the policies of a request and the use of each."""

import re
import time
from typing import Annotated, Any, Final, Literal

import msgspec

from fundledger.app.http.metrics.counters import MODES
from fundledger.app.http.problems import malformed
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.app.http.worker import Served
from fundledger.json_values import ID_PATTERN, about
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.policies import Kind
from fundledger.ratelimit.quota.store import StoreAway

_is_id: Final = re.compile(ID_PATTERN).match
Class = Annotated[ApiClass, about("the most important first", enum=[str(api_class) for api_class in ApiClass])]


class Limit(msgspec.Struct):
    policy: Annotated[str, about("name of the policy")]
    key: Annotated[Kind, about("kind of the bucket's key", enum=[str(kind) for kind in Kind])]
    of: Annotated[str, about("key of the bucket; empty: one bucket for all requests")]
    rate: Annotated[float, about("tokens per second", minimum=0)]
    limit: Annotated[int, about("the burst, in tokens", minimum=1)]
    used: Annotated[int, about("tokens missing from the burst", minimum=0)]
    reset_ms: Annotated[int, about("time until the burst is full", minimum=0)]
    mode: Literal["leased", "strict"]
    shadow: Annotated[bool, about("true: the policy rejects nothing")]
    source: Annotated[Literal["store", "fallback"], about("source of `used`: the store, or this worker")]
    held_here: Annotated[int, about("tokens that the answering worker holds")]


class Limits(msgspec.Struct, kw_only=True):
    mode: Annotated[str, about(enum=list(MODES))]
    version: Annotated[str, about("version of the policies: the file's number and a digest of it")]
    class_: Class | msgspec.UnsetType = msgspec.field(name="class", default=msgspec.UNSET)
    caller: str | msgspec.UnsetType = msgspec.UNSET
    policies: Annotated[list[Limit], about("the most general first")]


async def get_limits(service: Served, call: Call) -> Reply:
    """Handle `GET /debug/limits`: return the policies that apply to the request that the query describes.

    For each policy the answer has the used part of the limit, and the source of this number. The numbers are read from
    the rate-limit store. While the store is unreachable, the numbers that this worker read last are returned. The call
    is charged to the caller as one query. Raises BadRequest (400).
    """
    query = call.query
    try:
        api_class = ApiClass(query.get("class", "payment"))
    except ValueError:
        raise malformed(f"class must be one of {', '.join(ApiClass)}", field="class") from None
    for name in ("caller", "merchant", "account"):
        if name in query and not _is_id(query[name]):
            raise malformed(f"{name} must have 1 to 128 characters of [A-Za-z0-9:_.-]", field=name)
    limiter = service.controller.limiter
    if limiter is None:
        return Reply(200, encode(Limits(mode="off", version="", policies=[])))
    caller = query.get("caller", call.module)
    matched = limiter.match(caller, api_class, query.get("merchant"), query.get("account"))
    source: Literal["store", "fallback"] = "store"
    try:
        known: list[Any] = await limiter.peek(matched)
    except StoreAway:
        known, source = [None] * len(matched.buckets), "fallback"
    policies = []
    for bucket, figures in zip(matched.buckets, known, strict=True):
        policy, rate = bucket.policy, bucket.policy.rate
        left, reset_us = (bucket.left(time.monotonic()), bucket.reset_us) if figures is None else figures
        policies.append(
            Limit(
                policy=policy.name,
                key=policy.kind,
                of=bucket.name,
                rate=rate.per_second,
                limit=rate.burst,
                used=rate.burst - left,
                reset_ms=reset_us // 1000,
                mode="strict" if bucket.hold == 0 else "leased",
                shadow=bucket.shadowed,
                source=source,
                held_here=bucket.tokens,
            )
        )
    counts = limiter.counted()
    found = Limits(mode=counts.mode, version=counts.version, class_=api_class, caller=caller, policies=policies)
    return Reply(200, encode(found))
