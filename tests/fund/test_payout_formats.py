"""Formats of payout files and of their results, and the decision about results: tables without a database."""

import csv
import io
import json
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID
from xml.etree import ElementTree as ET

import msgspec
import pytest

from fundledger.fund.model.bank_account import BankAccount, checked_iban
from fundledger.fund.model.payee import PayeeRequest
from fundledger.fund.model.payout_file import (
    LINES_MAX,
    MESSAGE_ID_MAX,
    Debtor,
    PayoutFile,
    PayoutFileRequest,
    PayoutLine,
    Result,
    amount_of,
    amount_text,
    message_id,
)
from fundledger.fund.payout_files.classify import Exported, decide, unknown_id
from fundledger.fund.payout_files.csv_file import COLUMNS, BadResults, read_csv, write_csv
from fundledger.fund.payout_files.pain001 import NAMESPACE, write_pain001
from fundledger.fund.payout_files.pain002 import DEPTH_MAX, TEXT_MAX, Header, OtherFile, read_pain002
from tests.support.fund_payees import iban

AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
A, B, C = (UUID(int=number) for number in (1, 2, 3))
FILE = PayoutFile("icbc", 7, "CNY", "csv", 2, 12_345, b"", "ann", AT)
LINES = [
    PayoutLine(A, "tea-house", "w-1", 12_300, BankAccount("Tea House", iban())),
    PayoutLine(B, "-shop", "-2", 45, BankAccount("Müller & Söhne <x>", None, "6222021001", "102100099996")),
]


# --- Amounts and accounts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (1, "CNY", "0.01"),
        (10_000, "CNY", "100.00"),
        (2**53 - 1, "CNY", "90071992547409.91"),
        (5, "JPY", "5"),
        (2**53 - 1, "JPY", "9007199254740991"),
        (1, "KWD", "0.001"),
        (12_345, "CLF", "1.2345"),
    ],
)
def test_an_amount_is_written_in_major_units_and_read_back(amount: int, currency: str, text: str) -> None:
    assert amount_text(amount, currency) == text
    assert amount_of(text, currency) == amount


@pytest.mark.parametrize(("text", "amount"), [("7", 700), ("7.5", 750), ("07.50", 750), ("7.500", 750)])
def test_an_amount_may_have_fewer_or_more_zeros(text: str, amount: int) -> None:
    assert amount_of(text, "CNY") == amount


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0.00", "-1", "+1", "1.", ".5", "1.005", "1,00", "1e3", "0x1", " 1", "1 000", "NaN", "\uff11"),
        "90071992547409.92",
        "1" * 21,
    ],
)
def test_a_text_that_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        amount_of(text, "CNY")


@pytest.mark.parametrize(
    "text",
    ["DE89370400440532013000", "gb82 west 1234 5698 7654 32", "NO9386011117947", "MT84MALT011000012345MTLCAST001S"],
)
def test_ibans_of_several_countries_are_valid(text: str) -> None:
    assert checked_iban(text) == text.replace(" ", "").upper()


@pytest.mark.parametrize(
    "holder", ["=1+1", "+1", "-x", "@SUM(A1)", "'x", "\tx", "\rx", " x", "a\nb", "a\x00", "\ufffe", ""]
)
def test_a_holder_is_no_formula_and_has_no_control_characters(holder: str) -> None:
    body = json.dumps({"holder": holder, "currency": "CNY", "iban": iban()}).encode()
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=PayeeRequest)


def test_a_pain_file_needs_a_debtor() -> None:
    with pytest.raises(ValueError, match="debtor"):
        PayoutFileRequest("CNY", "pain.001")
    with pytest.raises(ValueError, match="iban is missing"):
        Debtor("Platform")
    assert PayoutFileRequest("CNY", "pain.001", debtor=Debtor("Platform", iban=iban())).debtor is not None


@pytest.mark.parametrize("channel", ["a", "icbc", "x" * 32])
def test_an_id_of_a_message_is_short_and_unique(channel: str) -> None:
    longest = message_id(channel, 2**53 - 1)
    assert len(longest) <= MESSAGE_ID_MAX
    assert longest != message_id(channel, 1) != message_id(f"{channel}2"[-32:], 1)


# --- Files for the bank ---------------------------------------------------------------------------------------------


