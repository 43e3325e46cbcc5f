"""Store of the fund service: MAC layouts. For each kind of row, one function returns the fields that the MAC covers.
Pure.

The constant of a kind, for example `payment1`, ends with the version of the layout. The fields of a version never
change, because rows that were written with this version have to verify permanently. The layouts of orders are in
fund/store/macs.py.
"""

from datetime import date
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from fundledger.fund.model.fees import tiers_of
from fundledger.fund.model.order import Kind, Order, SplitPart
from fundledger.security.row_macs import microseconds

PAYMENT: Final = b"payment1"
DAY: Final = b"wdrlday1"
MERCHANT: Final = b"merchnt1"
FEE_RULE: Final = b"feerule1"
PAYOUT: Final = b"payout_1"
DEBT: Final = b"debt___1"
PERSON: Final = b"person_1"
CHANNEL: Final = b"channel1"
CHANGE: Final = b"change_1"
PART: Final = b"splitpt1"
CALENDAR: Final = b"calendr1"
END: Final = b"end____1"
HOLIDAY: Final = b"holiday1"
MERCHANT_EVENT: Final = b"mrchevt1"
PAYEE: Final = b"payee__1"
PAYOUT_FILE: Final = b"payfile1"
PAYOUT_RESULTS: Final = b"payrslt1"
Day = tuple[str, date]
"""A pair of a merchant and a day."""
MERCHANT_DEFAULTS: Final[dict[str, object]] = {
    "final_channel": None,
    "final_payee": None,
    "rolling_basis_points": None,
    "rolling_days": None,
    "rolling_from": None,
    "settlement_cut": None,
    "settlement_days": None,
    "settlement_region": None,
    "state": "open",
    "version": 0,
}
"""Columns of a merchant that were added after the layout, with their defaults, by name. The names are sorted."""


class Filed(NamedTuple):
    """The columns of a payout in a payout file. `reported`: the imported result, `paid` or `bounced`."""

    file_no: int | None = None
    line_no: int | None = None
    reported: str | None = None
    reported_reason: str | None = None


NOT_FILED: Final = Filed()


class Progress(msgspec.Struct):
    """The progress of a payment: the amounts that were settled, refunded or charged back, in minor units. It is a row
    of fund.payments.
    """

    order_id: UUID
    merchant: str
    seq: int
    amount: int
    fee: int
    settled: int
    fee_settled: int
    refunded: int = 0
    refunded_unsettled: int = 0
    fee_waived: int = 0
    fee_returned: int = 0
    charged_back: int = 0
    charged_back_unsettled: int = 0
    reversed: bool = False
    tax: int = 0
    tax_settled: int = 0
    tax_returned: int = 0
    settle_on: date | None = None

    @property
    def unsettled(self) -> int:
        """The pending amount of the payment: it is not settled, refunded or charged back."""
        return self.amount - self.settled - self.refunded_unsettled - self.charged_back_unsettled

    @property
    def returnable(self) -> int:
        """The amount of the payment that can still be refunded or charged back."""
        return self.amount - self.refunded - self.charged_back

    def fields(self) -> tuple[object, ...]:
        """Return the fields that the MAC of the row covers. A column that was added later is covered only if it differs
        from its default, so that the MACs of earlier rows stay valid.
        """
        return (
            *(self.order_id.bytes, self.merchant, self.seq, self.amount, self.fee, self.settled, self.fee_settled),
            *(self.refunded, self.refunded_unsettled, self.fee_waived, self.fee_returned, self.charged_back),
            self.reversed,
            *[(name, value) for name, default in _LATER_SUMS.items() if (value := getattr(self, name)) != default],
        )


_LATER_SUMS: Final = {"charged_back_unsettled": 0, "settle_on": None, "tax": 0, "tax_returned": 0, "tax_settled": 0}
"""Columns of fund.payments that were added after the layout, with their defaults, by name. The names are sorted."""


class PartProgress(msgspec.Struct):
    """The part of one merchant in a split order, with the amounts that were refunded or charged back, in minor units.
    It is a row of fund.split_parts.
    """

    order_id: UUID
    merchant: str
    kind: str
    seq: int
    amount: int
    fee: int
    tax: int
    set_off: int = 0
    to_receivable: int = 0
    end_set_off: int = 0
    refunded: int = 0
    fee_returned: int = 0
    tax_returned: int = 0
    charged_back: int = 0
    reversed: bool = False

    @property
    def returnable(self) -> int:
        """The amount of the part that can still be refunded or charged back."""
        return self.amount - self.refunded - self.charged_back

    def fields(self) -> tuple[object, ...]:
        """Return the fields that the MAC of the row covers."""
        return (
            *(self.order_id.bytes, self.merchant, self.kind, self.seq, self.amount, self.fee, self.tax, self.set_off),
            *(self.to_receivable, self.end_set_off, self.refunded, self.fee_returned, self.tax_returned),
            *(self.charged_back, self.reversed),
        )


def part_progress_of(row: Any) -> PartProgress:
    """Return the part that a row of fund.split_parts contains."""
    return PartProgress(*(row[name] for name in PartProgress.__struct_fields__))


def part_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.split_parts."""
    return part_progress_of(row).fields()


def terms_of_part(part: SplitPart) -> tuple[object, ...]:
    """Return the fields of a part that the MAC of its order covers."""
    charged = part.amount, part.fee, part.tax, part.set_off, part.to_receivable, part.end_set_off
    return part.merchant, *charged, part.fee_version, part.keeps_fee


def progress_of(row: Any) -> Progress:
    """Return the progress that a row of fund.payments contains."""
    return Progress(*(row[name] for name in Progress.__struct_fields__))


def payment_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.payments."""
    return progress_of(row).fields()


