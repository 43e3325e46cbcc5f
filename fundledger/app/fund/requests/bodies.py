"""Request bodies of the fund service other than single orders: batches, order steps, states of merchants, webhooks."""

from typing import Annotated, Final
from uuid import UUID

import msgspec

from fundledger.fund.model.requests import BATCH_MAX, ChannelRef, MerchantId, Payment, Person, Reason, Withdrawal
from fundledger.json_values import about

SEQS_MAX: Final = 1000
APPROVALS_MAX: Final = 1000


class PaymentsBody(msgspec.Struct, forbid_unknown_fields=True):
    payments: Annotated[list[Payment], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]


class WithdrawalsBody(msgspec.Struct, forbid_unknown_fields=True):
    withdrawals: Annotated[list[Withdrawal], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]


class DisablePayeeBody(msgspec.Struct, forbid_unknown_fields=True):
    """Disabling of a payee. `reason` is stored with the payee."""

    reason: Reason | None = None


class PaidBody(msgspec.Struct, forbid_unknown_fields=True):
    channel_ref: ChannelRef


class BouncedBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason


class LostBody(msgspec.Struct, forbid_unknown_fields=True):
    """A lost dispute. `channel_ref`: the reference under which the channel has taken the money."""

    channel_ref: ChannelRef | None = None


class ApproveBody(msgspec.Struct, forbid_unknown_fields=True):
    """Approval of an order. `person` is a note: the token of the request identifies the approver."""

    person: Person | None = None


class EmptyBody(msgspec.Struct, forbid_unknown_fields=True):
    """An empty object, which may be omitted."""


class RejectBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why the state of a merchant is changed."""

    reason: Reason


class ApprovalsBody(msgspec.Struct, forbid_unknown_fields=True):
    """Approval of many orders, of any kinds under dual control."""

    orders: Annotated[list[UUID], msgspec.Meta(min_length=1, max_length=APPROVALS_MAX, description="ids of orders")]


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """Retry of a stuck order. `reason`: how the cause of the problem was removed."""

    reason: Reason | None = None


class WebhookBody(msgspec.Struct, forbid_unknown_fields=True):
    """A new webhook endpoint. If `events` is omitted, all events of the merchant are sent."""

    merchant: MerchantId
    url: Annotated[
        str,
        msgspec.Meta(
            min_length=1,
            max_length=2048,
            description="an https URL on the public internet; the dev profile accepts any http(s) URL",
        ),
    ]
    events: Annotated[
        Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)] | None,
        about("event types, `KIND.STATE`, such as `payment.posted`; default: all"),
    ] = None


class DisableBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Annotated[
        str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*\Z", description="stored with the endpoint")
    ] = ""


class RedeliverBody(msgspec.Struct, forbid_unknown_fields=True):
    """Selection of events to redeliver. If `seqs` is omitted, all events that were given up are selected."""

    seqs: Annotated[
        Annotated[list[Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]], msgspec.Meta(min_length=1, max_length=SEQS_MAX)]
        | None,
        about("`seq` of events that were given up; default: all of them"),
    ] = None
