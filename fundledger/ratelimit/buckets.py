"""The buckets that a worker knows, and the chains of them that requests meet: in bounded memory."""

from collections.abc import Callable
from typing import Final

from fundledger.ratelimit.bucket import Bucket
from fundledger.ratelimit.chain import Chain
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.policies import Kind, Policies, Policy

REMEMBERED: Final = 1 << 15
"""Buckets, and chains of them, in each of two generations."""

_Request = tuple[str, ApiClass, str | None, str | None]
"""Caller, class, merchant, account."""


class Buckets:
    """Two generations of each: what is used in the old one moves to the young one; when that is full it becomes the old
    one. What is forgotten was not refused and owes nothing, so that it is as it was when it is met again.

    `harvest` is called with what chains have counted before they are forgotten. `clock` answers monotonic seconds.
    """

    def __init__(self, policies: Policies, harvest: Callable[[str, int], None], clock: Callable[[], float]) -> None:
        self._policies = policies
        self._harvest = harvest
        self._clock = clock
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
            self._count(self._old_chains)
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
            chain = Chain([self._bucket(policy, key, workers) for policy, key in found], api_class)
        self._chains[request] = chain
        return chain

    def all(self) -> list[Bucket]:
        return [*self._young.values(), *self._old.values()]

    def count(self) -> None:
        """Harvest what was counted so far."""
        self._count(self._chains)
        self._count(self._old_chains)

    def _bucket(self, policy: Policy, key: str, workers: int) -> Bucket:
        name = f"{policy.name}:{key}"
        bucket = self._young.get(name)
        if bucket is not None:
            return bucket
        bucket = self._old.pop(name, None) or Bucket(policy, key, policy.leased(workers))
        if len(self._young) >= REMEMBERED:
            # What is not charged yet, and shares that are not full, may not be forgotten.
            kept = {name: bucket for name, bucket in self._old.items() if self._is_in_use(bucket)}
            self._old, self._young = {**kept, **self._young}, {}
            # A chain that lived longer than its buckets would spend from them beside their successors.
            self.count()
            self._chains, self._old_chains = {}, {}
        self._young[name] = bucket
        return bucket

    def _is_in_use(self, bucket: Bucket) -> bool:
        return bucket.debt != 0 or (bucket.state is not None and bucket.state[0] > self._clock() * 1e6)

    def _count(self, chains: dict[_Request, Chain]) -> None:
        for chain in chains.values():
            if chain.allowed:
                self._harvest(f"{chain.allow_key} lease", chain.allowed)
                chain.allowed = 0
