"""Cache of rate limits in one worker: buckets, and the matched policies of requests. The memory is bounded."""

from collections.abc import Callable
from typing import Final

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.bucket import SPACE, Bucket
from fundledger.ratelimit.quota.matched import MatchedPolicies
from fundledger.ratelimit.quota.policies import Kind, Policies, Policy

REMEMBERED: Final = 1 << 15
"""Maximum number of buckets, and of matched policies, in each of the two generations of the cache."""
IN_USE_MAX: Final = 4 * REMEMBERED
"""Maximum number of buckets with debt or a local quota. If there are more, as in a long outage with a flood of keys,
the oldest buckets are dropped."""

_Request = tuple[str, ApiClass, str | None, str | None]
"""`(caller, class, merchant, account)`."""


class Buckets:
    """Cache of buckets and of matched policies, in two generations.

    An element that is used moves from the old generation to the young one. A full young generation becomes the old one,
    and the previous old one is dropped. Buckets with debt or a local quota are kept. If a dropped bucket is created
    again later, the new bucket therefore has the same state.

    `admitted` are the admission counters of the matched policies. `clock` returns monotonic seconds. `space` is the key
    prefix in the store.
    """

    def __init__(
        self, policies: Policies, admitted: dict[str, list[int]], clock: Callable[[], float], space: str = SPACE
    ) -> None:
        self._policies = policies
        self._admitted = admitted
        self._clock = clock
        self._space = space
        self._young: dict[str, Bucket] = {}
        self._old: dict[str, Bucket] = {}
        self._matches: dict[_Request, MatchedPolicies] = {}
        self._old_matches: dict[_Request, MatchedPolicies] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def match(
        self, caller: str, api_class: ApiClass, merchant: str | None, account: str | None, workers: int
    ) -> MatchedPolicies:
        """Return the policies that match a request, with their buckets, the most general first.

        `caller`, class, merchant and account are those of the request. `workers` is the number of live workers.
        """
        request = (caller, api_class, merchant, account)
        matched = self._matches.get(request)
        if matched is not None:
            return matched
        if len(self._matches) >= REMEMBERED:
            self._old_matches, self._matches = self._matches, {}
        matched = self._old_matches.pop(request, None)
        if matched is None:
            keys = {
                Kind.GLOBAL: "",
                Kind.CLASS: str(api_class),
                Kind.CALLER: caller,
                Kind.MERCHANT: merchant,
                Kind.ACCOUNT: account,
            }
            found = self._policies.matching(api_class, keys)
            matched = MatchedPolicies(
                [self._bucket(policy, key, workers) for policy, key in found], api_class, self._admitted
            )
        self._matches[request] = matched
        return matched

    def all(self) -> list[Bucket]:
        return [*self._young.values(), *self._old.values()]

    def replace(self, policies: Policies, workers: int) -> None:
        """Replace the policies. A bucket keeps debt and local quota if a policy of the same name and kind exists."""
        by_name = {policy.name: policy for policy in policies.all()}
        kept: dict[str, Bucket] = {}
        for bucket in self.all():
            policy = by_name.get(bucket.policy.name)
            if policy is not None and policy.kind is bucket.policy.kind and (bucket.debt or bucket.share is not None):
                bucket.change(policy, policy.leased(workers))
                kept[f"{policy.name}:{bucket.name}"] = bucket
        self._policies = policies
        self._young, self._old, self._matches, self._old_matches = {}, kept, {}, {}

    def _bucket(self, policy: Policy, key: str, workers: int) -> Bucket:
        name = f"{policy.name}:{key}"
        bucket = self._young.get(name)
        if bucket is not None:
            return bucket
        bucket = self._old.pop(name, None) or Bucket(policy, key, policy.leased(workers), self._space)
        if len(self._young) >= REMEMBERED:
            # Buckets with debt, or with a local quota that is not full, must be kept.
            in_use = [(name, bucket) for name, bucket in self._old.items() if self._is_in_use(bucket)]
            self._old, self._young = {**dict(in_use[-IN_USE_MAX:]), **self._young}, {}
            # Cached matches are dropped too. Otherwise requests would spend tokens of a dropped bucket while a new
            # bucket with the same key exists.
            self._matches, self._old_matches = {}, {}
        self._young[name] = bucket
        return bucket

    def _is_in_use(self, bucket: Bucket) -> bool:
        return bucket.debt != 0 or (bucket.share is not None and bucket.share.state[0] > self._clock() * 1e6)
