"""Routes of the fund service for approvals of orders, handled by `handlers/approvals.py`: path, OpenAPI operation."""

from collections.abc import Iterator
from typing import Final

from fundledger.app.fund.answers import structs as answers
from fundledger.app.fund.handlers import approvals
from fundledger.app.fund.requests.bodies import ApprovalsBody, ApproveBody, RejectBody
from fundledger.app.fund.routes.kinds import INVOICE, KINDS, one_of
from fundledger.app.fund.routes.orders import FUNDS, ID, taken
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.types import no_such, shown
from fundledger.app.http.routing import BATCH_BODY_BYTES_MAX, Route
from fundledger.fund.model.order import Kind
from fundledger.fund.model.person import Role
from fundledger.fund.model.refusal import Code
from fundledger.fund.model.transitions import APPROVE_WITHIN, DUAL_CONTROL
from fundledger.ratelimit.classes import ApiClass

_TAG: Final = "Approvals"
_APPROVED: Final = (Code.APPROVAL_NEEDS_ANOTHER, Code.ORDER_REJECTED, Code.ORDER_EXPIRED)
_RESERVED: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.REVERSAL: (
        *(Code.ORDER_NOT_REVERSIBLE, Code.ORDER_ALREADY_REVERSED, "voucher-already-reversed"),
        *(Code.OWN_FUNDS_EXCEEDED, Code.PAYABLE_EXCEEDED, Code.SUSPENSE_EXCEEDED),
    ),
    Kind.ADJUSTMENT: (Code.SUSPENSE_EXCEEDED,),
    Kind.OWN_TRANSFER: (Code.CHANNEL_UNDERFUNDED, Code.RECEIPT_ALREADY_BOOKED),
    Kind.OWN_FUNDS: (Code.OWN_FUNDS_EXCEEDED, Code.CHANNEL_UNDERFUNDED, Code.RECEIPT_ALREADY_BOOKED),
    Kind.FEE_SWEEP: (Code.SWEEP_EXCEEDS_INCOME, Code.CHANNEL_UNDERFUNDED, Code.RECEIPT_ALREADY_BOOKED),
    Kind.PAYABLE_PAYMENT: (*INVOICE, Code.CHANNEL_UNDERFUNDED, Code.RECEIPT_ALREADY_BOOKED),
    Kind.SUSPENSE_CLEARING: (Code.SUSPENSE_EXCEEDED, Code.CHANNEL_UNDERFUNDED),
    Kind.PARKED_CLEARING: (Code.ORDER_NOT_PARKED, Code.CHANNEL_UNDERFUNDED),
}
"""Refusals of the reservation that an approval makes."""
_REJECTED: Final = (Code.ORDER_APPROVED, Code.ORDER_EXPIRED)


def _of(kind: Kind) -> Iterator[Route[FundService]]:
    template, words = f"/v1/{KINDS[kind].collection}/{{id}}", kind.value.replace("_", " ")
    yield Route(
        "POST",
        f"{template}/approve",
        approvals.approving(kind),
        ApiClass.ADMIN,
        f"approve_{kind.value}",
        _TAG,
        f"Approve {one_of(kind)}",
        "The caller must be a different module or person than the requester. The order is then posted.",
        {**taken((*_APPROVED, *_RESERVED.get(kind, ()), *FUNDS)), 404: no_such(words)},
        (ID,),
        (ApproveBody, {"person": "wei.chen"}),
        enters=True,
        role=Role.CHECKER,
    )
    yield Route(
        "POST",
        f"{template}/reject",
        approvals.rejecting(kind),
        ApiClass.ADMIN,
        f"reject_{kind.value}",
        _TAG,
        f"Reject {one_of(kind)}",
        f"The order becomes `rejected`, and no money moves. Without a decision it expires after {APPROVE_WITHIN.days} "
        "days.",
        {**taken(_REJECTED), 404: no_such(words)},
        (ID,),
        (RejectBody, {"reason": "slip 17 is not signed"}),
        enters=True,
        role=Role.CHECKER,
    )


ROUTES: Final[list[Route[FundService]]] = [
    *[route for kind in DUAL_CONTROL for route in _of(kind)],
    Route(
        "POST",
        "/v1/approvals",
        approvals.approve_many,
        ApiClass.BATCH,
        "approve_many",
        _TAG,
        "Approve many orders",
        "1 to 1,000 orders of any kinds that need an approval, each approved and posted independently.",
        {200: shown(answers.ApprovalResults, "The result of each order.")},
        body=(ApprovalsBody, {"orders": [ID.example]}),
        body_bytes_max=BATCH_BODY_BYTES_MAX,
        enters=True,
        role=Role.CHECKER,
    ),
]
