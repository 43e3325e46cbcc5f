"""Tokens that a worker holds: deducted in the store before they are spent, and returned when they are not."""

from fundledger.ratelimit.bucket import Bucket
from fundledger.ratelimit.counted import Limits


class Leases:
    """Of one worker. Times are monotonic seconds."""

    def __init__(self, counts: Limits) -> None:
        self._counts = counts
        self._holding: list[Bucket] = []

    def hold(self, bucket: Bucket, tokens: int, now: float) -> None:
        """Record that the store granted so many."""
        if not bucket.holding:
            bucket.holding = True
            self._holding.append(bucket)
        bucket.granted(tokens, now)
        self.count(bucket, "granted", tokens)

    def expire(self, now: float) -> list[Bucket]:
        """End leases that were not spent in time, and return the buckets that owe the store what is given back.

        Most of a lease goes back; a rest is left to expire.
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
        """Count as spent what was granted and is neither held nor gone. Never fewer than were counted before."""
        held: dict[str, int] = {}
        for bucket in self._holding:
            held[bucket.policy.name] = held.get(bucket.policy.name, 0) + bucket.tokens
        tokens = self._counts.lease_tokens
        for policy in policies:
            gone = held.get(policy, 0) + sum(tokens.get(f"{policy} {state}", 0) for state in ("returned", "expired"))
            spent = tokens.get(f"{policy} granted", 0) - gone
            tokens[f"{policy} spent"] = max(spent, tokens.get(f"{policy} spent", 0))
