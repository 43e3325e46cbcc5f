"""Steps of the state machine of the fund service: ends of withdrawals and refunds, and payouts that return."""

from typing import Any

from fundledger.fund.model.answer import Answer, Taken
from fundledger.fund.model.order import Kind
from fundledger.fund.model.refusal import Refusal
from tests.support.fund_model import Asked, Shop
from tests.support.fund_script import BEFORE, HEARD

MAY_END = ("posted", "sent", "unknown")


class Ends:
    """Steps of `Machine` in tests/fund/test_machine.py, which has the other members."""

    async def end(self: Any) -> None:
        await self.end_of(Kind.WITHDRAWAL)

    async def end_refund(self: Any) -> None:
        await self.end_of(Kind.REFUND)

    async def end_of(self: Any, kind: Kind) -> None:
        of = [order for shop in self.shops[-3:] for order in self.orders(shop, kind)]
        order = self.some([o for o in of if o.state == "posted"]) or await self.usual(self.some_shop(), kind)
        if order.state != "posted":
            return
        if self.chance.random() < 0.3 and not self.freezes:
            order = self.some([o for o in of if o.state in ("paid", "bounced")]) or order
        ending = self.chance.choice(["paid", "bounced", "bounced"])
        if self.freezes:
            ending = "bounced"
        elif order.state in ("paid", "bounced") and self.chance.random() < 0.7:
            ending = "paid" if order.state == "bounced" else "bounced"
        for state, contrary in (("paid", "bounced"), ("bounced", "paid")):
            found = self.some([o for o in of if o.state == state])
            if found and not self.seen[f"refused: {kind}-{state}"] and not self.freezes:
                order, ending = found, contrary
        if ending == "bounced" and order.state == "posted" and order.ending is None and not self.freezes:
            await self.owe_for(order.shop, f"{kind} bounce")
        await self.freeze(order)
        how = self.how
        answer = await self.worker.run(self.worker.batcher.end(self.id(order), ending, None, None, "bank"), how)
        self.steps.append(f"{ending} {order.order_no} {how} frozen={sorted(self.model.frozen)} -> {answer!r}"[:600])
        if order.state != "posted" or order.ending not in (None, ending):
            await self.is_ended(order, ending, answer)
        else:
            if order.ending is None:
                self.model.begin_end(order, ending)
            if order.end_set_off:
                self.seen[f"{kind} bounce sets off"] += 1
            if how != BEFORE:
                self.model.end(order)
            if how == HEARD:
                self.mark_end(order)
            else:
                self.seen[f"end of a {kind} {how}"] += 1
            assert answer is None or isinstance(answer, Taken), answer
        await self.thaw(order)

    async def usual(self: Any, shop: Shop, kind: Kind) -> Asked:
        """Request a withdrawal or a refund of 1 from a merchant that has money. The account service answers normally."""
        answered, self.how, self.freezes = (self.how, self.freezes), HEARD, False
        if kind is Kind.WITHDRAWAL:
            await self.paid(shop, "now")
            members = {"amount": 1, "channel": self.channel}
            order = await self.ask(kind, shop, members, fee=shop.fee("withdrawal", 1, self.worker.at))
        else:
            payment = await self.paid(shop, self.chance.choice(["now", "later"]))
            amount = self.chance.randint(1, payment.amount)
            order = await self.ask(kind, shop, {"payment_order_no": payment.order_no, "amount": amount}, of=payment)
        self.how, self.freezes = answered
        return order

    async def is_ended(self: Any, order: Asked, ending: str, answer: Answer | None) -> None:
        if order.ending == ending:
            assert isinstance(answer, Taken) and answer.replay
        else:
            code = f"{order.kind}-{order.ending}" if order.ending else f"{order.kind}-not-posted"
            assert isinstance(answer, Refusal) and answer.code == code, (code, answer)
            self.seen[f"refused: {code}"] += 1

    def mark_end(self: Any, order: Asked) -> None:
        self.model.mark_end(order)
        self.seen[
            f"{order.kind} {order.state}" if order.state not in MAY_END else f"end of a {order.kind} refused"
        ] += 1
        if order.state == "bounced" and self.model.is_over(order, self.worker.at):
            self.seen[f"{order.kind} bounce on a later day"] += 1
        if order.state == "bounced" and order.of is not None and order.from_pending:
            partly = "partly " * (order.from_pending < order.amount)
            self.seen[f"bounce of a refund of a {partly}pending payment"] += 1

    async def return_payout(self: Any) -> None:
        shop = self.some_shop()
        withdrawals = self.orders(shop, Kind.WITHDRAWAL)
        paid = [o for o in withdrawals if o.state == "paid"]
        order = self.some([o for o in paid if o.returned < o.amount]) or await self.paid_out(shop)
        if order.state != "paid":
            return
        if self.chance.random() < 0.15 and not self.freezes:
            order = self.some(withdrawals) if self.chance.random() < 0.6 else None
        await self.owe_for(shop, "payout_return")
        left = order.amount - order.returned if order else 1
        amount = max(1, self.chance.choice([left, left, self.chance.randint(1, max(1, left)), left + 1]))
        if self.freezes or self.how != HEARD:
            amount = max(1, min(amount, left))
        number = order.order_no if order else "none"
        members = {"withdrawal_order_no": number, "amount": amount, "fee": self.chance.choice(["kept", "returned"])}
        members["channel_ref"] = f"back-{self.number}-{self.worker.salt}"
        await self.ask(Kind.PAYOUT_RETURN, shop, members, of=order)

    async def paid_out(self: Any, shop: Shop) -> Asked:
        """Return a withdrawal that is paid."""
        answered, self.how, self.freezes = (self.how, self.freezes), HEARD, False
        payment = await self.paid(shop, "now")
        amount = max(1, min(200, payment.amount // 2))
        fee = shop.fee("withdrawal", amount, self.worker.at)
        order = await self.ask(Kind.WITHDRAWAL, shop, {"amount": amount, "channel": self.channel}, fee=fee)
        if order.state == "posted":
            answer = await self.worker.batcher.end(self.id(order), "paid", None, None, "bank")
            assert isinstance(answer, Taken), answer
            self.model.begin_end(order, "paid")
            self.model.end(order)
            self.mark_end(order)
        self.how, self.freezes = answered
        return order
