"""The columns that the state machine of the fund service compares, and the branches that its runs have to take."""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from fundledger.fund.model.order import PLATFORM, Kind
from tests.support.fund_model import FACTS, KINDS, LAST_ATTEMPT, Asked
from tests.support.fund_script import AFTER, BEFORE, HEARD, STOP, UNHEARD, UNSURE

FROZEN = "frozen"
ENDING = ("withdrawal", "refund")
"""Kinds of orders that end."""

COLUMNS = """o.kind, o.merchant, o.order_no, o.state, o.amount, o.fee, o.from_pending, o.to_receivable, o.fee_waived,
o.set_off, o.end_set_off, o.attempt, o.parking, o.ending, o.settle, o.direction, o.reversed_by, o.of_order,
o.returned, o.problem IS NOT NULL AS refused, o.created_at, o.settle_on"""
PROGRESS = """amount, fee, settled, fee_settled, refunded, refunded_unsettled, fee_waived, fee_returned, charged_back,
charged_back_unsettled, reversed"""

WANTED = {
    *(f"{kind} {state}" for kind in KINDS for state in ("posted", "parked" if kind in FACTS else "refused")),
    *(f"{kind} {release}" for kind in FACTS for release in ("released", "parked again")),
    *(f"release {how}" for how in UNHEARD),
    *(f"{kind} {how}" for kind in KINDS for how in (BEFORE, AFTER, UNSURE, STOP)),
    *(f"chargeback posted at attempt {n}" for n in range(LAST_ATTEMPT + 1)),
    *(
        f"{kind} {ending}"
        for kind in ENDING
        for ending in ("paid", "bounced", "bounce on a later day", "bounce sets off")
    ),
    *(f"end of a {kind} {how}" for kind in ENDING for how in (*UNHEARD, "refused")),
    *(f"bounce of a refund of a {partly}pending payment" for partly in ("", "partly ")),
    "withdrawal refusal heard on a later day",
    "refusal of a partly settled refund",
    "settlement after a refused reversal",
    *(f"{kind} sets off" for kind in ("payment", "settlement", "withdrawal", "adjustment", "payout_return")),
    *(f"{kind} sets off, refused" for kind in ("settlement", "withdrawal")),
    *(f"payment sets off, {how}" for how in ("parked", "released")),
    "reversal of a set-off",
    *(f"reversal of a payout return {state}" for state in ("posted", "refused")),
    "payout return with its fee",
    "chargeback of a pending payment",
    "chargeback of a partly pending payment",
    "payment under a second fee rule",
    *(f"replay {state}" for state in ("posting", "posted", "refused", "paid", "bounced", "created", "parked")),
    *(
        f"refused: {code}"
        for code in (
            *("payment-not-found", "payment-not-posted", "payment-being-settled", "order-already-reversed"),
            *("refund-exceeds-payment", "chargeback-exceeds-payment", "settlement-exceeds-pending"),
            *("nothing-to-settle", "withdrawal-limit-exceeded", "order-not-reversible", "order-not-found"),
            *("approval-needs-another", "withdrawal-paid", "withdrawal-bounced", "order-no-reused"),
            *("debt-exceeded", "debt-in-progress", "refund-paid", "refund-bounced"),
            *("withdrawal-not-found", "withdrawal-not-paid", "return-exceeds-withdrawal"),
        )
    ),
}


def may_take(step: str, how: str, branch: str) -> bool:
    """Return whether a kind of step, with this kind of answer, may take a branch."""
    kinds = {
        **dict.fromkeys(("pay_now", "pay_later", "pay_together"), "payment"),
        **dict.fromkeys(("refund_full", "refund_part", "refund_above"), "refund"),
        "settle": "settlement",
        "withdraw": "withdrawal",
        "end": "withdrawal",
        "end_refund": "refund",
        "return_payout": "return|withdrawal-not",
        "charge_back": "chargeback",
        "recover_debt": "recovery",
        "adjust": "adjustment",
        "reverse": "revers",
        "release": "again" if branch.endswith("again") else "release",
    }
    answer = {"refused": FROZEN, "refusal": FROZEN}.get(branch.rpartition(" ")[2], branch.partition(" ")[2])
    fits = how in (HEARD, answer) or answer not in (FROZEN, *UNHEARD)
    return fits and re.search(kinds.get(step, step), branch) is not None


def row_of(order: Asked, id_of: Callable[[Asked], UUID]) -> dict[str, Any]:
    """Return the columns of an order as the model expects them."""
    return {
        "id": id_of(order),
        "kind": order.kind,
        "merchant": order.shop.id if order.shop else PLATFORM,
        "order_no": order.order_no,
        "state": order.state,
        "amount": order.amount,
        "fee": order.fee,
        "from_pending": order.from_pending,
        "to_receivable": order.to_receivable,
        "fee_waived": order.fee_waived,
        "set_off": order.set_off,
        "end_set_off": order.end_set_off,
        "attempt": order.attempt,
        "parking": order.parking,
        "ending": order.ending,
        "settle": order.settle or (order.of.settle if order.kind is Kind.REVERSAL and order.of else None),
        "direction": order.direction or (order.of.direction if order.kind is Kind.REVERSAL and order.of else None),
        "reversed_by": id_of(order.reversed_by) if order.reversed_by else None,
        "of_order": id_of(order.of) if order.of else None,
        "returned": order.returned,
        "refused": order.state == "refused",
        "created_at": order.at,
        "settle_on": order.settle_on,
    }
