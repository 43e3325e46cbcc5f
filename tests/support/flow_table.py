"""Renew the table of flows in the reference of the fund service: `make definitions`. The code of the flows makes it.

Each amount of an order of ROWS is a letter. The order has a power of ten in place of the letter, so the digits of an
entry's amount show how the flow adds and subtracts the letters.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import msgspec

from fundledger.fund.model.flows import Ending, Entry, end_entries_of, entries_of
from fundledger.fund.model.order import REFUND_FORMAT, Kind, Order, SplitPart, State
from fundledger.fund.model.split import with_parts

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "fund.md"
BEGIN: Final = "<!-- `make definitions` makes this table from tests/support/flow_table.py. -->\n"
REVERSAL: Final = (
    "| reversal: the voucher of the reversed order with exchanged sides; possible once for an order "
    "| the accounts that were credited | the accounts that were debited |"
)


class Flow(msgspec.Struct, frozen=True):
    """A row of the table. `letters`: by field of the order, the letter that stands for its amount; a field of a part is
    MERCHANT.FIELD. `amount` has the greatest power of ten, and the other fields have smaller ones in their order.
    `ending`: the row shows this end.
    """

    event: str
    kind: Kind
    letters: dict[str, str]
    fields: dict[str, Any] = {}
    ending: Ending | None = None


OTHER: Final = {"counterparty": "OTHER"}
"""The other channel of an own transfer."""
ROWS: Final = [
    Flow(
        "payment G, fee f, `settle: now`, set-off s",
        Kind.PAYMENT,
        {"amount": "G", "fee": "f", "set_off": "s"},
        {"settle": "now"},
    ),
    Flow("payment G, `settle: later`", Kind.PAYMENT, {"amount": "G"}, {"settle": "later"}),
    Flow(
        "settlement G, fees of the settled payments f, set-off s",
        Kind.SETTLEMENT,
        {"amount": "G", "fee": "f", "set_off": "s"},
    ),
    Flow(
        "refund r, of which p is pending, fee returned f",
        Kind.REFUND,
        {"amount": "r", "from_pending": "p", "fee": "f"},
        {"voucher_format": REFUND_FORMAT},
    ),
    Flow("refund `paid`", Kind.REFUND, {"amount": "r"}, {"voucher_format": REFUND_FORMAT}, ending="paid"),
    Flow(
        "refund `bounced`, set-off s",
        Kind.REFUND,
        {"amount": "r", "from_pending": "p", "fee": "f", "end_set_off": "s"},
        {"voucher_format": REFUND_FORMAT},
        ending="bounced",
    ),
    Flow(
        "withdrawal w, fee f, set-off of the whole debt s",
        Kind.WITHDRAWAL,
        {"amount": "w", "fee": "f", "set_off": "s"},
    ),
    Flow("withdrawal `paid`", Kind.WITHDRAWAL, {"amount": "w", "fee": "f"}, ending="paid"),
    Flow(
        "withdrawal `bounced`, set-off s",
        Kind.WITHDRAWAL,
        {"amount": "w", "fee": "f", "end_set_off": "s"},
        ending="bounced",
    ),
    Flow(
        "payout return w, fee returned f, set-off s",
        Kind.PAYOUT_RETURN,
        {"amount": "w", "fee": "f", "set_off": "s"},
    ),
    Flow(
        "chargeback x, of which p is pending and d becomes a debt",
        Kind.CHARGEBACK,
        {"amount": "x", "from_pending": "p", "to_receivable": "d"},
    ),
    Flow(
        "payment G that is parked",
        Kind.PAYMENT,
        {"amount": "G", "fee": "f"},
        {"settle": "now", "parking": "park"},
    ),
    Flow(
        "parked payment G that is released, fee f, set-off s",
        Kind.PAYMENT,
        {"amount": "G", "fee": "f", "set_off": "s"},
        {"settle": "now", "parking": "release"},
    ),
    Flow("payout return w that is parked", Kind.PAYOUT_RETURN, {"amount": "w"}, {"parking": "park"}),
    Flow(
        "parked payout return w that is released, fee returned f, set-off s",
        Kind.PAYOUT_RETURN,
        {"amount": "w", "fee": "f", "set_off": "s"},
        {"parking": "release"},
    ),
    Flow("chargeback x that is parked", Kind.CHARGEBACK, {"amount": "x"}, {"parking": "park"}),
    Flow(
        "parked chargeback x that is released",
        Kind.CHARGEBACK,
        {"amount": "x", "from_pending": "p", "to_receivable": "d"},
        {"parking": "release"},
    ),
    Flow(
        "payment G, fee f of which t is tax, `settle: now`",
        Kind.PAYMENT,
        {"amount": "G", "fee": "f", "tax": "t"},
        {"settle": "now"},
    ),
    Flow(
        "split payment of parts p and q, fees f and g, tax t, set-off s",
        Kind.SPLIT_PAYMENT,
        {"M1.amount": "p", "M2.amount": "q", "M1.fee": "f", "M2.fee": "g", "M1.tax": "t", "M1.set_off": "s"},
    ),
    Flow(
        "split payment of parts p and q that is parked",
        Kind.SPLIT_PAYMENT,
        {"M1.amount": "p", "M2.amount": "q"},
        {"parking": "park"},
    ),
    Flow(
        "split refund of parts p and q, fees returned f and g, tax t",
        Kind.SPLIT_REFUND,
        {"M1.amount": "p", "M2.amount": "q", "M1.fee": "f", "M2.fee": "g", "M1.tax": "t"},
        {"voucher_format": REFUND_FORMAT},
    ),
    Flow(
        "split refund `paid`",
        Kind.SPLIT_REFUND,
        {"M1.amount": "p", "M2.amount": "q"},
        {"voucher_format": REFUND_FORMAT},
        ending="paid",
    ),
    Flow(
        "split refund `bounced`, set-off s",
        Kind.SPLIT_REFUND,
        {"M1.amount": "p", "M2.amount": "q", "M1.fee": "f", "M2.fee": "g", "M1.tax": "t", "M1.end_set_off": "s"},
        {"voucher_format": REFUND_FORMAT},
        ending="bounced",
    ),
    Flow(
        "split chargeback of parts p and q, of which d becomes a debt",
        Kind.SPLIT_CHARGEBACK,
        {"M1.amount": "p", "M2.amount": "q", "M1.to_receivable": "d"},
    ),
    Flow("channel invoice i", Kind.CHANNEL_INVOICE, {"amount": "i"}),
    Flow("recovery n", Kind.RECOVERY, {"amount": "n"}),
    Flow("write-off n, after approval", Kind.WRITE_OFF, {"amount": "n"}),
    Flow(
        "adjustment n, `credit`, after approval, set-off s",
        Kind.ADJUSTMENT,
        {"amount": "n", "set_off": "s"},
        {"direction": "credit"},
    ),
    Flow("adjustment n, `debit`, after approval", Kind.ADJUSTMENT, {"amount": "n"}, {"direction": "debit"}),
    Flow("channel cost c", Kind.CHANNEL_COST, {"amount": "c"}),
    Flow(
        "bank difference d, `more` (overage), after approval",
        Kind.BANK_DIFFERENCE,
        {"amount": "d"},
        {"direction": "more"},
    ),
    Flow(
        "bank difference d, `less` (shortage), after approval",
        Kind.BANK_DIFFERENCE,
        {"amount": "d"},
        {"direction": "less"},
    ),
    Flow(
        "adjustment n, `credit` with `against: over`, after approval, set-off s",
        Kind.ADJUSTMENT,
        {"amount": "n", "set_off": "s"},
        {"direction": "credit", "against": "over"},
    ),
    Flow(
        "adjustment n, `debit` with `against: short`, after approval",
        Kind.ADJUSTMENT,
        {"amount": "n"},
        {"direction": "debit", "against": "short"},
    ),
    Flow("own transfer x to CHANNEL from OTHER, after approval", Kind.OWN_TRANSFER, {"amount": "x"}, OTHER),
    Flow("own transfer `paid`", Kind.OWN_TRANSFER, {"amount": "x"}, OTHER, ending="paid"),
    Flow("own transfer `bounced`", Kind.OWN_TRANSFER, {"amount": "x"}, OTHER, ending="bounced"),
    Flow("own funds x, `in`, after approval", Kind.OWN_FUNDS, {"amount": "x"}, {"direction": "in"}),
    Flow("own funds x, `out`, after approval", Kind.OWN_FUNDS, {"amount": "x"}, {"direction": "out"}),
    Flow("fee sweep x, after approval", Kind.FEE_SWEEP, {"amount": "x"}),
    Flow("payable payment x, after approval", Kind.PAYABLE_PAYMENT, {"amount": "x"}),
    Flow("payable payment x against `tax`, after approval", Kind.PAYABLE_PAYMENT, {"amount": "x"}, {"against": "tax"}),
    *[
        Flow(
            f"suspense clearing d, `more` (overage) against `{against}`, after approval"
            + (", set-off s" if against == "merchant" else ""),
            Kind.SUSPENSE_CLEARING,
            {"amount": "d", **({"set_off": "s"} if against == "merchant" else {})},
            {"direction": "more", "against": against},
        )
        for against in ("merchant", "income", "bank", "short")
    ],
    *[
        Flow(
            f"suspense clearing d, `less` (shortage) against `{against}`, after approval",
            Kind.SUSPENSE_CLEARING,
            {"amount": "d"},
            {"direction": "less", "against": against},
        )
        for against in ("merchant", "loss", "channel")
    ],
    *[
        Flow(
            f"parked clearing G of money that came in, against `{against}`, after approval"
            + (", set-off s" if against == "merchant" else ""),
            Kind.PARKED_CLEARING,
            {"amount": "G", **({"set_off": "s"} if against == "merchant" else {})},
            {"direction": "in", "against": against},
        )
        for against in ("merchant", "income", "bank")
    ],
    *[
        Flow(
            f"parked clearing x of money that went out, against `{against}`, after approval",
            Kind.PARKED_CLEARING,
            {"amount": "x"},
            {"direction": "out", "against": against},
        )
        for against in ("merchant", "loss")
    ],
    Flow("top-up G, fee f, set-off s", Kind.TOP_UP, {"amount": "G", "fee": "f", "set_off": "s"}),
    Flow(
        "transfer x to merchant N, set-off of the whole debt s, set-off of N t",
        Kind.TRANSFER,
        {"amount": "x", "set_off": "s", "counter_set_off": "t"},
        {"counterparty": "N"},
    ),
    Flow("reserve hold x", Kind.RESERVE_HOLD, {"amount": "x"}),
    Flow("reserve release x, set-off s", Kind.RESERVE_RELEASE, {"amount": "x", "set_off": "s"}),
    Flow(
        "dispute x opened, of which p is pending and d becomes a debt",
        Kind.DISPUTE,
        {"amount": "x", "from_pending": "p", "to_receivable": "d"},
    ),
    Flow("dispute `lost`", Kind.DISPUTE, {"amount": "x"}, ending="lost"),
    Flow(
        "dispute `won`, of which p was pending, set-off s",
        Kind.DISPUTE,
        {"amount": "x", "from_pending": "p", "end_set_off": "s"},
        ending="won",
    ),
    Flow("dispute won x after a chargeback, set-off s", Kind.DISPUTE_WON, {"amount": "x", "set_off": "s"}),
    Flow("dispute fee f, of which d becomes a debt", Kind.DISPUTE_FEE, {"amount": "f", "to_receivable": "d"}),
    Flow(
        "dispute fee f that the channel collects later, of which d becomes a debt",
        Kind.DISPUTE_FEE,
        {"amount": "f", "to_receivable": "d"},
        {"against": "payable"},
    ),
]


def table() -> str:
    """Return the table in Markdown."""
    rows = [f"| {flow.event} | {_side(flow, 'debit')} | {_side(flow, 'credit')} |" for flow in ROWS]
    return "\n".join(["| Event | Debit | Credit |", "|---|---|---|", *rows, REVERSAL]) + "\n"


def renewed(page: str) -> str:
    """Return the text of the page with the current table."""
    before, old = page.split(BEGIN)
    return before + BEGIN + table() + old[old.index("\n\n") + 1 :]


def entries(flow: Flow) -> list[Entry]:
    order = _order(flow)
    return entries_of(order) if flow.ending is None else end_entries_of(order, flow.ending)


def _order(flow: Flow) -> Order:
    none = UUID(int=0)
    order = Order(
        *(none, flow.kind, "M", "1", State.POSTING, 0, 0, "CNY", b"", none, "m", datetime(2026, 1, 1, tzinfo=UTC)),
        channel="CHANNEL",
        **flow.fields,
    )
    parts: dict[str, SplitPart] = {}
    for field, value in _values(flow).items():
        merchant, _, member = field.rpartition(".")
        setattr(parts.setdefault(merchant, SplitPart(merchant, 0)) if merchant else order, member, value)
    return with_parts(order, list(parts.values())) if parts else order


def _values(flow: Flow) -> dict[str, int]:
    """Return a power of ten for each field with a letter, the greatest one first."""
    return {field: 10 ** (len(flow.letters) - i) for i, field in enumerate(flow.letters)}


def _side(flow: Flow, side: str) -> str:
    return ", ".join(f"`{e.account}` {_sum(flow, e.amount)}" for e in entries(flow) if e.side == side)


def _sum(flow: Flow, amount: int) -> str:
    """Return an amount as a sum of letters."""
    text = ""
    for field, value in _values(flow).items():
        times = (amount + value // 2) // value
        assert times in (-1, 0, 1), (flow, amount)
        text += f"{'-' if times < 0 else '+'}{flow.letters[field]}" if times else ""
        amount -= times * value
    assert amount == 0, (flow, text, amount)
    return text.removeprefix("+")


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
