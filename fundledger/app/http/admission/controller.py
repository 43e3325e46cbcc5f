"""Admission controller of an HTTP worker: checks the caller's quotas (429), then the worker's own capacity (503).

An admitted request is in flight until `leave` is called for it. Every answer of a limited route has headers with the
caller's rate-limit status. Every rejection names the policy, the source of the decision and the version of the
policies. A rejection is returned as a reply, not raised.

Sources: RFC 6585 (status 429), RFC 9110, 10.2.3 (`Retry-After`), RFC 9457 (problems),
draft-ietf-httpapi-ratelimit-headers-11 (types of these problems), ADR 16, ADR 17.
"""

import math
import random
import time
from collections.abc import Iterable, Sequence
from typing import Final

from fundledger.app.http.admission.admission import REFUSED_UNSEEN, TRUSTED, UNLIMITED, Admission, Owned
from fundledger.app.http.admission.hot_keys import HotKeys
from fundledger.app.http.bodies.batch_decoding import LoopTurn
from fundledger.app.http.problems import IANA, PROBLEM_TYPE, QuotaExceeded, ReducedCapacity
from fundledger.app.http.wire.reply import NothingDone, Reply, encode
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.quota.bucket import Bucket, Charges
from fundledger.ratelimit.quota.limiter import Limiter
from fundledger.ratelimit.quota.matched import Denied, MatchedPolicies, Pending, RateLimitHeaders
from fundledger.ratelimit.shedding.shedder import Shedder

JITTER: Final = 0.2


