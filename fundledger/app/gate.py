"""Where a request is let in: its caller's limits first (429), then this worker's own capacity (503).

What is let in is in flight until it `leaves`. Every answer of a limited route tells the caller where he stands, every
refusal which policy decided, from where, and which version of the policies. Refusals are answers here: nothing raises.

429: RFC 6585; `Retry-After`: RFC 9110, 10.2.3; problems: RFC 9457, with the types that
draft-ietf-httpapi-ratelimit-headers-11 registers. ADR 16, ADR 17.
"""

import math
import random
import time
from collections.abc import Sequence
from typing import Any, Final, Protocol

from fundledger.app.hotkeys import HotKeys
from fundledger.app.problems import PROBLEM_TYPE
from fundledger.app.render import encode
from fundledger.app.reply import Reply, Undone
from fundledger.ledger.account import Account
from fundledger.ledger.voucher import Voucher
from fundledger.ratelimit.bucket import Bucket
from fundledger.ratelimit.chain import Chain, Denied, Pending, Told
from fundledger.ratelimit.classes import ApiClass
from fundledger.ratelimit.limiter import Limiter
from fundledger.ratelimit.policies import default_types
from fundledger.ratelimit.shedding import Shedder

IANA: Final = "https://iana.org/assignments/http-problem-types#"
JITTER: Final = 0.2
_WITHDRAW: Final = ApiClass.WITHDRAW
REFUSED_UNSEEN: Final = frozenset({400, 404, 405, 413, 415, 417})
"""Statuses of requests that may end before they are charged."""
UNLIMITED: Final = Chain([], ApiClass.PAYMENT, {})
"""Of a request that no policy was looked up for yet."""
TRUSTED: Final = Chain([], ApiClass.CONFIRM, {})
"""Of the module that limits its own callers: it meets no policies here."""


class Owned(Protocol):
    """Whose money a request is about: an account, and who owns it."""

    @property
    def id(self) -> str: ...

    @property
    def owner(self) -> str: ...


