"""The buckets that a worker knows, and the chains of them that requests meet: in bounded memory."""

from collections.abc import Callable
from typing import Final

from fundledger.ratelimit.bucket import SPACE, Bucket
from fundledger.ratelimit.chain import Chain
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.policies import Kind, Policies, Policy

REMEMBERED: Final = 1 << 15
"""Buckets, and chains of them, in each of two generations."""
IN_USE_MAX: Final = 4 * REMEMBERED
"""Of those that may not be forgotten; beyond, in a long outage under a flood of keys, the oldest are."""

_Request = tuple[str, ApiClass, str | None, str | None]
"""Caller, class, merchant, account."""


class Buckets:
    """Two generations of each: what is used in the old one moves to the young one; when that is full it becomes the old
    one. What is forgotten was not refused and owes nothing, so that it is as it was when it is met again.

    `tallies` are what chains count in. `clock` answers monotonic seconds. `space`: as of a bucket.
    """

    def __init__(
        self, policies: Policies, tallies: dict[str, list[int]], clock: Callable[[], float], space: str = SPACE
    ) -> None:
        self._policies = policies
        self._tallies = tallies
        self._clock = clock
        self._space = space
        self._young: dict[str, Bucket] = {}
        self._old: dict[str, Bucket] = {}
        self._chains: dict[_Request, Chain] = {}
        self._old_chains: dict[_Request, Chain] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def chain(self, caller: str, api_class: ApiClass, merchant: str | None, account: str | None, workers: int) -> Chain:
        """The buckets that such a request meets, the most general first."""
        request = (caller, api_class, merchant, account)
        chain = self._chains.get(request)
        if chain is not None:
            return chain
        if len(self._chains) >= REMEMBERED:
            self._old_chains, self._chains = self._chains, {}
        chain = self._old_chains.pop(request, None)
        if chain is None:
            keys = {
                Kind.GLOBAL: "",
                Kind.CLASS: str(api_class),
                Kind.CALLER: caller,
                Kind.MERCHANT: merchant,
                Kind.ACCOUNT: account,
            }
            found = self._policies.matching(api_class, keys)
            chain = Chain([self._bucket(policy, key, workers) for policy, key in found], api_class, self._tallies)
        self._chains[request] = chain
        return chain

    def all(self) -> list[Bucket]:
        return [*self._young.values(), *self._old.values()]

    def replace(self, policies: Policies, workers: int) -> None:
        """From now on these policies count. What a bucket owes, and its share, stay with the policy of its name."""
        by_name = {policy.name: policy for policy in policies.all()}
        kept: dict[str, Bucket] = {}
        for bucket in self.all():
            policy = by_name.get(bucket.policy.name)
            if policy is not None and policy.kind is bucket.policy.kind and (bucket.debt or bucket.share is not None):
                bucket.change(policy, policy.leased(workers))
                kept[f"{policy.name}:{bucket.name}"] = bucket
        self._policies = policies
        self._young, self._old, self._chains, self._old_chains = {}, kept, {}, {}

    def _bucket(self, policy: Policy, key: str, workers: int) -> Bucket:
        name = f"{policy.name}:{key}"
        bucket = self._young.get(name)
        if bucket is not None:
            return bucket
        bucket = self._old.pop(name, None) or Bucket(policy, key, policy.leased(workers), self._space)
        if len(self._young) >= REMEMBERED:
            # What is not charged yet, and shares that are not full, may not be forgotten.
            in_use = [(name, bucket) for name, bucket in self._old.items() if self._is_in_use(bucket)]
            self._old, self._young = {**dict(in_use[-IN_USE_MAX:]), **self._young}, {}
            # A chain that lived longer than its buckets would spend from them beside their successors.
            self._chains, self._old_chains = {}, {}
        self._young[name] = bucket
        return bucket

    def _is_in_use(self, bucket: Bucket) -> bool:
        return bucket.debt != 0 or (bucket.share is not None and bucket.share.state[0] > self._clock() * 1e6)
