"""Matched rate limit policies of requests with the same properties, and the RateLimit headers of the responses."""

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.bucket import Bucket, Charges
from fundledger.ratelimit.quota.policies import Policy

CACHED_S = 0.05
PRECISE_BELOW = 1000
"""Number of tokens. Headers that show more tokens are cached for `CACHED_S`."""


class Pending:
    """Result of a decision that needs the store: the caller has to call `Limiter.ask`."""


PENDING: Final = Pending()


class Denied(msgspec.Struct, frozen=True):
    """Refusal by a policy.

    - `source`: the basis of the decision: lease, strict, denycache or fallback
    - `retry_s`: seconds after which a retry can succeed; an earlier retry is refused
    - `closed`: the request is refused because the store is unavailable and requests of this class must be counted
    """

    policy: Policy
    source: str
    retry_s: float
    closed: bool = False


class RateLimitHeaders(msgspec.Struct, frozen=True):
    """RateLimit headers of one response: `headers` by name, `raw` as encoded bytes."""

    headers: dict[str, str]
    raw: bytes


class MatchedPolicies:
    """Buckets of the policies that match one caller, class, merchant and account; the most general first.

    - `admitted[0]`: the number of admissions; shared by all instances with the same `allow_key`
    - `counted`: False if only the caller is charged so far; the later decision on the whole request is counted instead
    - `headers`, `raw`: RateLimit headers by name and as encoded bytes; a cache of the last result of `current`
    - `valid_until`: the time (monotonic seconds) until which these headers are used
    """

    __slots__ = (
        "admitted",
        "allow_key",
        "api_class",
        "buckets",
        "counted",
        "headers",
        "policy_header",
        "raw",
        "strict",
        "valid_until",
    )

    def __init__(self, buckets: list[Bucket], api_class: ApiClass, admitted: dict[str, list[int]] | None) -> None:
        self.buckets = buckets
        self.api_class = api_class
        self.strict = any(bucket.hold == 0 for bucket in buckets)
        self.headers: dict[str, str] = {}
        self.raw = b""
        self.valid_until = 0.0
        self.policy_header = ", ".join(f'"{b.policy.name}";{quota_of(b.policy)}' for b in buckets)
        self.allow_key = f"{buckets[-1].policy.name if buckets else 'none'} {api_class} allow"
        self.counted = admitted is not None
        self.admitted = [0] if admitted is None else admitted.setdefault(self.allow_key, [0])

    def charges(self, cost: int) -> list[tuple[Bucket, int]]:
        """Return a charge of `cost` tokens for each bucket."""
        return [(bucket, cost) for bucket in self.buckets]

    def current(self, now: float) -> dict[str, str]:
        """Return the headers `RateLimit-Policy` and `RateLimit`. Return no headers if no policy matches.

        `RateLimit` is for the policy that is nearest to its limit: `r` tokens are left, and the next token is available
        in `t` seconds. The numbers are an estimate of this worker, without a store call. Source:
        draft-ietf-httpapi-ratelimit-headers-11, structured fields (RFC 9651).
        """
        if now < self.valid_until:
            return self.headers
        least, left = self._nearest(now)
        if least is None:
            return self.headers
        found = _headers_of(self.policy_header, least.policy, left, _more_in(least.policy, left))
        self.headers, self.raw = found.headers, found.raw
        self.valid_until = now + CACHED_S if left > PRECISE_BELOW else now
        return self.headers

    def refused(self, now: float, wait_s: int, policy: Policy | None, cost: int) -> RateLimitHeaders | None:
        """Return the headers for a refused request of `cost` tokens. `policy` is None if no policy refused the request.

        `t` is at most `wait_s`, the value of `Retry-After`. Return None if no policy matches.
        """
        if policy is None:
            least, left = self._nearest(now)
            return (
                _headers_of(self.policy_header, least.policy, left, min(wait_s, _more_in(least.policy, left)))
                if least
                else None
            )
        have = max((b.left(now) for b in self.buckets if b.policy is policy), default=0)
        header = self.policy_header
        if all(bucket.policy is not policy for bucket in self.buckets):
            # The policy that refused the request matches only some vouchers of a batch.
            header = ", ".join(filter(None, (header, f'"{policy.name}";{quota_of(policy)}')))
        left = min(have, cost - 1)
        return _headers_of(header, policy, left, min(wait_s, _more_in(policy, left)))

    def _nearest(self, now: float) -> tuple[Bucket | None, int]:
        """Return the bucket with the smallest remaining fraction of its burst, and the number of remaining tokens."""
        least, left = None, 0
        share = math.inf
        for bucket in self.buckets:
            have = bucket.left(now)
            if have / bucket.policy.rate.burst <= share:
                share, least, left = have / bucket.policy.rate.burst, bucket, have
        return least, left


def _more_in(policy: Policy, left: int) -> int:
    """Return the maximum time until the next token, in whole seconds; 0 for a full bucket."""
    return math.ceil(1 / policy.rate.per_second) if left < policy.rate.burst else 0


def _headers_of(policies: str, of: Policy, left: int, seconds: int) -> RateLimitHeaders:
    headers = {"RateLimit-Policy": policies, "RateLimit": f'"{of.name}";r={left};t={seconds}'}
    return RateLimitHeaders(headers, "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode())


def quota_of(policy: Policy) -> str:
    """Return `q=..;w=..` for the header RateLimit-Policy.

    `w` is the time in which the burst is refilled, in whole seconds. `q` is the number of tokens that are refilled
    in that time.
    """
    rate = policy.rate
    seconds = max(1, math.ceil(rate.burst / rate.per_second))
    return f"q={rate.tokens * seconds * 1_000_000 // rate.period_us};w={seconds}"


def request_of(asked: Charges, debts: Sequence[int], rooms: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return the keys and arguments of decide.lua that request these tokens.

    The request is for at least `cost` tokens of each bucket, and at most `rooms[i]` tokens more. `debts[i]` is charged.
    """
    arguments: list[int] = []
    for (bucket, cost), debt, room in zip(asked, debts, rooms, strict=True):
        rate = bucket.policy.rate
        most = cost + room
        arguments += (rate.tokens, rate.period_us, rate.burst, rate.ceiling, debt, cost, most, int(bucket.shadowed))
    return [bucket.key for bucket, _ in asked], arguments