def test_a_csv_file_has_a_line_for_each_payout_and_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(write_csv(FILE, LINES).decode(), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert [row["ref"] for row in rows] == [A.hex, B.hex]
    assert rows[0] | {} == {
        "file_no": "7",
        "line": "1",
        "ref": A.hex,
        "amount": "123.00",
        "currency": "CNY",
        "holder": "Tea House",
        "iban": iban(),
        "account": "",
        "bank_code": "",
        "merchant": "tea-house",
        "order_no": "w-1",
    }
    assert (rows[1]["merchant"], rows[1]["order_no"], rows[1]["account"]) == ("'-shop", "'-2", "6222021001")


SHAPE: dict[str, list[tuple[str, bool]]] = {
    # The elements of pain.001.001.09 that the writer may use, in the sequence of the schema; True: the schema requires it.
    "Document": [("CstmrCdtTrfInitn", True)],
    "CstmrCdtTrfInitn": [("GrpHdr", True), ("PmtInf", True)],
    "GrpHdr": [("MsgId", True), ("CreDtTm", True), ("NbOfTxs", True), ("CtrlSum", False), ("InitgPty", True)],
    "InitgPty": [("Nm", False)],
    "PmtInf": [
        *(("PmtInfId", True), ("PmtMtd", True), ("NbOfTxs", False), ("CtrlSum", False), ("ReqdExctnDt", True)),
        *(("Dbtr", True), ("DbtrAcct", True), ("DbtrAgt", True), ("CdtTrfTxInf", True)),
    ],
    "ReqdExctnDt": [("Dt", True)],
    "Dbtr": [("Nm", False)],
    "DbtrAcct": [("Id", True)],
    "DbtrAgt": [("FinInstnId", True)],
    "CdtTrfTxInf": [
        *(("PmtId", True), ("Amt", True), ("CdtrAgt", False), ("Cdtr", False), ("CdtrAcct", False), ("RmtInf", False)),
    ],
    "PmtId": [("EndToEndId", True)],
    "Amt": [("InstdAmt", True)],
    "CdtrAgt": [("FinInstnId", True)],
    "Cdtr": [("Nm", False)],
    "CdtrAcct": [("Id", True)],
    "RmtInf": [("Ustrd", False)],
    "FinInstnId": [("BICFI", False), ("ClrSysMmbId", False), ("Othr", False)],
    "ClrSysMmbId": [("MmbId", True)],
    "Othr": [("Id", True)],
}
LENGTHS = {"MsgId": 35, "PmtInfId": 35, "EndToEndId": 35, "Nm": 140, "Ustrd": 140, "MmbId": 35, "Id": 34, "IBAN": 34}


def check_shape(element: ET.Element) -> None:
    tag = element.tag.removeprefix(f"{{{NAMESPACE}}}")
    children = [child.tag.removeprefix(f"{{{NAMESPACE}}}") for child in element]
    if not children:
        assert element.text, tag
        assert len(element.text) <= LENGTHS.get(tag, 35), (tag, element.text)
        return
    if tag == "Id":
        assert children in (["IBAN"], ["Othr"])
    else:
        places = [name for name, _ in SHAPE[tag]]
        assert [places.index(child) for child in children] == sorted(places.index(child) for child in children), tag
        assert {name for name, required in SHAPE[tag] if required} <= set(children), tag
        repeated = {child for child in children if children.count(child) > 1}
        assert repeated <= {"CdtTrfTxInf", "PmtInf"}, tag
    for child in element:
        check_shape(child)


@pytest.mark.parametrize(
    ("debtor", "agent"),
    [
        (BankAccount("Platform", iban(9)), "{*}Othr/{*}Id"),
        (BankAccount("Platform", iban(9), None, "DEUTDEFF500"), "{*}BICFI"),
        (BankAccount("Platform", None, "123456", "102100099996"), "{*}ClrSysMmbId/{*}MmbId"),
    ],
)
def test_a_pain_001_message_has_the_shape_of_its_schema(debtor: BankAccount, agent: str) -> None:
    file = msgspec.structs.replace(FILE, format="pain.001")
    lines = [*LINES, PayoutLine(C, "m" * 64, "o" * 64, 0 + 1, BankAccount("x" * 70, iban(3), None, "DEUTDEFF"))]
    content = write_pain001(file, lines, debtor, date(2026, 3, 2))
    root = ET.fromstring(content)
    check_shape(root)
    texts = {tag: [e.text for e in root.iter(f"{{{NAMESPACE}}}{tag}")] for tag in ("EndToEndId", "InstdAmt", "NbOfTxs")}
    assert texts["EndToEndId"] == [A.hex, B.hex, C.hex]
    assert texts["InstdAmt"] == ["123.00", "0.45", "0.01"]
    assert {e.get("Ccy") for e in root.iter(f"{{{NAMESPACE}}}InstdAmt")} == {"CNY"}
    assert root.find(".//{*}MsgId").text == file.message_id  # type: ignore[union-attr]
    assert root.find(".//{*}CreDtTm").text == "2026-03-01T12:30:15Z"  # type: ignore[union-attr]
    assert root.find(f".//{{*}}DbtrAgt/{{*}}FinInstnId/{agent}") is not None
    assert "Müller & Söhne <x>" in [e.text for e in root.iter(f"{{{NAMESPACE}}}Nm")]
    assert write_pain001(file, lines, debtor, date(2026, 3, 2)) == content


def test_the_check_of_the_shape_notices_a_wrong_sequence_and_a_missing_element() -> None:
    content = write_pain001(FILE, LINES, BankAccount("P", iban()), date(2026, 3, 2)).decode()
    for spoiled in (
        content.replace("<PmtMtd>TRF</PmtMtd>", ""),
        content.replace(f"<MsgId>{FILE.message_id}</MsgId>", "").replace("</CreDtTm>", "</CreDtTm><MsgId>x</MsgId>"),
        content.replace(FILE.message_id, "x" * 36),
    ):
        assert spoiled != content
        with pytest.raises(AssertionError):
            check_shape(ET.fromstring(spoiled))


# --- Results in CSV -------------------------------------------------------------------------------------------------


def test_results_in_csv_are_read() -> None:
    content = (
        "\ufeffref,state,amount,currency,channel_ref,reason\r\n"
        f'{A.hex},paid,123.00,CNY,B-1,\r\n\r\n"{B}",bounced, 0.45 ,,,"closed, ""again"""\r\n'
    )
    assert read_csv(content, "CNY") == [
        Result(1, A.hex, A, "paid", 12_300, "CNY", "B-1", None),
        Result(2, str(B), B, "bounced", 45, "CNY", None, 'closed, "again"'),
    ]


def test_a_result_in_another_currency_has_no_amount() -> None:
    assert read_csv("ref,state,amount,currency\nx,paid,1.00,USD\n", "CNY") == [
        Result(1, "x", None, "paid", None, "USD", None, None)
    ]


HEAD = "ref,state,amount\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        HEAD,
        "ref,state\nx,paid\n",
        "ref,state,amount,more\nx,paid,1,y\n",
        "ref,state,amount,ref\nx,paid,1,y\n",
        HEAD + "x,paid\n",
        HEAD + "x,paid,1,2\n",
        HEAD + "x,sent,1\n",
        HEAD + "x,paid,=1+1\n",
        HEAD + "x,paid,1.001\n",
        HEAD + ",paid,1\n",
        HEAD + f"{'x' * 129},paid,1\n",
        HEAD + 'x,paid,"1\n',
        HEAD + 'x,paid,"1"2\n',
        HEAD + f"x,paid,{'1' * 200_000}\n",
        HEAD + "x,paid,1\n" * (LINES_MAX + 1),
    ],
    ids=range(17),
)
def test_a_csv_that_cannot_be_read_is_refused_as_a_whole(content: str) -> None:
    with pytest.raises(BadResults):
        read_csv(content, "CNY")


