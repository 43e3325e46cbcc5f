"""Steps of an order that is there: an adjustment is approved, a withdrawal ends, a stuck order is retried.

Each step is written ahead, then done. If the process dies between the two, the recoverer does it.
"""

import asyncio
import logging
import unicodedata
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from fundledger.database.failures import was_rolled_back
from fundledger.fund import orders, stuck
from fundledger.fund.answer import Answer, Away, Taken
from fundledger.fund.flows import Ending
from fundledger.fund.link import Away as AccountsAway
from fundledger.fund.macs import OrderMacs, Tampered
from fundledger.fund.order import Kind, Order, State
from fundledger.fund.orders import Pool, order_from
from fundledger.fund.posting import Posting
from fundledger.fund.refusal import Code, Refusal
from fundledger.fund.statements import SQL

FAULTS: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
ATTEMPTS_MAX: Final = 5
_MAY_END: Final = frozenset({State.POSTED, State.SENT, State.UNKNOWN})
_MAY_RETRY: Final = frozenset({State.STUCK, State.POSTING})
_log = logging.getLogger(__name__)


class NextSteps:
    """`wait_s`: how long a caller waits for an outcome. After `due_s` the recoverer takes a step that is not done.

    Cancelling a step leaves it to the recoverer, and each may be repeated: a repeat returns the order as it stands.
    """

    def __init__(self, pool: Pool, posting: Posting, *, wait_s: float, due_s: float) -> None:
        self._pool = pool
        self._posting = posting
        self._wait_s = wait_s
        self._due_s = due_s

    @property
    def macs(self) -> OrderMacs:
        """The MACs of the orders."""
        return self._posting.macs

    async def approve(self, id_: UUID, approver: str) -> Answer:
        """Approve an adjustment, which is posted then. `approver`: MODULE or MODULE/PERSON, another one than asked for
        it. Refused: ORDER_NOT_FOUND, APPROVAL_NEEDS_ANOTHER.
        """

        async def begin() -> Order | None:
            order = await self._read(id_)
            if order is None or not may_approve(order.module, approver):
                return None
            if order.kind is not Kind.ADJUSTMENT or order.state is not State.CREATED:
                return None
            new = msgspec.structs.replace(order, approved_by=approver, state=State.POSTING)
            self._posting.macs.seal(new)
            row = await self._pool.fetchrow(
                SQL["approve_order"], id_, approver, self._due_s, new.mac, new.mac_key, order.mac
            )
            return None if row is None else order_from(row)

        def otherwise(order: Order) -> Answer:
            if order.kind is not Kind.ADJUSTMENT:
                return Refusal(Code.ORDER_NOT_FOUND, f"there is no adjustment {id_}")
            if order.state is State.CREATED:
                detail = f"{order.module} asked for it: another module, or another one who is named too, approves it"
                return Refusal(Code.APPROVAL_NEEDS_ANOTHER, detail)
            return Taken(order, replay=True)

        return await self._go_on(id_, begin, otherwise, self._post)

    async def end(self, id_: UUID, ending: Ending, channel_ref: str | None, reason: str | None, module: str) -> Answer:
        """End a withdrawal as paid or bounced. The contrary of an end that was recorded is refused: WITHDRAWAL_PAID,
        WITHDRAWAL_BOUNCED; also ORDER_NOT_FOUND, WITHDRAWAL_NOT_POSTED.
        """
        _log.debug("withdrawal %s: %s says %s", id_, module, ending)

        async def begin() -> Order | None:
            for _ in range(ATTEMPTS_MAX):
                order = await self._read(id_)
                if order is None or order.state not in _MAY_END or order.ending not in (None, ending):
                    return None
                new = msgspec.structs.replace(order, ending=ending)
                new.channel_ref, new.reason = channel_ref or order.channel_ref, reason or order.reason
                if order.ending is None:
                    new.end_voucher_id = self._posting.ids.voucher(id_, "end", order.attempt)
                self._posting.macs.seal(new)
                changed = new.channel_ref, new.reason, self._due_s, new.end_voucher_id, new.mac, new.mac_key
                row = await self._pool.fetchrow(SQL["begin_end"], id_, ending, *changed, order.mac)
                if row is not None:
                    return order_from(row)
            return None

        def otherwise(order: Order) -> Answer:
            if order.kind is not Kind.WITHDRAWAL:
                return Refusal(Code.ORDER_NOT_FOUND, f"there is no withdrawal {id_}")
            if order.ending is None:
                return Refusal(Code.WITHDRAWAL_NOT_POSTED, f"the withdrawal is {order.state}")
            if order.ending == ending:
                return Taken(order, replay=True)
            code = Code.WITHDRAWAL_PAID if order.ending == "paid" else Code.WITHDRAWAL_BOUNCED
            return Refusal(code, f"the withdrawal was {order.ending} already")

        return await self._go_on(id_, begin, otherwise, self._posting.end)

    async def retry(self, id_: UUID, module: str, reason: str | None = None) -> Answer:
        """Take a stuck order back to the state that it came from, and do its next step. An order whose next step is
        being repeated is done now; any other one is returned as it stands. `module` asks for it, and `reason` (what was
        done about the cause) is kept in the history. Refused: ORDER_NOT_FOUND.
        """

        async def begin() -> Order | None:
            for _ in range(ATTEMPTS_MAX):
                order = await orders.read_order(self._pool, id_)
                if order is None:
                    return None
                new = await stuck.retry(self._pool, self.macs, order, module, reason, self._due_s)
                if new is not None or order.state not in _MAY_RETRY:
                    return new
            return None

        async def go_on(order: Order) -> None:
            self._posting.macs.check(order)
            if order.state is State.POSTING:
                await self._post(order)
            elif order.ending is not None:
                await self._posting.end(order)

        return await self._go_on(id_, begin, lambda order: Taken(order, replay=True), go_on)

    async def contradiction(self, order: Order) -> str | None:
        """How the posted voucher of an order differs from the order, None if it does not. Raises link.Away."""
        try:
            self.macs.check(order)
        except Tampered:
            return "the order does not match its MAC"
        return await self._posting.link.contradiction(order)

    async def _read(self, id_: UUID) -> Order | None:
        """The order as it stands. Raises Tampered."""
        order = await orders.read_order(self._pool, id_)
        if order is not None:
            self._posting.macs.check(order)
        return order

    async def _post(self, order: Order) -> None:
        await self._posting.post([order])

    async def _go_on(
        self,
        id_: UUID,
        begin: Callable[[], Awaitable[Order | None]],
        otherwise: Callable[[Order], Answer],
        go_on: Callable[[Order], Awaitable[None]],
    ) -> Answer:
        """Write the next step of an order ahead, and do it."""
        try:
            order = await begin()
            if order is None:
                there = await self._read(id_)
                if there is None:
                    return Refusal(Code.ORDER_NOT_FOUND, f"there is no order {id_}")
                return otherwise(there)
        except Tampered as found:
            return Away(str(found), tampered=True)
        except FAULTS as error:
            _log.warning("an order could not go on: %s", error)
            return Away("the fund database does not answer", undone=was_rolled_back(error))
        try:
            async with asyncio.timeout(self._wait_s):
                await go_on(order)
        except AccountsAway:
            pass
        except Tampered as found:
            return Away(str(found), tampered=True)
        except FAULTS as error:
            _log.warning("the next step of an order is left to the recoverer: %s", error or "no answer in time")
        return Taken(order)


def may_approve(asked: str, approver: str) -> bool:
    """Whether an approver (MODULE or MODULE/PERSON) is another one than asked for an order. Within one module only two
    persons that are both named are two. Names that differ only in case, in blanks around them or in their Unicode form
    are one.
    """
    module, _, person = asked.partition("/")
    other_module, _, other_person = approver.partition("/")
    if _plain(module) != _plain(other_module):
        return True
    return bool(_plain(person) and _plain(other_person)) and _plain(person) != _plain(other_person)


def _plain(name: str) -> str:
    # Folding may undo the normal form, and the other way round.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()