class AdmissionController:
    """The admission controller of one worker. If `limiter` is None, there are no quotas.

    Call `leave` for every admitted request.

    `trusted`: the module that limits its own callers, so no policies apply to this module. It stores its intent
    before it sends a write. So its writes have the class `confirm`, which is shed last.
    """

    def __init__(
        self, limiter: Limiter | None, shedder: Shedder, hot_keys: HotKeys, trusted: str | None = None
    ) -> None:
        self.limiter = limiter
        self.shedder = shedder
        self.hot_keys = hot_keys
        self.trusted = trusted

    def recognise(self, admission: Admission, method: str = "POST") -> bool:
        """Return whether the request comes from the trusted module. If so, no policies apply to the request.

        A POST of the trusted module gets the class `confirm`. A read keeps its class.
        """
        if admission.module != self.trusted:
            return False
        admission.matched = TRUSTED
        if method == "POST":
            admission.api_class = ApiClass.CONFIRM
        return True

    def enter(
        self, admission: Admission, accounts: Sequence[Owned], cost: int = 1, also: ApiClass | None = None
    ) -> Reply | Pending | None:
        """Admit or reject a request. Return None if admitted, the answer if rejected, Pending if `ask` must be awaited.

        Never waits. `cost` tokens are charged to each bucket that applies to `accounts` and the class of the request.
        `also`: a second class whose buckets are charged, too. Tokens that `charge_caller` has charged are not charged
        again.
        """
        merchant = account_id = None
        if accounts:
            account = accounts[0]
            account_id = account.id
            merchant = admission.merchant = account.owner
        if account_id is not None and merchant is not None and len(accounts) == cost == 1 and not admission.seen:
            self.hot_keys.payment(merchant, account_id, admission.module)
        else:
            seen = self.hot_keys.seen
            for account in accounts:
                seen("merchant", account.owner, cost)
                seen("account", account.id, cost)
            if not admission.seen:
                seen("caller", admission.module, cost)
        limiter = self.limiter
        if limiter is not None and admission.matched is not TRUSTED:
            matched = limiter.match(admission.module, admission.api_class, merchant, account_id)
            admission.matched = matched
            if admission.charges or also is not None or len(accounts) > 1:
                return self._enter_charging(limiter, admission, accounts, cost, also)
            decision = limiter.admit(matched, cost, admission.started)
            if decision is not None:
                return decision if isinstance(decision, Pending) else self._denied(admission, decision, cost)
            admission.charged = cost
        return self.enter_uncharged(admission, admission.started)

    def _enter_charging(
        self, limiter: Limiter, admission: Admission, accounts: Sequence[Owned], cost: int, also: ApiClass | None
    ) -> Reply | Pending | None:
        costs = dict.fromkeys(self._buckets_of(limiter, admission, admission.api_class, accounts), cost)
        if also is not None:
            costs |= dict.fromkeys(self._buckets_of(limiter, admission, also, accounts), cost)
        admission.due = self._still_due(limiter, admission, costs)
        decision = limiter.admit_charges(admission.matched, admission.due, admission.started)
        if isinstance(decision, Pending):
            return decision
        if decision is not None:
            self.refund(admission)
            return self._denied(admission, decision, cost)
        admission.charges = (*admission.charges, *admission.due)
        return self.enter_uncharged(admission, admission.started)

    @staticmethod
    def _still_due(limiter: Limiter, admission: Admission, costs: dict[Bucket, int]) -> Charges:
        """Return the charges of `costs` that are not made yet. Refund earlier charges that `costs` does not contain."""
        undue = []
        for bucket, charged in admission.charges:
            due = min(charged, costs.get(bucket, 0))
            if due < charged:
                undue.append((bucket, charged - due))
            if due:
                costs[bucket] -= due
        if undue:
            limiter.give_back_charges(undue)
            back = dict(undue)
            admission.charges = [(bucket, n - back.get(bucket, 0)) for bucket, n in admission.charges]
        return [(bucket, n) for bucket, n in costs.items() if n]

    async def charge_caller(self, admission: Admission, cost: int = 1) -> Reply | None:
        """Charge the caller before a read of the database. Return None if the read may be made, else the answer.

        Call `enter`, `admit` or `ask_many` afterwards, even if the read finds nothing. That call admits the request,
        counts the decision and charges the accounts. Cancelling may leave the request charged.
        """
        admission.seen = True
        self.hot_keys.seen("caller", admission.module, cost)
        limiter = self.limiter
        if limiter is None or admission.matched is TRUSTED:
            return None
        matched = admission.matched = limiter.match(admission.module, admission.api_class, None, None)
        charges = matched.charges(cost)
        decision = await limiter.ask(
            MatchedPolicies(matched.buckets, matched.api_class, None), cost, time.monotonic(), charges
        )
        if decision is not None:
            return self._denied(admission, decision, cost)
        admission.charges = charges
        return None

    async def ask(self, admission: Admission, cost: int = 1) -> Reply | None:
        """Admit or reject a request for which `enter` returned Pending. Return None if admitted, else the answer.

        Waits for the rate-limit store, but not longer than the time limit of a store call. Cancelling admits nothing,
        and may leave the request charged.
        """
        if self.limiter is not None:
            due = admission.due
            decision = await self.limiter.ask(admission.matched, cost, admission.started, due)
            if decision is not None:
                self.refund(admission)
                charged = [n for bucket, n in due or () if bucket.policy is decision.policy]
                return self._denied(admission, decision, max(charged, default=cost))
            if due is None:
                admission.charged = cost
            else:
                admission.charges = (*admission.charges, *due)
        return self.enter_uncharged(admission, time.monotonic())

    async def admit(
        self, admission: Admission, accounts: Sequence[Owned], cost: int = 1, also: ApiClass | None = None
    ) -> Reply | None:
        """Call `enter` for a request, then `ask` if `enter` returned Pending. Return None if admitted, else the answer.

        Cancelling admits nothing, and may leave the request charged.
        """
        answer = self.enter(admission, accounts, cost, also)
        return await self.ask(admission, cost) if isinstance(answer, Pending) else answer

    def enter_uncharged(self, admission: Admission, now: float) -> Reply | None:
        """Admit or reject a request without a new charge. Return None if admitted, else the answer.

        A request is rejected if the worker has no capacity, or if the caller no longer waits. The charges of a rejected
        request are refunded. `now`: monotonic time in seconds.
        """
        budget_s = admission.budget_s
        if budget_s is not None:
            budget_s -= now - admission.started
        reason = self.shedder.enter(admission.api_class, admission.merchant, now, budget_s)
        if reason is not None:
            self.refund(admission)
            admission.shed = True
            return self._shed(admission, reason)
        admission.inside = True
        return None

    def early_rejection(self, admission: Admission) -> Reply | None:
        """Reject a request before its body or the database is read. Return the answer, or None if it may proceed.

        A request is rejected if the load-shed level excludes its class. It is also rejected if this worker has cached
        that a quota of the caller is used up. Makes no call to the store and charges nothing.
        """
        if self.shedder.is_shut(admission.api_class):
            admission.shed = True
            return self._shed(admission, "worker")
        limiter = self.limiter
        if limiter is None or admission.matched is TRUSTED or limiter.store.breaker.open:
            return None
        now = time.monotonic()
        matched = limiter.match(admission.module, admission.api_class, None, None)
        for bucket in matched.buckets:
            if bucket.denies(1, now) and not bucket.shadowed and not bucket.has(1, now):
                admission.matched = matched
                self.hot_keys.seen("caller", admission.module)
                counted = f"{bucket.policy.name} {matched.api_class} deny denycache"
                limiter.counts.decisions[counted] = limiter.counts.decisions.get(counted, 0) + 1
                return self._denied(admission, Denied(bucket.policy, "denycache", bucket.retry_at - now), 1)
        return None

    def charge_refused(self, admission: Admission, reply: Reply) -> Reply | Pending:
        """Charge the caller one token for a request that was rejected uncharged, such as a malformed request.

        Return the answer: `reply`, or a 429 if the quota is used up. After Pending, the caller of this method answers
        with `reply` and runs `charge_later`, which calls the store. Never waits.
        """
        limiter = self.limiter
        if (
            limiter is None
            or not admission.module
            or admission.charged
            or admission.charges
            or admission.matched is TRUSTED
        ):
            return reply
        if admission.refused is not None or reply.status not in REFUSED_UNSEEN:
            return reply
        self.hot_keys.seen("caller", admission.module)
        admission.matched = limiter.match(admission.module, admission.api_class, None, None)
        decision = limiter.admit(admission.matched, 1, time.monotonic())
        if isinstance(decision, Denied):
            return self._denied(admission, decision, 1)
        return reply if decision is None else decision

    async def charge_later(self, admission: Admission) -> None:
        """Charge the caller one token, even if none is left. Cancelling may leave the token charged."""
        if self.limiter is not None:
            await self.limiter.ask(admission.matched, 1, time.monotonic())

    def rate_limit_headers(self, admission: Admission, now: float) -> MatchedPolicies | RateLimitHeaders:
        """Return the rate-limit status of the caller, for the headers of its answer."""
        if admission.refused is not None:
            return admission.refused
        matched = admission.matched
        if matched is UNLIMITED and self.limiter is not None and admission.module:
            matched = self.limiter.match(admission.module, admission.api_class, None, None)
        if now >= matched.valid_until:
            matched.current(now)
        return matched

    def refund(self, admission: Admission) -> None:
        """Refund all charges of a request. Called for a replay, and for a request for which nothing was done."""
        if self.limiter is None:
            return
        if admission.charges:
            self.limiter.give_back_charges(admission.charges)
        if admission.charged:
            self.limiter.give_back(admission.matched, admission.charged)
        admission.charges, admission.charged = (), 0

    def leave(self, admission: Admission, now: float, reply: Reply | None = None) -> None:
        """End a request after its answer or the loss of its connection. Refund charges if `reply` is NothingDone."""
        dropped = reply is not None and reply.status >= 500
        if dropped and type(reply) is NothingDone:
            self.refund(admission)
        if admission.inside:
            admission.inside = False
            self.shedder.leave(admission.api_class, admission.merchant, now - admission.started, dropped=dropped)

    async def ask_many(
        self, admission: Admission, items: Iterable[tuple[ApiClass, Sequence[Owned]]], count: int
    ) -> Reply | None:
        """Admit or reject a batch of `count` items as a whole. Return None if admitted, else the answer.

        For each item, one token is charged to each bucket of a single request for that item, and to each bucket of the
        class `batch`. A bucket of both kinds is charged once. For the trusted module `items` is not read, because no
        policies apply. Cancelling admits nothing, and may leave the batch charged.
        """
        if admission.matched is TRUSTED:
            self.hot_keys.seen("caller", admission.module, count)
            return self.enter_uncharged(admission, time.monotonic())
        if not admission.seen:
            self.hot_keys.seen("caller", admission.module, count)
        limiter = self.limiter
        costs: dict[Bucket, int] = {}
        hot: dict[tuple[str, str], int] = {}
        turn = LoopTurn()
        for api_class, accounts in items:
            for account in accounts:
                for key in (("merchant", account.owner), ("account", account.id)):
                    hot[key] = hot.get(key, 0) + 1
            if limiter is not None:
                for bucket in self._buckets_of(limiter, admission, api_class, accounts):
                    costs[bucket] = costs.get(bucket, 0) + 1
            if turn.is_over():
                await turn.next()
        for (kind, name), n in hot.items():
            self.hot_keys.seen(kind, name, n)
            if turn.is_over():
                await turn.next()
        if limiter is None:
            return self.enter_uncharged(admission, time.monotonic())
        admission.matched = limiter.match(admission.module, admission.api_class, None, None)
        for bucket in admission.matched.buckets:
            costs[bucket] = count
        admission.due = self._still_due(limiter, admission, costs)
        return await self.ask(admission, count)

    @staticmethod
    def _buckets_of(
        limiter: Limiter, admission: Admission, api_class: ApiClass, accounts: Sequence[Owned]
    ) -> Iterable[Bucket]:
        """Return the buckets that one item is charged to. No bucket is returned twice."""
        if len(accounts) == 1:
            return limiter.match(admission.module, api_class, accounts[0].owner, accounts[0].id).buckets
        buckets = dict.fromkeys(limiter.match(admission.module, api_class, None, None).buckets)
        for account in accounts:
            buckets |= dict.fromkeys(limiter.match(admission.module, api_class, account.owner, account.id).buckets)
        return buckets

    def refund_one(self, admission: Admission, api_class: ApiClass, accounts: Sequence[Owned]) -> None:
        """Refund the tokens of an item of a batch, including tokens of the class `batch`. Called for a replay."""
        if self.limiter is not None and admission.matched is not TRUSTED:
            alone = self._buckets_of(self.limiter, admission, api_class, accounts)
            buckets = dict.fromkeys((*admission.matched.buckets, *alone))
            self.limiter.give_back_charges([(bucket, 1) for bucket in buckets])

    def too_many_wait(self) -> Reply:
        """Return the answer (429) to a caller that has the maximum number of long polls at this worker."""
        return self._of_worker(
            "waiting", "this caller has the maximum number of waiting requests for events at this worker", 1.0
        )

    def too_many_of_peer(self, wait_s: float) -> Reply:
        """Return the answer (429) to an address that sends too many requests without a valid token."""
        return self._of_worker(
            "unauthenticated", "too many requests without a valid token come from this address", wait_s
        )

    def _of_worker(self, limit: str, detail: str, wait_s: float) -> Reply:
        version = self.limiter.policies.version if self.limiter is not None else ""
        whole_s = max(1, math.ceil(wait_s))
        headers = {"Retry-After": str(whole_s), "X-Limit-Decision": f"{limit};worker;{version}"}
        return _exceeded(limit, detail, whole_s, headers)

    def _denied(self, admission: Admission, denied: Denied, cost: int) -> Reply:
        version = self.limiter.policies.version if self.limiter is not None else ""
        wait_s = max(1, math.ceil(denied.retry_s * (1 + random.random() * JITTER)))  # noqa: S311 - spreads retries
        policy = denied.policy
        headers = {
            "Retry-After": str(wait_s),
            "X-Limit-Decision": f"{policy.name};{denied.source};{version}",
        }
        left = cost if denied.source != "fallback" else 1
        admission.refused = admission.matched.refused(time.monotonic(), wait_s, policy, left)
        if denied.closed:
            admission.shed = True
            detail = "the rate-limit store is unavailable, and requests of this class are rejected until it is back"
            return _reduced(detail, wait_s, headers)
        if cost > policy.rate.burst:
            most = f"the burst of {policy.rate.burst} of the policy {policy.name}"
            detail = f"the request costs {cost} tokens, more than {most}"
        else:
            detail = f"the quota of the policy {policy.name} is used up; nothing was done, send the same request later"
        return _exceeded(policy.name, detail, wait_s, headers)

    def _shed(self, admission: Admission, reason: str) -> Reply:
        wait_s = self.shedder.retry_after_s(admission.api_class)
        wait_s = math.ceil(wait_s * (1 + random.random() * JITTER))  # noqa: S311 - spreads retries
        admission.refused = admission.matched.refused(time.monotonic(), wait_s, None, 0)
        version = self.limiter.policies.version if self.limiter is not None else ""
        headers = {"Retry-After": str(wait_s), "X-Limit-Decision": f"{reason};shedder;{version}"}
        detail = "the service is overloaded; nothing was done, the same request may be sent again"
        return _reduced(detail, wait_s, headers)


def _exceeded(violated: str, detail: str, wait_s: int, headers: dict[str, str]) -> Reply:
    type_, wait_ms = IANA + "quota-exceeded", wait_s * 1000
    body = QuotaExceeded(type_, "Too many requests", 429, detail, [violated], wait_ms)
    return Reply(429, encode(body), PROBLEM_TYPE, headers)


def _reduced(detail: str, wait_s: int, headers: dict[str, str]) -> Reply:
    type_, wait_ms = IANA + "temporary-reduced-capacity", wait_s * 1000
    body = ReducedCapacity(type_, "Service temporarily unavailable", 503, detail, wait_ms)
    return Reply(503, encode(body), PROBLEM_TYPE, headers)
