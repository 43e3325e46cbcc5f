"""Bodies that are no order: many at once, how a withdrawal ended, who approves, a new fee, webhooks."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec

from fundledger.fund.requests import BATCH_MAX, ChannelName, ChannelRef, Fee, MerchantId, Payment, Person, Reason

SEQS_MAX: Final = 1000


class PaymentsBody(msgspec.Struct, forbid_unknown_fields=True):
    payments: Annotated[list[Payment], msgspec.Meta(min_length=1, max_length=BATCH_MAX)]


class PaidBody(msgspec.Struct, forbid_unknown_fields=True):
    channel_ref: ChannelRef


class BouncedBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Reason


class ApproveBody(msgspec.Struct, forbid_unknown_fields=True):
    """`person`: who of the module that asks; without it the module itself approves."""

    person: Person | None = None


class RetryBody(msgspec.Struct, forbid_unknown_fields=True):
    """`reason`: what was done about the cause."""

    reason: Reason | None = None


class FeeRuleBody(Fee, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of all channels, or of one. From `effective_at` on; without it, as soon as all workers know it."""

    product: Literal["payment", "withdrawal"]
    channel: ChannelName | None = None
    effective_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    def __post_init__(self) -> None:
        Fee.__post_init__(self)
        if self.effective_at is not None:
            try:
                self.effective_at.astimezone(UTC)
            except OverflowError:
                raise ValueError("effective_at is not within the years 1 to 9999 of UTC") from None


class WebhookBody(msgspec.Struct, forbid_unknown_fields=True):
    """Without `events`: all of the merchant."""

    merchant: MerchantId
    url: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
    events: Annotated[list[str], msgspec.Meta(min_length=1, max_length=100)] | None = None


class DisableBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: Annotated[str, msgspec.Meta(max_length=1000, pattern=r"^[^\x00]*\Z")] = ""


class RedeliverBody(msgspec.Struct, forbid_unknown_fields=True):
    """Without `seqs`: all of them."""

    seqs: (
        Annotated[list[Annotated[int, msgspec.Meta(ge=1, lt=1 << 53)]], msgspec.Meta(min_length=1, max_length=SEQS_MAX)]
        | None
    ) = None
