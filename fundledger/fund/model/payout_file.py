"""Model of the fund service: payout files and imports of their results, as requests and as rows. Pure."""

import hashlib
from datetime import date, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from fundledger.currencies import EXPONENTS
from fundledger.fund.model.bank_account import (
    AccountNumber,
    BankAccount,
    BankCode,
    Holder,
    Iban,
    checked_iban,
    require_one_number,
)
from fundledger.fund.model.requests import AMOUNT_MAX, Currency
from fundledger.json_values import about

LINES_MAX: Final = 10_000
LINES_DEFAULT: Final = 1000
CONTENT_CHARACTERS_MAX: Final = 8 << 20
MESSAGE_ID_MAX: Final = 35
"""The maximum length of an identification in ISO 20022 messages."""
FileFormat = Literal["csv", "pain.001"]
ResultFormat = Literal["csv", "pain.002"]
ResultState = Literal["paid", "bounced", "pending"]
Outcome = Literal["recorded", "pending", "unknown", "amount", "repeated", "contradictory"]
FileNo = Annotated[int, msgspec.Meta(ge=1, le=(1 << 53) - 1, description="number of the file, from 1 for each channel")]


class Debtor(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The bank account from which the bank pays: `iban`, or `account` with `bank_code`."""

    holder: Holder
    iban: Iban | None = None
    account: AccountNumber | None = None
    bank_code: BankCode | None = None

    def __post_init__(self) -> None:
        require_one_number(self.iban, self.account, self.bank_code)
        if self.iban is not None:
            self.iban = checked_iban(self.iban)

    @property
    def bank_account(self) -> BankAccount:
        return BankAccount(self.holder, self.iban, self.account, self.bank_code)


class PayoutFileRequest(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A new payout file of the due withdrawals of a channel, oldest first. If `file_no` exists, the answer is that
    file, otherwise it has to be the next number. `debtor`: required for `pain.001`. `execution_date`: default today
    (UTC).
    """

    currency: Currency
    format: FileFormat = "csv"
    limit: Annotated[int, msgspec.Meta(ge=1, le=LINES_MAX, description="maximum number of payouts")] = LINES_DEFAULT
    file_no: FileNo | None = None
    debtor: Debtor | None = None
    execution_date: date | None = None

    def __post_init__(self) -> None:
        if self.format == "pain.001" and self.debtor is None:
            raise ValueError("debtor is missing: a file in the format pain.001 names the account that pays")


class PayoutResultsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Results of a payout file, as the bank reports them. `content`: the text of the file."""

    file_no: FileNo
    format: ResultFormat
    content: Annotated[str, msgspec.Meta(min_length=1, max_length=CONTENT_CHARACTERS_MAX)]

    def digest(self) -> bytes:
        return hashlib.sha256(f"{self.format}|{self.content}".encode("utf-8", "surrogatepass")).digest()


class PayoutFile(msgspec.Struct, frozen=True):
    """A row of fund.payout_files, without its content. `total`: the sum of the payouts in minor units. `digest`: the
    SHA-256 of the content.
    """

    channel: str
    file_no: int
    currency: str
    format: FileFormat
    lines: int
    total: int
    digest: bytes
    created_by: str
    created_at: datetime

    @property
    def message_id(self) -> str:
        return message_id(self.channel, self.file_no)

    @property
    def name(self) -> str:
        """The name under which a person saves the file."""
        return f"{self.channel}-{self.file_no}.{'csv' if self.format == 'csv' else 'xml'}"


class PayoutLine(msgspec.Struct, frozen=True):
    """A payout in a file. `amount` is in minor units."""

    order: UUID
    merchant: str
    order_no: str
    amount: int
    payee: BankAccount

    @property
    def ref(self) -> str:
        """The reference of the payout at the bank: the order's id without hyphens, at most 35 characters."""
        return self.order.hex


class Result(msgspec.Struct, frozen=True):
    """A line of a results file. `order`: the order that `ref` names, None if it is no id. `amount` is in minor units;
    `amount` and `currency` are None if the line omits them.
    """

    line: int
    ref: str
    order: UUID | None
    state: ResultState
    amount: int | None = None
    currency: str | None = None
    channel_ref: str | None = None
    reason: str | None = None


class ResultReport(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of a result. `recorded`: the result is stored. The withdrawal ends as `state`, unless a front end has
    reported another end: then it keeps that end, and there is a finding. `pending`: the bank has not decided. All other
    outcomes are findings, and change nothing.
    """

    line: Annotated[int, about("number of the result in the content, from 1; a header does not count", minimum=1)]
    ref: str
    state: ResultState
    outcome: Outcome
    amount: Annotated[int, about("in minor units, as the bank reports it")] | None = None
    order: Annotated[UUID, about(format="uuid")] | None = None


def message_id(channel: str, file_no: int) -> str:
    """Return the identification of a payout file in ISO 20022 messages. No two files have the same one."""
    digest = hashlib.sha256(channel.encode()).hexdigest()[:6]
    return f"{channel[:10]}-{digest}-{file_no}"


def amount_text(amount: int, currency: str) -> str:
    """Return an amount in major units, with the decimal places of its currency: 10000 CNY is `100.00`."""
    places = EXPONENTS[currency]
    if places == 0:
        return str(amount)
    whole, part = divmod(amount, 10**places)
    return f"{whole}.{part:0{places}}"


def amount_of(text: str, currency: str) -> int:
    """Return the amount in minor units of a text in major units. Raises ValueError if the text is no amount of the
    currency.
    """
    whole, _, part = text.partition(".")
    places: int = EXPONENTS[currency]
    is_number = whole.isascii() and whole.isdigit() and (not part or (part.isascii() and part.isdigit()))
    if not is_number or text.endswith(".") or len(text) > 20 or len(part.rstrip("0")) > places:
        raise ValueError(f"{text[:30]!r} is not an amount of {currency}")
    amount = int(whole + part.rstrip("0").ljust(places, "0"))
    if not 0 < amount <= AMOUNT_MAX:
        raise ValueError(f"the amount {text[:30]!r} is out of range")
    return amount