# --- Results in pain.002 --------------------------------------------------------------------------------------------

HEADER = Header(FILE.message_id, "CNY", 2, 12_345, [(A.hex, 12_300), (B.hex, 45)])


def transaction(ref: str, code: str, amount: str = "", **more: str) -> str:
    instructed = f"<OrgnlTxRef><Amt><InstdAmt Ccy='CNY'>{amount}</InstdAmt></Amt></OrgnlTxRef>" if amount else ""
    reason = f"<StsRsnInf><Rsn><Cd>{more['cd']}</Cd></Rsn></StsRsnInf>" if "cd" in more else ""
    account = f"<AcctSvcrRef>{more['bank']}</AcctSvcrRef>" if "bank" in more else ""
    return f"<TxInfAndSts><OrgnlEndToEndId>{ref}</OrgnlEndToEndId><TxSts>{code}</TxSts>{reason}{account}{instructed}</TxInfAndSts>"


def pain_002(
    *transactions: str, group: str = "", of: str = FILE.message_id, before: str = "", version: str = "10"
) -> str:
    block = f"<OrgnlPmtInfAndSts><OrgnlPmtInfId>x</OrgnlPmtInfId>{''.join(transactions)}</OrgnlPmtInfAndSts>"
    return (
        f"<?xml version='1.0' encoding='UTF-8'?>{before}<Document xmlns='urn:iso:std:iso:20022:tech:xsd:pain.002.001.{version}'>"
        f"<CstmrPmtStsRpt><GrpHdr><MsgId>B</MsgId></GrpHdr><OrgnlGrpInfAndSts><OrgnlMsgId>{of}</OrgnlMsgId>{group}"
        f"</OrgnlGrpInfAndSts>{block if transactions else ''}</CstmrPmtStsRpt></Document>"
    )


