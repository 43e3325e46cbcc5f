"""Rate limiter of one worker: decides a request from leased tokens, or by one call to the shared store.

`admit` decides a request immediately if local state suffices: leased tokens, overdraft tokens, or a cached refusal.
While the store is unavailable, `admit` decides by the local quota. For other requests, `ask` runs a script in the store
(several for a large batch): all matched policies are charged, or none. A refusal is counted once, under the policy that
refused. An admission is counted under the most specific matched policy.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota import fallback
from fundledger.ratelimit.quota.bucket import SPACE, Bucket, Charges
from fundledger.ratelimit.quota.buckets import Buckets
from fundledger.ratelimit.quota.leases import Leases
from fundledger.ratelimit.quota.matched import PENDING, Denied, MatchedPolicies, Pending, request_of
from fundledger.ratelimit.quota.policies import Policies
from fundledger.ratelimit.quota.store import Store, StoreAway
from fundledger.ratelimit.quota.usage import Usage
from fundledger.ratelimit.stats import Limits, Times

SETTLE_S: Final = 0.02
EAGER: Final = 8
"""A bucket gets a lease if at least EAGER of its overdraft tokens were spent since the last call of `settle`."""
KEYS_AT_ONCE: Final = 64
"""Maximum number of buckets in one script. With this number, the script takes about as long as a round trip."""
SETTLED_S: Final = 0.25
"""Deadline (s) of a store call in `settle`. The deadline is long, because no request waits for the call."""
PATIENT_S: Final = 0.05
"""Deadline (s) of the second store call for a request that the local quota refuses while the store is available."""
LOCAL_S: Final = 0.1
"""For this time (s) after a late reply of the store, requests with only leased policies use the local quota."""
LOCAL_SHOWN_S: Final = 1.0
LEASE_COSTS: Final = 4
"""A request that costs more than 1 / LEASE_COSTS of a lease gets none: a lease would take other workers' tokens."""
SAMPLE: Final = 16
"""The duration of one in SAMPLE decisions on leased tokens is measured."""
CLOSED_ATTEMPTS: Final = 10
"""Maximum number of store calls for a request of a class that the local quota does not admit (`fallback.CLOSED`)."""


