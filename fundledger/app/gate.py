"""Where a request is let in: its caller's limits first (429), then this worker's own capacity (503).

What is let in is in flight until it `leaves`. Every answer of a limited route tells the caller where he stands, every
refusal which policy decided, from where, and which version of the policies. Refusals are answers here: nothing raises.

429: RFC 6585; `Retry-After`: RFC 9110, 10.2.3; problems: RFC 9457, with the types that
draft-ietf-httpapi-ratelimit-headers-11 registers. ADR 16, ADR 17.
"""

import math
import random
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

from fundledger.app.hotkeys import HotKeys
from fundledger.app.many import Turn
from fundledger.app.moved import moved
from fundledger.app.passage import REFUSED_UNSEEN, TRUSTED, UNLIMITED, Charges, Owned, Passage
from fundledger.app.problems import PROBLEM_TYPE
from fundledger.app.render import encode
from fundledger.app.reply import Reply, Undone
from fundledger.ledger.voucher import Voucher
from fundledger.ratelimit.bucket import Bucket
from fundledger.ratelimit.chain import Chain, Denied, Pending, Told
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.limiter import Limiter
from fundledger.ratelimit.shedding import Shedder

IANA: Final = "https://iana.org/assignments/http-problem-types#"
JITTER: Final = 0.2


