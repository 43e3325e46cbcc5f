"""Admission path of a payment in an HTTP worker: decode, admit, queue, answer. Each service subclasses `PaymentPath`.

For both services, `AdmissionController.ask_many` admits a batch of payments, `Outcomes` collects the outcomes of the
batch, and `reply_to_batch` builds the reply.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from fundledger.app.http.admission.admission import Admission, Owned
from fundledger.app.http.bodies.batch_decoding import LoopTurn
from fundledger.app.http.problems import failed, faulted
from fundledger.app.http.routing import Call, S
from fundledger.app.http.wire.reply import Reply, encode
from fundledger.faults import Fault, OutcomeUnknown, Unavailable
from fundledger.ratelimit.quota.matched import Pending

Content = TypeVar("Content")
Item = TypeVar("Item")
Out = TypeVar("Out")


class PaymentPath(msgspec.Struct, Generic[S, Content, Out], eq=False):
    """The path of one payment, or of one order of another kind. `Content`: the decoded body. `Out`: the outcome.

    `answer` is called exactly once: before `post` returns, or when the outcome is known. `decode` returns the content
    of a body, or raises BadRequest. `to_reply` returns the reply for an outcome.
    """

    service: S
    admission: Admission
    answer: Callable[[Reply], None]
    decode: Callable[[bytes], Content]
    to_reply: Callable[[S, Admission, Out], Reply]

    def resolve(self, content: Content) -> Sequence[Owned] | None:
        """Return the accounts to charge, or None if `look_up` has to read these accounts first. Raises BadRequest.

        The payment is stored in this object for `queue`.
        """
        raise NotImplementedError

    async def look_up(self, content: Content) -> None:
        """Read the accounts that `resolve` needs from the database. Raises BadRequest, Unavailable."""
        raise NotImplementedError

    async def is_recorded(self, content: Content) -> bool:
        """Return whether the payment was recorded before. Raises BadRequest."""
        raise NotImplementedError

    def queue(self) -> None:
        """Queue the resolved payment, with `answered` as its callback. Raises Unavailable if the queue is full."""
        raise NotImplementedError

    def post(self, body: bytes) -> None:
        """Decode, admit and queue the payment. Never waits. Never raises: each error becomes the answer."""
        controller, admission = self.service.controller, self.admission
        try:
            content = self.decode(body)
            accounts = self.resolve(content)
            if accounts is not None:
                no = controller.enter(admission, accounts)
                if no is None:
                    self.queue()
                    return
            else:
                controller.recognise(admission)
                no = controller.early_rejection(admission)
            if not isinstance(no, Reply) or self._may_be_replay(no):
                self.service.spawn(self._post_later(content, no, accounts is not None))
                return
            reply = no
        except Exception as error:
            reply = failed(error, self.admission.request_id)
        self.answer(reply)

    def answered(self, _: int, outcome: Out) -> None:
        """Send the reply for an outcome. If building the reply fails, send the problem for that error."""
        try:
            reply = self.to_reply(self.service, self.admission, outcome)
        except Exception as error:
            reply = failed(error, self.admission.request_id)
        self.answer(reply)

    async def _post_later(self, content: Content, no: Reply | Pending | None, is_resolved: bool) -> None:
        try:
            reply = await self._admit(content, no, is_resolved)
            if reply is None:
                self.queue()
        except Exception as error:
            reply = failed(error, self.admission.request_id)
        if reply is not None:
            self.answer(reply)

    async def _admit(self, content: Content, no: Reply | Pending | None, is_resolved: bool) -> Reply | None:
        """Finish an admission that has to wait: read accounts, ask the rate-limit store, look up a replay.

        Return None if the payment is admitted, else the answer. `no`: the decision so far. A replay is admitted even if
        the quota is used up.
        """
        controller, admission = self.service.controller, self.admission
        if no is None:
            no = await controller.charge_caller(admission)
            if no is None:
                await self.look_up(content)
                is_resolved = True
                # After the look-up, an account that is not found does not exist.
                no = controller.enter(admission, self.resolve(content) or ())
        reply = await controller.ask(admission) if isinstance(no, Pending) else no
        if reply is None or not self._may_be_replay(reply) or not await self.is_recorded(content):
            return reply
        if not is_resolved:
            await self.look_up(content)
        admission.refused = None
        return controller.enter_uncharged(admission, time.monotonic())

    def _may_be_replay(self, no: Reply) -> bool:
        return no.status == 429 and self.service.replays.has_room()

    @classmethod
    async def handle(cls, service: S, call: Call, **fields: Any) -> Reply:
        """Answer a request that did not take the fast path (`wire.protocol`). `fields`: further fields of the class."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def answer(reply: Reply) -> None:
            if not future.done():
                future.set_result(reply)

        cls(service, call.admission, answer, **fields).post(call.body)
        return await future


class Outcomes(Generic[Out]):
    """The outcomes of a batch of `count` items. `await wait()` returns them in the order of the items."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._known: dict[int, Out] = {}
        self._all: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answer(self, index: int, outcome: Out) -> None:
        """Record the outcome of the item at `index`."""
        self._known[index] = outcome
        if len(self._known) == self._count and not self._all.done():
            self._all.set_result(None)

    async def wait(self) -> list[Out]:
        """Wait until each outcome is known, and return all. Cancelling the wait withdraws no item."""
        await self._all
        return [self._known[i] for i in range(self._count)]


async def reply_to_batch(
    items: Sequence[Item],
    outcomes: Sequence[Out],
    fault_of: Callable[[Out], Fault | None],
    result: Callable[[Item, Out], msgspec.Struct],
) -> Reply:
    """Return the reply for a batch: `results[i]` is `result(items[i], outcomes[i])`.

    `fault_of(outcome)` returns the fault if the item may be sent again, else None. If an outcome has such a fault, the
    whole batch is answered 503.
    """
    faults = [fault for fault in map(fault_of, outcomes) if fault is not None]
    if faults:
        is_undone = len(faults) == len(outcomes) and all(isinstance(fault, Unavailable) for fault in faults)
        # Part of the batch may have committed, so no item is reported as refused. A retry returns the true outcomes.
        return faulted(faults[0] if is_undone else OutcomeUnknown())
    results = []
    turn = LoopTurn()
    for item, outcome in zip(items, outcomes, strict=True):
        if turn.is_over():
            await turn.next()
        results.append(result(item, outcome))
    return Reply(200, encode({"results": results}))
