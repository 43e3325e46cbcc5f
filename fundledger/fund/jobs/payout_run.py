"""Limits, leased items and counters of a run of payouts."""

from uuid import UUID

import msgspec


class Pace(msgspec.Struct, frozen=True):
    """Limits and timings of one channel.

    `rate`: calls a second. `at_once`: concurrent calls. `turn_max`: new payouts of one run. `again_s`: pause before the
    first poll of a payout; it doubles with each poll, up to `again_max_s`. `call_s`: upper bound of the duration of a
    call, from which the lease of a payout is computed. `late_s`: a payout without a final status is late after this
    time. `doubt_s`: how long a payout that the channel reports as absent may still be in transit to it.
    """

    rate: float = 20.0
    at_once: int = 8
    turn_max: int = 200
    again_s: float = 1.0
    again_max_s: float = 300.0
    call_s: float = 15.0
    late_s: float = 900.0
    doubt_s: float = 600.0


class Sending(msgspec.Struct):
    """A payout that this process has leased, to send or to poll it."""

    order_id: UUID
    amount: int
    currency: str
    asked: int
    channel_ref: str | None = None


class Paid(msgspec.Struct):
    """Counters of payouts since the start of this process. `late` is a gauge."""

    sent: int = 0
    asked: int = 0
    ended: int = 0
    away: int = 0
    silent: int = 0
    findings: int = 0
    late: int = 0
