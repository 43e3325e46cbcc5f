"""Results of payout files in the format pain.002 of ISO 20022, a payment status report, of any version.

The message comes from outside, so it is read by expat without a document type: a message that declares one is refused.
So no entity can be declared, expanded or fetched. Depth, length and number of transactions have bounds.
"""

from typing import Final
from xml.parsers import expat

import msgspec

from fundledger.fund.model.payout_file import LINES_MAX, Result, ResultState, amount_of, amount_text
from fundledger.fund.payout_files.csv_file import REF_MAX, BadResults, order_of, plain

DEPTH_MAX: Final = 30
TEXT_MAX: Final = 4096
REPORT: Final = ("Document", "CstmrPmtStsRpt")
STATES: Final[dict[str, ResultState]] = {
    **dict.fromkeys(("ACSC", "ACCC"), "paid"),
    **dict.fromkeys(("RJCT", "CANC"), "bounced"),
    **dict.fromkeys(
        ("RCVD", "PDNG", "ACTC", "ACCP", "ACSP", "ACWC", "ACWP", "ACFC", "PATC", "BLCK", "PRES"), "pending"
    ),
}
"""The states of a transaction, by the code of the bank. Only the first two rows are final."""


class Header(msgspec.Struct, frozen=True):
    """The payout file to which a message must refer. `total`: the sum of its payouts in minor units."""

    message_id: str
    currency: str
    lines: int
    total: int
    refs: list[tuple[str, int]]
    """Pairs of the reference and the amount of each payout of the file."""


class _Node(msgspec.Struct):
    """An element: its texts by path below the element, and the attribute `Ccy` of an amount."""

    texts: dict[str, str] = {}
    currency: str | None = None


class _Message(msgspec.Struct):
    """The parts of a message that matter: the group, the payment information blocks, and the transactions."""

    original: dict[str, str] = {}
    blocks: list[_Node] = []
    transactions: list[_Node] = []


def read_pain002(content: str, header: Header) -> list[Result]:
    """Return the results in a message. If the bank rejected the whole file, or has not decided on it, there is a result
    for each of its payouts. Raises BadResults.
    """
    message = _parse(content)
    named = message.original.get("OrgnlMsgId")
    if named != header.message_id:
        raise OtherFile(f"the results are of the message {(named or 'without id')[:35]}, not of {header.message_id}")
    if message.transactions:
        return [_result(number, node, header.currency) for number, node in enumerate(message.transactions, 1)]
    return _of_all(message, header)


class OtherFile(BadResults):
    """The results are those of another payout file."""


def _of_all(message: _Message, header: Header) -> list[Result]:
    """Return the results of a message without transactions: the status of the file counts for each payout."""
    group = message.original
    codes = [group.get("GrpSts"), *(block.texts.get("PmtInfSts") for block in message.blocks)]
    known = {code for code in codes if code is not None}
    if len(known) != 1:
        raise BadResults("the message has neither a status of transactions nor one status of the whole file")
    state, reason = _state(known.pop()), group.get("StsRsnInf/Rsn/Cd") or group.get("StsRsnInf/AddtlInf")
    if state == "paid":
        # The end of a payout needs its own amount.
        raise BadResults("the message has a final status of the whole file, and none of its transactions")
    count, total = group.get("OrgnlNbOfTxs"), group.get("OrgnlCtrlSum")
    if count is not None and count != str(header.lines):
        raise BadResults(f"the message rejects {count[:35]} transactions, the file has {header.lines}")
    if total is not None and _amount(total, header.currency) != header.total:
        raise BadResults(f"the message rejects {total[:35]}, the file has {amount_text(header.total, header.currency)}")
    why = plain(reason or "the bank rejected the file")
    return [
        Result(number, ref, order_of(ref), state, amount, header.currency, None, why)
        for number, (ref, amount) in enumerate(header.refs, 1)
    ]


