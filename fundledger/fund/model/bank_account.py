"""Model of the fund service: bank accounts, by IBAN or by national account number and bank code. Pure."""

import re
from typing import Annotated, Final

import msgspec
from stdnum import iban as ibans
from stdnum.exceptions import ValidationError

MASKED_DIGITS: Final = 4
"""The number of last characters that a masked account number shows."""
HOLDER_MAX: Final = 70
"""The maximum length of a holder's name. Banks accept no more in a payment order."""
Holder = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=HOLDER_MAX,
        # A spreadsheet evaluates a cell that begins with one of the excluded characters as a formula.
        pattern=r"^[^\x00-\x20\x7f-\x9f=+@'\ufffe\uffff-][^\x00-\x1f\x7f-\x9f\ufffe\uffff]*\Z",
        description="name of the holder; no control characters, and none of `= + - @ '` at the beginning",
    ),
]
Iban = Annotated[
    str,
    msgspec.Meta(
        min_length=15, max_length=42, pattern=r"^[A-Za-z0-9 ]+\Z", description="IBAN (ISO 13616); blanks are ignored"
    ),
]
AccountNumber = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{3,33}\Z", description="national account number")
]
BankCode = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{2,34}\Z", description="code of the bank, or its BIC")
]
is_bic: Final = re.compile(r"[A-Z]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?").fullmatch


class BankAccount(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bank account: an IBAN, perhaps with a BIC as `bank_code`, or an account number with the code of its bank."""

    holder: str
    iban: str | None = None
    account: str | None = None
    bank_code: str | None = None

    @property
    def number(self) -> str:
        return self.iban or self.account or ""


def checked_iban(text: str) -> str:
    """Return an IBAN without blanks and in capitals. Raises ValueError if its check digits are wrong, or if its form is
    not that of its country.
    """
    try:
        return str(ibans.validate(text))
    except ValidationError as error:
        raise ValueError(f"iban is not valid: {error}") from None


def require_one_number(iban: str | None, account: str | None, bank_code: str | None) -> None:
    """Raise ValueError unless there is either an IBAN, or an account number with a bank code."""
    if iban is None and account is None:
        raise ValueError("iban is missing: send iban, or account with bank_code")
    if iban is not None and account is not None:
        raise ValueError("account must be omitted if iban is given")
    if account is not None and bank_code is None:
        raise ValueError("bank_code is missing: an account number needs the code of its bank")
    if iban is not None and bank_code is not None and not is_bic(bank_code):
        raise ValueError("bank_code must be a BIC if iban is given")


def masked(number: str) -> str:
    """Return an account number of which only the last characters are visible."""
    return f"****{number[-MASKED_DIGITS:]}"