@pytest.mark.parametrize("version", ["03", "10", "14"])
def test_results_in_pain_002_are_read(version: str) -> None:
    content = pain_002(
        *(transaction(A.hex, "ACSC", "123.00", bank="B-1"), transaction(B.hex, "RJCT", "0.45", cd="AC04")),
        *(transaction(C.hex, "ACSP"), transaction("unknown", "ACCC")),
        version=version,
    )
    assert read_pain002(content, HEADER) == [
        Result(1, A.hex, A, "paid", 12_300, "CNY", "B-1", None),
        Result(2, B.hex, B, "bounced", 45, "CNY", None, "AC04"),
        Result(3, C.hex, C, "pending", None, "CNY", None, None),
        Result(4, "unknown", None, "paid", None, "CNY", None, None),
    ]


def test_a_currency_and_an_amount_belong_to_their_transaction() -> None:
    other = transaction(A.hex, "ACSC", "123.00").replace("CNY", "USD")
    found = read_pain002(pain_002(other, transaction(B.hex, "ACSC", "0.45")), HEADER)
    assert [(one.amount, one.currency) for one in found] == [(None, "USD"), (45, "CNY")]


@pytest.mark.parametrize(
    ("group", "states"),
    [
        ("<GrpSts>RJCT</GrpSts>", ["bounced", "bounced"]),
        (
            "<OrgnlNbOfTxs>2</OrgnlNbOfTxs><OrgnlCtrlSum>123.45</OrgnlCtrlSum><GrpSts>RJCT</GrpSts>",
            ["bounced", "bounced"],
        ),
        ("<GrpSts>ACTC</GrpSts>", ["pending", "pending"]),
    ],
)
def test_a_status_of_the_whole_file_counts_for_each_payout(group: str, states: list[str]) -> None:
    found = read_pain002(pain_002(group=group), HEADER)
    assert [(one.order, one.state, one.amount) for one in found] == [(A, states[0], 12_300), (B, states[1], 45)]


@pytest.mark.parametrize(
    "group",
    [
        "",
        "<GrpSts>ACSC</GrpSts>",
        "<GrpSts>LOST</GrpSts>",
        "<OrgnlNbOfTxs>3</OrgnlNbOfTxs><GrpSts>RJCT</GrpSts>",
        "<OrgnlCtrlSum>123.44</OrgnlCtrlSum><GrpSts>RJCT</GrpSts>",
        "<OrgnlCtrlSum>x</OrgnlCtrlSum><GrpSts>RJCT</GrpSts>",
    ],
)
def test_a_status_of_the_whole_file_is_not_guessed(group: str) -> None:
    with pytest.raises(BadResults):
        read_pain002(pain_002(group=group), HEADER)


def test_results_of_another_message_are_refused() -> None:
    with pytest.raises(OtherFile):
        read_pain002(pain_002(transaction(A.hex, "ACSC"), of="other"), HEADER)


