"""Leases of rate limit tokens: the store deducts tokens before a worker spends them. Unspent tokens are returned."""

from fundledger.ratelimit.quota.bucket import Bucket
from fundledger.ratelimit.stats import Limits


class Leases:
    """Rate limit leases of one worker. Times are monotonic seconds."""

    def __init__(self, counts: Limits) -> None:
        self._counts = counts
        self._holding: list[Bucket] = []

    def hold(self, bucket: Bucket, tokens: int, now: float) -> None:
        """Record a lease of `tokens` granted by the store."""
        if not bucket.holding:
            bucket.holding = True
            self._holding.append(bucket)
        bucket.granted(tokens, now)
        self.count(bucket, "granted", tokens)

    def expire(self, now: float) -> list[Bucket]:
        """End the leases whose lifetime is over. Return the buckets whose unspent tokens must be returned to the store.

        Tokens are returned if more than half of a lease is left. A smaller number of unspent tokens expires.
        """
        holding, returned = [], []
        for bucket in self._holding:
            if now < bucket.expires:
                holding.append(bucket)
                continue
            bucket.holding = False
            is_returned = bucket.tokens * 2 > bucket.want
            self.count(bucket, "returned" if is_returned else "expired", bucket.tokens)
            if is_returned:
                bucket.give_back(bucket.tokens)
                returned.append(bucket)
            bucket.tokens = bucket.low = 0
            bucket.want //= 2
        self._holding = holding
        return returned

    def count(self, bucket: Bucket, state: str, tokens: int) -> None:
        key = f"{bucket.policy.name} {state}"
        self._counts.lease_tokens[key] = self._counts.lease_tokens.get(key, 0) + tokens

    def settle_counts(self, policies: list[str]) -> None:
        """Update the counters of spent tokens.

        Spent tokens are granted tokens that are not held, returned or expired. A counter never falls.
        """
        held: dict[str, int] = {}
        for bucket in self._holding:
            held[bucket.policy.name] = held.get(bucket.policy.name, 0) + bucket.tokens
        tokens = self._counts.lease_tokens
        for policy in policies:
            gone = held.get(policy, 0) + sum(tokens.get(f"{policy} {state}", 0) for state in ("returned", "expired"))
            spent = tokens.get(f"{policy} granted", 0) - gone
            tokens[f"{policy} spent"] = max(spent, tokens.get(f"{policy} spent", 0))