class Limiter:
    """Rate limiter of one worker. The caller runs `run` and `store.run` as tasks. Not thread-safe.

    `clock` returns monotonic seconds; every `now` is on the same clock. `shadow` changes only the reported mode,
    because `parse` has already put the policies into shadow mode.
    """

    def __init__(
        self,
        policies: Policies,
        store: Store,
        counts: Limits,
        *,
        shadow: bool = False,
        clock: Callable[[], float] = time.monotonic,
        space: str = SPACE,
    ) -> None:
        self._clock, self._shadow = clock, shadow
        self.counts = counts
        self.store = store
        self.policies = policies
        self._workers = store.workers
        self._admitted: dict[str, list[int]] = {}
        self._buckets = Buckets(policies, self._admitted, clock, space)
        self._dirty: list[Bucket] = []
        self._leases = Leases(counts)
        self._wake = asyncio.Event()
        self._urgent = False
        self._until_timed = SAMPLE
        self._local_until = self._clock() - LOCAL_SHOWN_S
        self._usage = Usage()
        self.replace(policies)

    def match(self, caller: str, api_class: ApiClass, merchant: str | None, account: str | None) -> MatchedPolicies:
        """Return the policies that match a request with these properties. The result is cached until `replace`."""
        return self._buckets.match(caller, api_class, merchant, account, self.store.workers)

    def admit(self, matched: MatchedPolicies, cost: int, now: float) -> Denied | Pending | None:
        """Decide a request from local state. Neither waits nor raises.

        Return None if the request is admitted and charged, PENDING if `ask` has to be called, otherwise the refusal.
        """
        for bucket in matched.buckets:
            if bucket.tokens < cost or now >= bucket.expires:
                return self._admit_slowly(matched, matched.charges(cost), now)
        for bucket in matched.buckets:
            bucket.tokens -= cost
            if bucket.tokens < bucket.low and not bucket.dirty:
                self._refill(bucket)
        matched.admitted[0] += 1
        self._until_timed -= 1
        if self._until_timed <= 0:
            self._until_timed = SAMPLE
            self.counts.decision_s["lease"].observe(self._clock() - now)
        return None

    def admit_charges(self, matched: MatchedPolicies, charges: Charges, now: float) -> Denied | Pending | None:
        """Decide a request as `admit` does, with a charge for each bucket instead of one cost for all buckets."""
        return self._admit_slowly(matched, charges, now)

    async def ask(
        self, matched: MatchedPolicies, cost: int, now: float, charges: Charges | None = None
    ) -> Denied | None:
        """Decide whether a request is admitted. If the local state does not suffice, the store decides.

        Return None if the request is admitted and charged, and otherwise the refusal. One store call covers all
        policies and takes at most 5 ms. Each bucket is charged `cost` tokens, unless `charges` is given (for a batch
        with several merchants). If the caller is cancelled, at most the cost of this request is charged.
        """
        charges = matched.charges(cost) if charges is None else charges
        for _ in range(CLOSED_ATTEMPTS if matched.api_class in fallback.CLOSED else 1):
            decision = self._admit_slowly(matched, charges, now)
            if not isinstance(decision, Pending):
                return decision
            try:
                return await self._ask_store(matched, charges, now)
            except StoreAway:
                if not self.store.breaker.open:
                    self._local_until = self._clock() + LOCAL_S
        decision = self._admit_locally(matched, charges, now, patient=True)
        if not isinstance(decision, Pending):
            return decision
        with contextlib.suppress(StoreAway):
            return await self._ask_store(matched, charges, now, PATIENT_S)
        decision = self._admit_locally(matched, charges, now)
        assert not isinstance(decision, Pending)
        return decision

    async def _ask_store(
        self,
        matched: MatchedPolicies,
        charges: Charges,
        now: float,
        deadline_s: float | None = None,
    ) -> Denied | None:
        """Let the store decide. Raises StoreAway. If the reply arrives late, the charge is corrected then."""
        held: list[tuple[Bucket, int]] = []
        asked = []
        for bucket, cost in charges:
            if bucket.has(cost, now):
                bucket.take(cost, now)
                held.append((bucket, cost))
                if bucket.debt and not bucket.dirty:
                    self._refill(bucket)
            else:
                bucket.want = bucket.hold if cost * LEASE_COSTS <= bucket.hold else 0
                asked.append((bucket, cost))
        source = "strict" if matched.strict else "lease"
        for at in range(0, len(asked), KEYS_AT_ONCE):
            some = asked[at : at + KEYS_AT_ONCE]
            try:
                admitted, short = await self._decide(some, deadline_s)
            except BaseException:
                self._return(held)
                raise
            if not admitted:
                self._return(held)
            for bucket in short:
                if not bucket.shadowed:
                    return self._denied(matched, bucket, source, bucket.retry_at - self._clock(), now)
                self._count(f"{bucket.policy.name} {matched.api_class} shadow_deny {source}", 1)
            held += [charge for charge in some if charge[0] not in short]
        if source == "lease":
            matched.admitted[0] += 1
        elif matched.counted:
            self._count(f"{matched.allow_key} {source}", 1)
        self.counts.decision_s["strict"].observe(self._clock() - now)
        return None

    def _admit_slowly(self, matched: MatchedPolicies, charges: Charges, now: float) -> "Denied | Pending | None":
        if self.store.breaker.open:
            return self._admit_locally(matched, charges, now)
        passed = []
        for bucket, cost in charges:
            if bucket.share is not None and bucket.share.spent:
                fallback.rejoin(bucket, int(now * 1e6))
            if not bucket.denies(cost, now):
                continue
            self._usage.demanded(bucket, cost, now)
            if not bucket.shadowed:
                return self._denied(matched, bucket, "denycache", bucket.retry_at - now, now)
            passed.append(bucket)
        for bucket, cost in charges:
            if not bucket.has(cost, now) and bucket not in passed:
                if now >= self._local_until or matched.api_class in fallback.CLOSED or matched.strict:
                    return PENDING
                is_leased = all(bucket.hold for bucket, _ in charges)
                return self._admit_locally(matched, charges, now, patient=True) if is_leased else PENDING
        for bucket, cost in charges:
            if bucket in passed:
                self._count(f"{bucket.policy.name} {matched.api_class} shadow_deny denycache", 1)
                continue
            bucket.take(cost, now)
            if not bucket.dirty and (bucket.debt or bucket.tokens < bucket.low):
                self._refill(bucket)
        matched.admitted[0] += 1
        self.counts.decision_s["lease"].observe(self._clock() - now)
        return None

    def _return(self, held: Charges) -> None:
        for bucket, cost in held:
            bucket.give_back(cost)
            if not bucket.dirty:
                self._refill(bucket)

    def give_back(self, matched: MatchedPolicies, cost: int) -> None:
        """Return the tokens of an admitted request that was shed afterwards, or was a replay.

        Call it at most once for each admission, with at most the cost of the request. While the store is unavailable,
        nothing is returned.
        """
        self.give_back_charges(matched.charges(cost))

    def give_back_charges(self, charges: Charges) -> None:
        """Return the tokens of an admitted request as `give_back` does. `charges`: the charges of the request."""
        if not self.store.breaker.open:
            self._return([charge for charge in charges if not charge[0].shadowed])

    async def peek(self, matched: MatchedPolicies) -> list[tuple[int, int]]:
        """Return `(available tokens, us until full)` of each matched bucket. Raises StoreAway. Charges nothing."""
        nothing = [0] * len(matched.buckets)
        reply = await self.store.decide(*request_of(matched.charges(0), nothing, nothing), lambda _: None)
        return [(reply[i * 4 + 2], reply[i * 4 + 4]) for i in range(len(matched.buckets))]

    def replace(self, policies: Policies) -> None:
        """Replace the policies. Held tokens are returned to the store. Spent tokens are still charged."""
        for bucket in self._buckets.all():
            if bucket.tokens:
                self._leases.count(bucket, "returned", bucket.tokens)
                bucket.give_back(bucket.tokens)
                bucket.tokens = 0
            if bucket.debt and not bucket.dirty:
                self._refill(bucket)
        self._buckets.replace(policies, self._workers)
        self.policies = policies
        self.counts.version = policies.version
        self.counts.policies = {p.name: (p.rate.per_second, p.rate.burst) for p in policies.all()}
        for source in ("lease", "strict", "denycache", "fallback"):
            self.counts.decision_s.setdefault(source, Times())

    def counted(self) -> Limits:
        """Update the counters that are derived from other state, and return all counters."""
        counts = self.counts
        counts.decisions |= {f"{key} lease": admitted[0] for key, admitted in self._admitted.items() if admitted[0]}
        self._leases.settle_counts([policy.name for policy in self.policies.all()])
        counts.utilization = self._usage.top(self._clock())
        away = self.store.away_since
        is_local = self._clock() < self._local_until + LOCAL_SHOWN_S
        counts.mode = (
            "fallback" if away is not None else "local" if is_local else "shadow" if self._shadow else "normal"
        )
        counts.fallback_s = 0.0 if away is None else self._clock() - away
        return counts

    async def run(self) -> None:
        """Charge spent tokens, refill leases before they run out, and return unspent tokens, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._dirty:
                self._wake.clear()
                timer = loop.call_later(0.1, self._wake.set)
                await self._wake.wait()
                timer.cancel()
            if not self._urgent:
                await asyncio.sleep(SETTLE_S)
            self._urgent = False
            await self.settle()

    async def settle(self) -> None:
        """Charge debt, refill leases and return unspent tokens, for all buckets that are due."""
        self._expire(self._clock())
        dirty, self._dirty = self._dirty, []
        for at in range(0, len(dirty), KEYS_AT_ONCE):
            await self._settle(dirty[at : at + KEYS_AT_ONCE])

    async def _settle(self, buckets: list[Bucket]) -> None:
        for bucket in buckets:
            bucket.dirty = False
            eager = bucket.low > 0 or bucket.debt >= EAGER or bucket.debt * 4 > bucket.credit
            bucket.want = min(bucket.hold, max(2 * bucket.want, 4 * bucket.debt)) if eager and bucket.debt >= 0 else 0
        with contextlib.suppress(StoreAway):
            await self._decide([(bucket, 0) for bucket in buckets], SETTLED_S)

    async def _decide(self, asked: Charges, deadline_s: float | None = None) -> tuple[bool, list[Bucket]]:
        """Call the store for tokens and leases. Return `(admitted, buckets with too few tokens)`. Raises StoreAway."""
        now = self._clock()
        rooms = [bucket.room(now) for bucket, _ in asked]
        debts = [bucket.debt for bucket, _ in asked]
        for (bucket, _), room in zip(asked, rooms, strict=True):
            bucket.charging += bucket.debt
            bucket.asking += room
            bucket.debt = 0

        def late(reply: list[int] | None) -> None:
            self._answered_late(asked, debts, rooms, reply)

        reply = await self.store.decide(*request_of(asked, debts, rooms), late, deadline_s)
        for (bucket, _), debt, room in zip(asked, debts, rooms, strict=True):
            bucket.charging -= debt
            bucket.asking -= room
        now = self._clock()
        short = []
        for i, (bucket, cost) in enumerate(asked):
            granted, remaining, retry_us, reset_us = reply[i * 4 + 1 : i * 4 + 5]
            self._usage.demanded(bucket, granted + debts[i] + (asked[i][1] if retry_us else 0), now)
            bucket.answer(remaining, reset_us, now)
            if granted > cost:
                self._leases.hold(bucket, granted - cost, now)
            if retry_us:
                bucket.refused(cost, retry_us, now)
                short.append(bucket)
        return reply[0] == 1, short

    def _answered_late(
        self,
        asked: Charges,
        debts: Sequence[int],
        rooms: Sequence[int],
        reply: list[int] | None,
    ) -> None:
        """Process a late reply to a store call: hold the granted tokens. If `reply` is None, restore the debt."""
        now = self._clock()
        for i, (bucket, _) in enumerate(asked):
            bucket.charging -= debts[i]
            bucket.asking -= rooms[i]
            if reply is None:
                bucket.debt += debts[i]
                if debts[i] and not bucket.dirty and not self.store.breaker.open:
                    self._refill(bucket)
                continue
            granted, remaining, _, reset_us = reply[i * 4 + 1 : i * 4 + 5]
            bucket.answer(remaining, reset_us, now)
            if granted:
                self._leases.hold(bucket, granted, now)

    def _admit_locally(
        self, matched: MatchedPolicies, charges: Charges, now: float, *, patient: bool = False
    ) -> Denied | Pending | None:
        """Decide by the local quota. `patient`: return PENDING instead of a refusal while the store is available."""
        if not charges:
            matched.admitted[0] += 1
            return None
        if matched.api_class in fallback.CLOSED:
            return self._denied(matched, charges[-1][0], "fallback", 1.0, now, closed=True)
        is_away = self.store.breaker.open
        outage = self.store.outages
        _, grants = fallback.take(charges, matched.api_class, self.store.workers, outage, int(now * 1e6))
        for (bucket, cost), grant in zip(charges, grants, strict=True):
            if is_away or (grant.retry_us and not patient):
                self._usage.demanded(bucket, cost, now)
            if grant.retry_us and bucket.shadowed:
                self._count(f"{bucket.policy.name} {matched.api_class} shadow_deny fallback", 1)
            elif grant.retry_us:
                if patient and not is_away:
                    return PENDING
                return self._denied(matched, bucket, "fallback", grant.retry_us / 1e6, now)
        for bucket, cost in charges:
            if not is_away and bucket.share is not None:
                # The store is available and only a reply was late. The request is therefore charged in the store.
                bucket.share.spent -= cost
                bucket.debt += cost
                if not bucket.dirty:
                    self._refill(bucket)
        if matched.counted:
            self._count(f"{matched.allow_key} fallback", 1)
        self.counts.decision_s["fallback"].observe(self._clock() - now)
        return None

    def _denied(
        self, matched: MatchedPolicies, bucket: Bucket, source: str, retry_s: float, now: float, *, closed: bool = False
    ) -> Denied:
        self._count(f"{bucket.policy.name} {matched.api_class} deny {source}", 1)
        self.counts.decision_s["strict" if source == "lease" else source].observe(self._clock() - now)
        return Denied(bucket.policy, source, max(0.0, retry_s), closed)

    def _refill(self, bucket: Bucket) -> None:
        bucket.dirty = True
        if bucket.tokens < bucket.low:
            self._urgent = True
        if not self._dirty:
            self._wake.set()
        self._dirty.append(bucket)

    def _expire(self, now: float) -> None:
        """End the leases whose lifetime is over. Resize the buckets if the number of workers has changed."""
        for bucket in self._leases.expire(now):
            if not bucket.dirty:
                self._refill(bucket)
        if self.store.workers != self._workers:
            self._workers = self.store.workers
            for bucket in self._buckets.all():
                bucket.resize(bucket.policy.leased(self._workers))

    def _count(self, key: str, count: int) -> None:
        self.counts.decisions[key] = self.counts.decisions.get(key, 0) + count