def _result(number: int, node: _Node, currency: str) -> Result:
    texts = node.texts
    ref = texts.get("OrgnlEndToEndId", "")
    if not 0 < len(ref) <= REF_MAX:
        raise BadResults(f"transaction {number} has no OrgnlEndToEndId")
    given = texts.get("OrgnlTxRef/Amt/InstdAmt")
    of = node.currency or currency
    amount = None if given is None or of != currency else _amount(given, currency)
    reason = texts.get("StsRsnInf/AddtlInf") or texts.get("StsRsnInf/Rsn/Cd") or texts.get("StsRsnInf/Rsn/Prtry")
    channel_ref = texts.get("AcctSvcrRef")
    return Result(
        number,
        *(ref, order_of(ref), _state(texts.get("TxSts", "")), amount, of),
        plain(None if channel_ref is None else channel_ref[:REF_MAX]),
        plain(reason),
    )


def _state(code: str) -> ResultState:
    if code not in STATES:
        raise BadResults(f"the status {code[:10]!r} is not known")
    return STATES[code]


def _amount(text: str, currency: str) -> int:
    try:
        return amount_of(text, currency)
    except ValueError as error:
        raise BadResults(str(error)) from None


def _parse(content: str) -> _Message:
    """Return the parts of a message that matter. Raises BadResults."""
    # The text is encoded here, so the encoding that the XML declaration names has no meaning.
    parser = expat.ParserCreate("utf-8", " ")
    reader = _Reader()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(content.encode(), True)
    except expat.ExpatError as error:
        raise BadResults(f"the content is no XML: {error}") from None
    except UnicodeEncodeError:
        raise BadResults("the content is no text") from None
    if not reader.is_report:
        raise BadResults("the content is no pain.002 message")
    return reader.message


def _refuse_doctype(*_: object) -> None:
    raise BadResults("a document type declaration is not accepted")


class _Reader:
    """The handlers of the XML parser."""

    def __init__(self) -> None:
        self.message = _Message({}, [], [])
        self.is_report = False
        self._path: list[str] = []
        self._text: list[str] = []
        self._length = 0
        self._place: tuple[int, _Node] | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(" ")[2]
        self._path.append(tag)
        if len(self._path) > DEPTH_MAX:
            raise BadResults(f"the elements are nested deeper than {DEPTH_MAX}")
        self._text, self._length = [], 0
        path = tuple(self._path)
        if len(path) == 2:
            self.is_report = path == REPORT
        if path == (*REPORT, "OrgnlGrpInfAndSts"):
            self._place = len(path), _Node(self.message.original)
        elif path == (*REPORT, "OrgnlPmtInfAndSts"):
            self.message.blocks.append(_Node({}))
            self._place = len(path), self.message.blocks[-1]
        elif path == (*REPORT, "OrgnlPmtInfAndSts", "TxInfAndSts"):
            if len(self.message.transactions) == LINES_MAX:
                raise BadResults(f"there are more than {LINES_MAX} transactions")
            self.message.transactions.append(_Node({}))
            self._place = len(path), self.message.transactions[-1]
        elif tag == "InstdAmt" and self._place is not None:
            self._place[1].currency = attributes.get("Ccy")

    def text(self, text: str) -> None:
        self._length += len(text)
        if self._length > TEXT_MAX:
            raise BadResults(f"a text is longer than {TEXT_MAX} characters")
        self._text.append(text)

    def end(self, _: str) -> None:
        if self._place is not None:
            depth, node = self._place
            text = "".join(self._text).strip()
            below = "/".join(self._path[depth:])
            if below and text:
                # Of several equal elements, such as reasons, the first one counts.
                node.texts.setdefault(below, text)
            if len(self._path) == depth:
                # After a transaction, further elements of its payment information block may follow.
                in_block = self._path[-1] == "TxInfAndSts"
                self._place = (depth - 1, self.message.blocks[-1]) if in_block else None
        self._path.pop()
        self._text, self._length = [], 0