BOMB = "<!DOCTYPE lolz [<!ENTITY a 'lol'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;'>]>"
GOOD = transaction(A.hex, "ACSC", "123.00")
ATTACKS = {
    "entities": pain_002(GOOD.replace("ACSC", "&c;"), before=BOMB),
    "a document type without entities": pain_002(GOOD, before="<!DOCTYPE Document>"),
    "a file of this machine": pain_002(
        GOOD.replace(A.hex, "&x;"), before="<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
    ),
    "an external document type": pain_002(GOOD, before="<!DOCTYPE d SYSTEM 'http://127.0.0.1:1/x.dtd'>"),
    "a parameter entity": pain_002(GOOD, before="<!DOCTYPE d [<!ENTITY % p SYSTEM 'file:///etc/passwd'> %p;]>"),
    "an entity that is not declared": pain_002(GOOD.replace(A.hex, "&x;")),
    "deep elements": pain_002(GOOD.replace(A.hex, "<a>" * DEPTH_MAX + "</a>" * DEPTH_MAX)),
    "a long text": pain_002(GOOD.replace(A.hex, "x" * (TEXT_MAX + 1))),
    "a long reference": pain_002(GOOD.replace(A.hex, "x" * 129)),
    "too many transactions": pain_002(GOOD * (LINES_MAX + 1)),
    "no XML": "ref,state,amount\n",
    "not complete": pain_002(GOOD)[:-5],
    "two documents": pain_002(GOOD) * 2,
    "another message": pain_002(GOOD).replace("CstmrPmtStsRpt", "CstmrCdtTrfInitn"),
    "no reference": pain_002(GOOD.replace(A.hex, " ")),
    "no status": pain_002(GOOD.replace("<TxSts>ACSC</TxSts>", "")),
    "an unknown status": pain_002(GOOD.replace("ACSC", "DONE")),
    "no amount": pain_002(GOOD.replace("123.00", "12 3")),
    "a surrogate": pain_002(GOOD) + "\ud800",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_message_that_attacks_or_cannot_be_read_is_refused(name: str) -> None:
    with pytest.raises(BadResults):
        read_pain002(ATTACKS[name], HEADER)


def test_an_encoding_that_the_message_names_has_no_meaning() -> None:
    content = pain_002(transaction(A.hex, "RJCT", cd="Größe")).replace("UTF-8", "ISO-8859-1")
    assert read_pain002(content, HEADER)[0].reason == "Größe"


# --- Decisions ------------------------------------------------------------------------------------------------------


def said(ref: UUID | str, state: str, amount: int | None = 100, currency: str | None = "CNY") -> Result:
    order = ref if isinstance(ref, UUID) else None
    return Result(1, str(ref), order, state, amount, currency)  # type: ignore[arg-type]


PAYOUTS = {
    A: Exported(A, 100, "CNY"),
    B: Exported(B, 100, "CNY", reported="paid", ending="paid"),
    C: Exported(C, 100, "CNY", ending="bounced"),
}
DECISIONS: list[tuple[str, list[Result], list[str], list[tuple[Any, str, str]]]] = [
    # claim, results, outcomes, findings (order, recorded state, report)
    ("paid", [said(A, "paid")], ["recorded"], []),
    ("bounced", [said(A, "bounced")], ["recorded"], []),
    ("without an amount", [said(A, "paid", None, None)], ["recorded"], []),
    ("pending", [said(A, "pending", 7)], ["pending"], []),
    ("pending, then paid", [said(A, "pending"), said(A, "paid")], ["pending", "recorded"], []),
    ("another amount", [said(A, "paid", 99)], ["amount"], [(A, "sent", "amount")]),
    ("another currency", [said(A, "paid", None, "USD")], ["amount"], [(A, "sent", "amount")]),
    ("an unknown reference", [said("x", "paid")], ["unknown"], [(unknown_id("c", "x"), "none", "unknown")]),
    (
        "an unknown order",
        [said(UUID(int=9), "paid")],
        ["unknown"],
        [(unknown_id("c", str(UUID(int=9))), "none", "unknown")],
    ),
    ("unknown and pending", [said("x", "pending")], ["unknown"], [(unknown_id("c", "x"), "none", "unknown")]),
    ("twice in one import", [said(A, "paid")] * 2, ["recorded", "repeated"], [(A, "sent", "repeated")]),
    ("in an earlier import", [said(B, "paid")], ["repeated"], [(B, "paid", "repeated")]),
    (
        "both ends in one import",
        [said(A, "paid"), said(A, "bounced")],
        ["contradictory", "contradictory"],
        [(A, "sent", "paid"), (A, "sent", "bounced")],
    ),
    (
        "two amounts in one import",
        [said(A, "paid"), said(A, "paid", 99)],
        ["contradictory", "amount"],
        [(A, "sent", "paid"), (A, "sent", "amount")],
    ),
    ("the other end before", [said(B, "bounced")], ["contradictory"], [(B, "paid", "bounced")]),
    ("another end of a front end", [said(C, "paid")], ["recorded"], [(C, "bounced", "paid")]),
    ("the same end of a front end", [said(C, "bounced")], ["recorded"], []),
]


@pytest.mark.parametrize(("claim", "results", "outcomes", "findings"), DECISIONS, ids=[row[0] for row in DECISIONS])
def test_a_result_is_recorded_only_if_nothing_contradicts_it(
    claim: str, results: list[Result], outcomes: list[str], findings: list[tuple[Any, str, str]]
) -> None:
    decided = decide("c", results, PAYOUTS)
    assert [report.outcome for report in decided.reports] == outcomes
    assert [(one.order, one.stands, one.says) for one in decided.findings] == findings
    assert len(decided.recorded) == outcomes.count("recorded")