def day_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.withdrawal_days."""
    return fields_of_day((row["merchant"], row["day"]), row["amount"])


def fields_of_day(key: Day, amount: int) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.withdrawal_days. `key`: its merchant and day. `amount`: its withdrawn
    amount.
    """
    return key[0], key[1].toordinal(), amount


def debt_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.debts."""
    return row["merchant"], row["owed"]


def merchant_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a merchant's row. A column that was added later is covered by its name if it differs
    from its default.
    """
    money = row["currency"], row["settlement"], row["withdrawal_limit"]
    later = [(name, _plain(row[name])) for name, default in MERCHANT_DEFAULTS.items() if row[name] != default]
    named = [later] if later else []
    return row["id"], row["name"], *money, row["digest"], microseconds(row["created_at"]), *named


def _plain(value: object) -> object:
    return value.bytes if isinstance(value, UUID) else value


def merchant_event_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.merchant_events."""
    change = None if row["change"] is None else row["change"].bytes
    told = row["what"], row["body"], row["by"], row["approved_by"], row["why"], change
    return row["merchant"], row["version"], *told, microseconds(row["at"])


def calendar_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.calendars."""
    return row["from_day"].toordinal(), row["timezone"], row["cut"], microseconds(row["recorded_at"])


def holiday_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.holidays."""
    return row["region"], row["day"].toordinal(), row["working"], row["name"], row["change"].bytes


def end_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.ends."""
    return row["order_id"].bytes, row["ending"], row["day"].toordinal(), microseconds(row["at"])


_LATER_TERMS: Final = (
    ("currency", None),
    ("fee_return", "proportional"),
    ("tax_basis_points", 0),
    ("tax_mode", "included"),
)
"""Columns of fund.fee_rules that were added after the layout, with their defaults."""


def fee_rule_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a fee rule. `tiers` is decoded, so that the MAC covers the content of the JSON and not
    its spelling. A column that was added later is covered only if it differs from its default.
    """
    tiers = [(tier.from_amount, tier.basis_points, tier.fixed) for tier in tiers_of(row["tiers"])]
    applies = row["version"], row["merchant"], row["product"], row["channel"]
    charged = row["basis_points"], row["fixed"], row["minimum"], row["maximum"], tiers
    written = microseconds(row["effective_at"]), row["module"], microseconds(row["created_at"])
    return *applies, *charged, *written, *[(name, row[name]) for name, no in _LATER_TERMS if row[name] != no]


def person_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a person."""
    times = microseconds(row["created_at"]), microseconds(row["rotated_at"]), microseconds(row["disabled_at"])
    return row["name"], sorted(row["roles"]), row["token_digest"], row["created_by"], *times


def channel_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a registered channel. A column that was added later is covered only if it differs from
    the default of the database, so that the MACs of earlier rows stay valid.
    """
    terms = row["payout"], row["references_unique"], row["overdraft"], row["state"]
    named = row["name"], row["currency"], row["bank_account"]
    later = [("refund", row["refund"])] if row["refund"] != "manual" else []
    return *named, *terms, row["registered_by"], microseconds(row["created_at"]), *later


def change_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a change under dual control."""
    made = row["id"].bytes, row["kind"], row["subject"], row["body"], row["maker"], microseconds(row["made_at"])
    return *made, row["state"], row["checker"], microseconds(row["decided_at"]), row["reason"]


def payee_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a payee."""
    number = row["iban"], row["account"], row["bank_code"], row["currency"]
    named = row["id"].bytes, row["merchant"], row["holder"], *number
    replaces = None if row["replaces"] is None else row["replaces"].bytes
    times = microseconds(row["created_at"]), microseconds(row["usable_from"]), microseconds(row["disabled_at"])
    return *named, row["state"], row["registered_by"], replaces, *times, row["disabled_by"], row["disabled_why"]


def payout_file_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a payout file. The digest covers its content."""
    named = row["channel"], row["file_no"], row["currency"], row["format"]
    made = row["created_by"], microseconds(row["created_at"])
    return *named, row["lines"], row["total"], row["digest"], *made


def payout_results_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of an import of results of a payout file."""
    named = row["channel"], row["file_no"], row["digest"], row["format"], row["lines"], row["report"]
    return *named, row["imported_by"], microseconds(row["at"])


def payout_fields(row: Any) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.payouts. The MAC does not cover times and numbers of attempts."""
    named = row["order_id"], row["channel"], row["amount"], row["currency"]
    filed = Filed(row["file_no"], row["line_no"], row["reported"], row["reported_reason"])
    return fields_of_payout(*named, row["outcome"], row["channel_ref"], row["kind"], filed)


def is_of(row: Any, order: Order) -> bool:
    """Return whether a payout has the kind, channel, amount and currency of its order."""
    sent = row["kind"], row["channel"], row["amount"], row["currency"]
    return sent == (order.kind, order.channel, order.amount, order.currency)


def fields_of_payout(
    order: UUID,
    channel: str,
    amount: int,
    currency: str,
    outcome: str | None = None,
    channel_ref: str | None = None,
    kind: str = Kind.WITHDRAWAL,
    filed: Filed = NOT_FILED,
) -> tuple[object, ...]:
    """Return the MAC fields of a row of fund.payouts. `kind` was added later: it is covered only if it is not that of a
    withdrawal, so that the MACs of earlier rows stay valid. The columns of a payout in a file are covered by name, if
    they have a value.
    """
    later: list[tuple[str, object]] = [("kind", str(kind))] if kind != Kind.WITHDRAWAL else []
    later += [(name, value) for name, value in zip(Filed._fields, filed, strict=True) if value is not None]
    return order.bytes, channel, amount, currency, outcome, channel_ref, *later
