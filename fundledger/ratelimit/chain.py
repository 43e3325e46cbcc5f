"""The policies that requests of one kind meet, as buckets; and what a refusal tells."""

import math

import msgspec

from fundledger.ratelimit.bucket import Bucket
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.policies import Policy

TELL_S = 0.05
PRECISE_BELOW = 1000
"""More tokens than these that are left are told as they were up to `TELL_S` ago."""


class Denied(msgspec.Struct, frozen=True):
    """Why a request may not pass: which policy has not enough for it, and who said so (`source`: lease, strict,
    denycache, fallback). `retry_s`: how long it is refused for sure. `closed`: it is not the caller's quota, the
    limiter cannot count and this is not done uncounted.
    """

    policy: Policy
    source: str
    retry_s: float
    closed: bool = False


class Chain:
    """The buckets of all requests of one caller, class, merchant and account; the most general first.

    `allowed`: admissions that are not in the counts yet. `headers`, and `raw` as they go over the wire, are as `told`
    made them last; they hold until `told_until` (monotonic s).
    """

    __slots__ = (
        "allow_key",
        "allowed",
        "api_class",
        "buckets",
        "headers",
        "policy_header",
        "raw",
        "strict",
        "told_until",
    )

    def __init__(self, buckets: list[Bucket], api_class: ApiClass) -> None:
        self.buckets = buckets
        self.api_class = api_class
        self.strict = any(bucket.hold == 0 for bucket in buckets)
        self.allowed = 0
        self.headers: dict[str, str] = {}
        self.raw = b""
        self.told_until = 0.0
        self.policy_header = ", ".join(f'"{b.policy.name}";{quota_of(b.policy)}' for b in buckets)
        self.allow_key = f"{buckets[-1].policy.name if buckets else 'none'} {api_class} allow"

    def charges(self, cost: int) -> list[tuple[Bucket, int]]:
        """So many tokens of each bucket."""
        return [(bucket, cost) for bucket in self.buckets]

    def told(self, now: float) -> dict[str, str]:
        """`RateLimit-Policy`, and `RateLimit` of the nearest to its end: `r` tokens now, full again in `t` seconds.

        As far as this worker knows; nothing is asked. None of both where no policy matches. Source:
        draft-ietf-httpapi-ratelimit-headers-11, structured fields (RFC 9651).
        """
        if now < self.told_until:
            return self.headers
        least, left = None, 0
        share = math.inf
        for bucket in self.buckets:
            have = bucket.left(now)
            if have / bucket.policy.rate.burst <= share:
                share, least, left = have / bucket.policy.rate.burst, bucket, have
        if least is None:
            return self.headers
        full_in = math.ceil((least.policy.rate.burst - left) / least.policy.rate.per_second)
        self.headers = {
            "RateLimit-Policy": self.policy_header,
            "RateLimit": f'"{least.policy.name}";r={left};t={full_in}',
        }
        self.raw = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()]).encode()
        self.told_until = now + TELL_S if left > PRECISE_BELOW else now
        return self.headers


def quota_of(policy: Policy) -> str:
    """`q=..;w=..` of RateLimit-Policy: so many in so many whole seconds, exactly where whole numbers can say it."""
    rate = policy.rate
    for seconds in (1, 10, 60, 100, 3600, 86400):
        tokens, rest = divmod(rate.tokens * seconds * 1_000_000, rate.period_us)
        if tokens and not rest:
            return f"q={tokens};w={seconds}"
    seconds = 1 if rate.per_second >= 1 else 86400
    return f"q={int(rate.per_second * seconds)};w={seconds}"