class Gate:
    """Of one worker. Without a limiter nobody has a quota. Who was let in has to `leave`, however it ends.

    `trusted`: a module whose requests were limited at its own door, and written ahead there: what it asks to be done is
    of the class that is shed last, and meets no policies.
    """

    def __init__(
        self, limiter: Limiter | None, shedder: Shedder, hot_keys: HotKeys, trusted: str | None = None
    ) -> None:
        self.limiter = limiter
        self.shedder = shedder
        self.hot_keys = hot_keys
        self.trusted = trusted

    def recognise(self, passage: Passage, method: str = "POST") -> bool:
        """Whether it comes from the module that is trusted; then it is marked so. What only reads keeps its class."""
        if passage.module != self.trusted:
            return False
        passage.chain = TRUSTED
        if method == "POST":
            passage.api_class = ApiClass.CONFIRM
        return True

    def enter(
        self, passage: Passage, accounts: Sequence[Owned], cost: int = 1, also: ApiClass | None = None
    ) -> Reply | Pending | None:
        """None: it is in. A Reply: it is not, and this is the answer. Pending: `ask` has to be awaited.

        Never waits. `accounts`: those that are charged, each bucket once; `also`: as one of that
        class, too. `cost` in tokens. What `charge_caller` charged
        is not charged again.
        """
        merchant = account_id = None
        if accounts:
            account = accounts[0]
            account_id = account.id
            merchant = passage.merchant = account.owner
        if account_id is not None and merchant is not None and len(accounts) == cost == 1 and not passage.seen:
            self.hot_keys.payment(merchant, account_id, passage.module)
        else:
            seen = self.hot_keys.seen
            for account in accounts:
                seen("merchant", account.owner, cost)
                seen("account", account.id, cost)
            if not passage.seen:
                seen("caller", passage.module, cost)
        limiter = self.limiter
        if limiter is not None and passage.chain is not TRUSTED:
            chain = limiter.chain(passage.module, passage.api_class, merchant, account_id)
            passage.chain = chain
            if passage.charges or also is not None or len(accounts) > 1:
                return self._enter_charging(limiter, passage, accounts, cost, also)
            verdict = limiter.admit(chain, cost, passage.started)
            if verdict is not None:
                return verdict if isinstance(verdict, Pending) else self._denied(passage, verdict, cost)
            passage.charged = cost
        return self.enter_uncharged(passage, passage.started)

    def _enter_charging(
        self, limiter: Limiter, passage: Passage, accounts: Sequence[Owned], cost: int, also: ApiClass | None
    ) -> Reply | Pending | None:
        costs = dict.fromkeys(self._buckets_of(limiter, passage, passage.api_class, accounts), cost)
        if also is not None:
            costs |= dict.fromkeys(self._buckets_of(limiter, passage, also, accounts), cost)
        passage.due = self._rest(limiter, passage, costs)
        verdict = limiter.admit_charges(passage.chain, passage.due, passage.started)
        if isinstance(verdict, Pending):
            return verdict
        if verdict is not None:
            self.refund(passage)
            return self._denied(passage, verdict, cost)
        passage.charges = (*passage.charges, *passage.due)
        return self.enter_uncharged(passage, passage.started)

    @staticmethod
    def _rest(limiter: Limiter, passage: Passage, costs: dict[Bucket, int]) -> Charges:
        """Return what is to be charged beyond what the caller was charged before, and give back what is not due."""
        undue = []
        for bucket, charged in passage.charges:
            due = min(charged, costs.get(bucket, 0))
            if due < charged:
                undue.append((bucket, charged - due))
            if due:
                costs[bucket] -= due
        if undue:
            limiter.give_back_charges(undue)
            back = dict(undue)
            passage.charges = [(bucket, n - back.get(bucket, 0)) for bucket, n in passage.charges]
        return [(bucket, n) for bucket, n in costs.items() if n]

    async def charge_caller(self, passage: Passage, cost: int = 1) -> Reply | None:
        """Charge the caller of a request before the database is read for it. None: it may be read.

        `enter`, `let` or `ask_many` has to follow, also where nothing was found: that admits the request, counts the
        decision and charges the accounts. Cancelling: as of `ask`.
        """
        passage.seen = True
        self.hot_keys.seen("caller", passage.module, cost)
        limiter = self.limiter
        if limiter is None or passage.chain is TRUSTED:
            return None
        chain = passage.chain = limiter.chain(passage.module, passage.api_class, None, None)
        charges = chain.charges(cost)
        verdict = await limiter.ask(Chain(chain.buckets, chain.api_class, None), cost, time.monotonic(), charges)
        if verdict is not None:
            return self._denied(passage, verdict, cost)
        passage.charges = charges
        return None

    async def ask(self, passage: Passage, cost: int = 1) -> Reply | None:
        """As `enter`, when it could not tell. None: it is in.

        Waits for the store's deadline at most. Cancelling lets nobody in, and may leave it charged.
        """
        if self.limiter is not None:
            due = passage.due
            verdict = await self.limiter.ask(passage.chain, cost, passage.started, due)
            if verdict is not None:
                self.refund(passage)
                of_it = [n for bucket, n in due or () if bucket.policy is verdict.policy]
                return self._denied(passage, verdict, max(of_it, default=cost))
            if due is None:
                passage.charged = cost
            else:
                passage.charges = (*passage.charges, *due)
        return self.enter_uncharged(passage, time.monotonic())

    async def let(
        self, passage: Passage, accounts: Sequence[Owned], cost: int = 1, also: ApiClass | None = None
    ) -> Reply | None:
        """`enter`, and `ask` where it takes that. Cancelling: as of `ask`."""
        answer = self.enter(passage, accounts, cost, also)
        return await self.ask(passage, cost) if isinstance(answer, Pending) else answer

    def enter_uncharged(self, passage: Passage, now: float) -> Reply | None:
        """None: it is in, this worker has the capacity and its sender the time. Else it is shed, and its charge goes
        back. `now` in monotonic seconds.
        """
        budget_s = passage.budget_s
        if budget_s is not None:
            budget_s -= now - passage.started
        reason = self.shedder.enter(passage.api_class, passage.merchant, now, budget_s)
        if reason is not None:
            self.refund(passage)
            passage.shed = True
            return self._shed(passage, reason)
        passage.inside = True
        return None

    def at_the_door(self, passage: Passage) -> Reply | None:
        """None: the level lets its class in now, and its caller is not known to have used up a quota of his.

        Asks nobody and charges nothing: for what is not worth reading a body, or the database, for.
        """
        if self.shedder.is_shut(passage.api_class):
            passage.shed = True
            return self._shed(passage, "worker")
        limiter = self.limiter
        if limiter is None or passage.chain is TRUSTED or limiter.store.breaker.open:
            return None
        now = time.monotonic()
        chain = limiter.chain(passage.module, passage.api_class, None, None)
        for bucket in chain.buckets:
            if bucket.denies(1, now) and not bucket.shadowed and not bucket.has(1, now):
                passage.chain = chain
                self.hot_keys.seen("caller", passage.module)
                counted = f"{bucket.policy.name} {chain.api_class} deny denycache"
                limiter.counts.decisions[counted] = limiter.counts.decisions.get(counted, 0) + 1
                return self._denied(passage, Denied(bucket.policy, "denycache", bucket.retry_at - now), 1)
        return None

    def charge_refused(self, passage: Passage, reply: Reply) -> Reply | Pending:
        """Charge one token of its caller for a request that ended uncharged, because it is malformed or finds nothing.

        Return its answer: `reply`, or a 429 in its place once the quota is used up. Pending: the store has to be asked,
        by `charge_later`; the answer need not wait for that. Never waits.
        """
        limiter = self.limiter
        if limiter is None or not passage.module or passage.charged or passage.charges or passage.chain is TRUSTED:
            return reply
        if passage.refused is not None or reply.status not in REFUSED_UNSEEN:
            return reply
        self.hot_keys.seen("caller", passage.module)
        passage.chain = limiter.chain(passage.module, passage.api_class, None, None)
        verdict = limiter.admit(passage.chain, 1, time.monotonic())
        if isinstance(verdict, Denied):
            return self._denied(passage, verdict, 1)
        return reply if verdict is None else verdict

    async def charge_later(self, passage: Passage) -> None:
        """Charge one token, whether or not there is one. Cancelling may leave it charged."""
        if self.limiter is not None:
            await self.limiter.ask(passage.chain, 1, time.monotonic())

    def told(self, passage: Passage, now: float) -> Chain | Told:
        """Where the sender of a request stands, for the headers of its answer."""
        if passage.refused is not None:
            return passage.refused
        chain = passage.chain
        if chain is UNLIMITED and self.limiter is not None and passage.module:
            chain = self.limiter.chain(passage.module, passage.api_class, None, None)
        if now >= chain.told_until:
            chain.told(now)
        return chain

    def refund(self, passage: Passage) -> None:
        """It is a repeat, answered from its record, or nothing was done for it: it costs nothing."""
        if self.limiter is None:
            return
        if passage.charges:
            self.limiter.give_back_charges(passage.charges)
        if passage.charged:
            self.limiter.give_back(passage.chain, passage.charged)
        passage.charges, passage.charged = (), 0

    def leave(self, passage: Passage, now: float, reply: Reply | None = None) -> None:
        """It has been answered, or nobody waits for the answer any more. What we could not do costs nothing."""
        dropped = reply is not None and reply.status >= 500
        if dropped and type(reply) is Undone:
            self.refund(passage)
        if passage.inside:
            passage.inside = False
            self.shedder.leave(passage.api_class, passage.merchant, now - passage.started, dropped=dropped)

    async def ask_batch(self, passage: Passage, vouchers: Sequence[Voucher]) -> Reply | None:
        """`ask_many` for the vouchers of a batch."""
        if passage.chain is TRUSTED:
            self.hot_keys.seen("caller", passage.module, len(vouchers))
            return self.enter_uncharged(passage, time.monotonic())
        return await self.ask_many(passage, (moved(voucher.lines) for voucher in vouchers), len(vouchers))

    async def ask_many(
        self, passage: Passage, items: Iterable[tuple[ApiClass, Sequence[Owned]]], count: int
    ) -> Reply | None:
        """None: all of a batch of `count` items is in, else none of it. Each item costs one of each bucket that it
        alone would be charged to, and one of each of the class batch. Cancelling: as of `ask`.
        """
        if not passage.seen:
            self.hot_keys.seen("caller", passage.module, count)
        limiter = self.limiter
        costs: dict[Bucket, int] = {}
        hot: dict[tuple[str, str], int] = {}
        turn = Turn()
        for api_class, accounts in items:
            for account in accounts:
                for key in (("merchant", account.owner), ("account", account.id)):
                    hot[key] = hot.get(key, 0) + 1
            if limiter is not None:
                for bucket in self._buckets_of(limiter, passage, api_class, accounts):
                    costs[bucket] = costs.get(bucket, 0) + 1
            if turn.is_over():
                await turn.next()
        for (kind, name), n in hot.items():
            self.hot_keys.seen(kind, name, n)
            if turn.is_over():
                await turn.next()
        if limiter is None:
            return self.enter_uncharged(passage, time.monotonic())
        passage.chain = limiter.chain(passage.module, passage.api_class, None, None)
        for bucket in passage.chain.buckets:
            costs[bucket] = count
        passage.due = self._rest(limiter, passage, costs)
        return await self.ask(passage, count)

    @staticmethod
    def _buckets_of(
        limiter: Limiter, passage: Passage, api_class: ApiClass, accounts: Sequence[Owned]
    ) -> Iterable[Bucket]:
        """The buckets that one item is charged to, each once."""
        if len(accounts) == 1:
            return limiter.chain(passage.module, api_class, accounts[0].owner, accounts[0].id).buckets
        buckets = dict.fromkeys(limiter.chain(passage.module, api_class, None, None).buckets)
        for account in accounts:
            buckets |= dict.fromkeys(limiter.chain(passage.module, api_class, account.owner, account.id).buckets)
        return buckets

    def refund_voucher(self, passage: Passage, voucher: Voucher) -> None:
        """`refund_one` of the vouchers of a batch."""
        if passage.chain is not TRUSTED:
            self.refund_one(passage, *moved(voucher.lines))

    def refund_one(self, passage: Passage, api_class: ApiClass, accounts: Sequence[Owned]) -> None:
        """One of a batch was a repeat: it costs nothing, neither alone nor as one of the batch."""
        if self.limiter is not None:
            alone = self._buckets_of(self.limiter, passage, api_class, accounts)
            buckets = dict.fromkeys((*passage.chain.buckets, *alone))
            self.limiter.give_back_charges([(bucket, 1) for bucket in buckets])

    def too_many_wait(self) -> Reply:
        """Return the 429 of a caller that has as many long polls at this worker as one may."""
        return self._of_worker("waiting", "as many requests of this caller wait for events as may", 1.0)

    def too_many_of_peer(self, wait_s: float) -> Reply:
        """Return the 429 of an address that sends too many requests without a valid token."""
        return self._of_worker("unauthenticated", "too many requests without a valid token come from here", wait_s)

    def _of_worker(self, limit: str, detail: str, wait_s: float) -> Reply:
        version = self.limiter.policies.version if self.limiter is not None else ""
        whole_s = max(1, math.ceil(wait_s))
        headers = {"Retry-After": str(whole_s), "X-Limit-Decision": f"{limit};worker;{version}"}
        named = {"violated-policies": [limit]}
        return _refusal(429, "quota-exceeded", "Too many requests", detail, whole_s, headers, **named)

    def _denied(self, passage: Passage, denied: Denied, cost: int) -> Reply:
        version = self.limiter.policies.version if self.limiter is not None else ""
        wait_s = max(1, math.ceil(denied.retry_s * (1 + random.random() * JITTER)))  # noqa: S311 - spreads those who wait
        policy = denied.policy
        headers = {
            "Retry-After": str(wait_s),
            "X-Limit-Decision": f"{policy.name};{denied.source};{version}",
        }
        left = cost if denied.source != "fallback" else 1
        passage.refused = passage.chain.refused(time.monotonic(), wait_s, policy, left)
        if denied.closed:
            passage.shed = True
            detail = "limits cannot be counted at the moment, and this is not done uncounted"
            return _refusal(503, "temporary-reduced-capacity", "Not at the moment", detail, wait_s, headers)
        if cost > policy.rate.burst:
            detail = f"this costs {cost}, and the policy {policy.name} lets at most {policy.rate.burst} in at once"
        else:
            detail = f"the quota of the policy {policy.name} is used up; nothing was done, the same may be sent again"
        named = {"violated-policies": [policy.name]}
        return _refusal(429, "quota-exceeded", "Too many requests", detail, wait_s, headers, **named)

    def _shed(self, passage: Passage, reason: str) -> Reply:
        wait_s = self.shedder.retry_after_s(passage.api_class)
        wait_s = math.ceil(wait_s * (1 + random.random() * JITTER))  # noqa: S311 - as above
        passage.refused = passage.chain.refused(time.monotonic(), wait_s, None, 0)
        version = self.limiter.policies.version if self.limiter is not None else ""
        headers = {"Retry-After": str(wait_s), "X-Limit-Decision": f"{reason};shedder;{version}"}
        detail = "there is more to do than can be done; nothing was done, the same request may be sent again"
        return _refusal(503, "temporary-reduced-capacity", "Not at the moment", detail, wait_s, headers)


def _refusal(
    status: int, type_: str, title: str, detail: str, wait_s: int, headers: dict[str, str], **members: Any
) -> Reply:
    body = {"type": IANA + type_, "title": title, "status": status, "detail": detail, **members}
    return Reply(status, encode({**body, "retry_after_ms": wait_s * 1000}), PROBLEM_TYPE, headers)
