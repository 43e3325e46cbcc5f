"""Payout files of the fund service in the format pain.001.001.09 of ISO 20022, a customer credit transfer initiation.

`sepaxml` writes this message, too, but for IBANs in EUR only. Payees also have national accounts in any currency.
"""

from collections.abc import Sequence
from datetime import UTC, date
from typing import Final
from xml.etree import ElementTree as ET

from fundledger.fund.model.bank_account import BankAccount, is_bic
from fundledger.fund.model.payout_file import PayoutFile, PayoutLine, amount_text

NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"
NOT_PROVIDED: Final = "NOTPROVIDED"
"""The identification of a bank that is not known. With an IBAN, the bank is optional."""
_Element = ET.Element


def write_pain001(file: PayoutFile, lines: Sequence[PayoutLine], debtor: BankAccount, day: date) -> bytes:
    """Return the message: one payment information block, with one transaction for each payout. `day`: the date on which
    the bank shall pay.
    """
    document = _Element("Document", {"xmlns": NAMESPACE})
    initiation = _in(document, "CstmrCdtTrfInitn")
    total, count = amount_text(file.total, file.currency), str(file.lines)
    header = _in(initiation, "GrpHdr")
    _in(header, "MsgId", file.message_id)
    _in(header, "CreDtTm", file.created_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
    _in(header, "NbOfTxs", count)
    _in(header, "CtrlSum", total)
    _in(_in(header, "InitgPty"), "Nm", debtor.holder)
    block = _in(initiation, "PmtInf")
    _in(block, "PmtInfId", file.message_id)
    _in(block, "PmtMtd", "TRF")
    _in(block, "NbOfTxs", count)
    _in(block, "CtrlSum", total)
    _in(_in(block, "ReqdExctnDt"), "Dt", day.isoformat())
    _in(_in(block, "Dbtr"), "Nm", debtor.holder)
    _account(block, "DbtrAcct", debtor)
    _agent(block, "DbtrAgt", debtor)
    for line in lines:
        _transaction(block, line, file.currency)
    ET.indent(document)
    body: bytes = ET.tostring(document, encoding="UTF-8", xml_declaration=True)
    return body + b"\n"


def _transaction(block: _Element, line: PayoutLine, currency: str) -> None:
    transaction = _in(block, "CdtTrfTxInf")
    _in(_in(transaction, "PmtId"), "EndToEndId", line.ref)
    amount = _in(_in(transaction, "Amt"), "InstdAmt", amount_text(line.amount, currency))
    amount.set("Ccy", currency)
    if line.payee.iban is None or line.payee.bank_code is not None:
        _agent(transaction, "CdtrAgt", line.payee)
    _in(_in(transaction, "Cdtr"), "Nm", line.payee.holder)
    _account(transaction, "CdtrAcct", line.payee)
    _in(_in(transaction, "RmtInf"), "Ustrd", f"{line.merchant} {line.order_no}")


def _account(parent: _Element, name: str, account: BankAccount) -> None:
    id_ = _in(_in(parent, name), "Id")
    if account.iban is not None:
        _in(id_, "IBAN", account.iban)
    else:
        _in(_in(id_, "Othr"), "Id", account.number)


def _agent(parent: _Element, name: str, account: BankAccount) -> None:
    bank = _in(_in(parent, name), "FinInstnId")
    if account.bank_code is None:
        _in(_in(bank, "Othr"), "Id", NOT_PROVIDED)
    elif is_bic(account.bank_code):
        _in(bank, "BICFI", account.bank_code)
    else:
        _in(_in(bank, "ClrSysMmbId"), "MmbId", account.bank_code)


def _in(parent: _Element, name: str, text: str | None = None) -> _Element:
    child = ET.SubElement(parent, name)
    child.text = text
    return child