class Passage:
    """One request on its way in. `started`: when all of it was read (monotonic s); `budget_s`: how long from then its
    sender waits, None if it does not tell.

    `merchant`: whose money it is about, None where that is not known. `charged` tokens of each bucket of its `chain`,
    or the `charges` of a batch, are what a refund gives back. `inside`: it is in flight. `shed`: it was turned away for
    want of capacity.
    """

    __slots__ = (
        "api_class",
        "budget_s",
        "chain",
        "charged",
        "charges",
        "inside",
        "merchant",
        "module",
        "refused",
        "shed",
        "started",
    )

    def __init__(self, module: str, started: float, budget_s: float | None, api_class: ApiClass) -> None:
        self.module = module
        self.started = started
        self.budget_s = budget_s
        self.api_class = api_class
        self.merchant: str | None = None
        self.chain = UNLIMITED
        self.charged = 0
        self.charges: Sequence[tuple[Bucket, int]] = ()
        self.inside = False
        self.shed = False
        self.refused: Told | None = None


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

    def enter(self, passage: Passage, account: Owned | None, cost: int = 1) -> Reply | Pending | None:
        """None: it is in. A Reply: it is not, and this is the answer. Pending: `ask` has to be awaited.

        Never waits. `account`: whose money it is about. `cost` in tokens.
        """
        merchant = None
        seen = self.hot_keys.seen
        if account is not None:
            merchant = passage.merchant = account.owner
            seen("merchant", merchant, cost)
            seen("account", account.id, cost)
        seen("caller", passage.module, cost)
        limiter = self.limiter
        if limiter is not None and passage.chain is not TRUSTED:
            chain = limiter.chain(passage.module, passage.api_class, merchant, None if account is None else account.id)
            passage.chain = chain
            verdict = limiter.admit(chain, cost, passage.started)
            if verdict is not None:
                return verdict if isinstance(verdict, Pending) else self._denied(passage, verdict, cost)
            passage.charged = cost
        return self.enter_uncharged(passage, passage.started)

    async def ask(
        self, passage: Passage, cost: int = 1, charges: Sequence[tuple[Bucket, int]] | None = None
    ) -> Reply | None:
        """As `enter`, when it could not tell, or for charges of its own. None: it is in.

        Waits for the store's deadline at most. Cancelling lets nobody in, and may leave it charged.
        """
        if self.limiter is not None:
            verdict = await self.limiter.ask(passage.chain, cost, passage.started, charges)
            if verdict is not None:
                of_it = [n for bucket, n in charges or () if bucket.policy is verdict.policy]
                return self._denied(passage, verdict, max(of_it, default=cost))
            if charges is None:
                passage.charged = cost
            else:
                passage.charges = charges
        return self.enter_uncharged(passage, time.monotonic())

    async def let(self, passage: Passage, account: Owned | None, cost: int = 1) -> Reply | None:
        """`enter`, and `ask` where it takes that. Cancelling: as of `ask`."""
        answer = self.enter(passage, account, cost)
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
        elif passage.charged:
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
        return await self.ask_many(passage, [self._of(voucher) for voucher in vouchers])

    async def ask_many(self, passage: Passage, items: Sequence[tuple[ApiClass, Owned | None]]) -> Reply | None:
        """None: all of a batch is in, else none of it. Each item costs one of each bucket that it alone would be
        charged to, and one of each of the class batch. Cancelling: as of `ask`.
        """
        count = len(items)
        self.hot_keys.seen("caller", passage.module, count)
        limiter = self.limiter
        chains: dict[Chain, int] = {}
        hot: dict[tuple[str, str], int] = {}
        for api_class, account in items:
            if account is not None:
                for key in (("merchant", account.owner), ("account", account.id)):
                    hot[key] = hot.get(key, 0) + 1
            if limiter is not None:
                chain = self._chain_of(limiter, passage, api_class, account)
                chains[chain] = chains.get(chain, 0) + 1
        for (kind, name), n in hot.items():
            self.hot_keys.seen(kind, name, n)
        if limiter is None:
            return self.enter_uncharged(passage, time.monotonic())
        costs: dict[Bucket, int] = {}
        for chain, n in chains.items():
            for bucket in chain.buckets:
                costs[bucket] = costs.get(bucket, 0) + n
        passage.chain = limiter.chain(passage.module, passage.api_class, None, None)
        for bucket in passage.chain.buckets:
            costs[bucket] = count
        return await self.ask(passage, count, list(costs.items()))

    def _of(self, voucher: Voucher) -> tuple[ApiClass, Owned | None]:
        api_class = self.class_of(voucher.type)
        return api_class, account_of(voucher.lines, api_class)

    def _chain_of(self, limiter: Limiter, passage: Passage, api_class: ApiClass, account: Owned | None) -> Chain:
        owner, id_ = (None, None) if account is None else (account.owner, account.id)
        return limiter.chain(passage.module, api_class, owner, id_)

    def refund_voucher(self, passage: Passage, voucher: Voucher) -> None:
        """`refund_one` of the vouchers of a batch."""
        if passage.chain is not TRUSTED:
            self.refund_one(passage, *self._of(voucher))

    def refund_one(self, passage: Passage, api_class: ApiClass, account: Owned | None) -> None:
        """One of a batch was a repeat: it costs nothing, neither by itself nor as one of the batch."""
        if self.limiter is not None:
            alone = self._chain_of(self.limiter, passage, api_class, account).buckets
            buckets = dict.fromkeys((*passage.chain.buckets, *alone))
            self.limiter.give_back_charges([(bucket, 1) for bucket in buckets])

    def class_of(self, voucher_type: str) -> ApiClass:
        if self.limiter is None:
            return default_types().get(voucher_type, ApiClass.PAYMENT)
        return self.limiter.policies.class_of(voucher_type)

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


def account_of(lines: Sequence[tuple[Account, int]], api_class: ApiClass) -> Account | None:
    """Whose money a voucher is about: the first account that is not the platform's; of a withdrawal, the first such
    that is debited, in whatever order its lines stand.
    """
    if api_class is _WITHDRAW:
        for account, amount in lines:
            if amount < 0 and not account.type.platform:
                return account
    for account, _ in lines:
        if not account.type.platform:
            return account
    return None


def _refusal(
    status: int, type_: str, title: str, detail: str, wait_s: int, headers: dict[str, str], **members: Any
) -> Reply:
    body = {"type": IANA + type_, "title": title, "status": status, "detail": detail, **members}
    return Reply(status, encode({**body, "retry_after_ms": wait_s * 1000}), PROBLEM_TYPE, headers)
