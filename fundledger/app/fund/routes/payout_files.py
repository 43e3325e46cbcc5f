"""Routes of the fund service for payout files, handled by `handlers/payout_files.py`: path, OpenAPI operation."""

from typing import Annotated, Final

from fundledger.app.fund.answers import payout_files as answers
from fundledger.app.fund.handlers import payout_files
from fundledger.app.fund.handlers.orders import LIMIT_DEFAULT, LIMIT_MAX
from fundledger.app.fund.handlers.payout_files import DIGEST, DISPOSITION, OCTETS
from fundledger.app.fund.routes.orders import page
from fundledger.app.fund.service import FundService
from fundledger.app.http.openapi.types import CURRENCY_UNKNOWN, Answer, no_such, path, shown
from fundledger.app.http.routing import BATCH_BODY_BYTES_MAX, Route
from fundledger.app.http.wire.reply import JSON
from fundledger.fund.model.payout_file import FileNo, PayoutFileRequest, PayoutResultsRequest
from fundledger.fund.model.person import Role
from fundledger.fund.model.refusal import Code
from fundledger.fund.model.requests import ChannelName
from fundledger.json_values import about
from fundledger.ratelimit.classes import ApiClass

_TAG: Final = "Payout files"
_NAME: Final = path(ChannelName, "name of the channel", "icbc", "name")
_NO: Final = path(FileNo, "number of the file", "1", "file_no")
_NO_FILE: Final = no_such("payout file")
_RESULTS: Final = "ref,state,amount\n7e1a4c3e62a63d5394dd28fb4eb9a3ba,paid,50.00\n"
ROUTES: Final[list[Route[FundService]]] = [
    Route(
        "POST",
        "/v1/channels/{name}/payout-files",
        payout_files.post_payout_file,
        ApiClass.ADMIN,
        "create_payout_file",
        _TAG,
        "Export due withdrawals",
        "Makes a payout file of the due withdrawals of a channel with the payout method `file`, oldest first. They "
        "become `sent`. A withdrawal is in one file, permanently. With `file_no`, a repeated request returns the file.",
        {
            201: shown(answers.PayoutFile, "The new file."),
            200: Answer("The file with this number exists.", {JSON: answers.PayoutFile}, {"Idempotent-Replay": True}),
            400: CURRENCY_UNKNOWN,
            422: Answer(
                "No file is made.",
                problems=(
                    *(Code.CHANNEL_NOT_FOUND, Code.CHANNEL_NOT_FILE, Code.CHANNEL_UNDERFUNDED),
                    *(Code.PAYOUT_FILE_NO_WRONG, Code.NOTHING_TO_EXPORT),
                ),
            ),
        },
        (_NAME,),
        (PayoutFileRequest, {"currency": "CNY", "format": "csv", "limit": 1000}),
        role=Role.OPERATOR,
    ),
    Route(
        "GET",
        "/v1/channels/{name}/payout-files",
        payout_files.list_payout_files,
        ApiClass.LIST,
        "list_payout_files",
        _TAG,
        "List payout files",
        "Returns a page of the payout files of a channel, by number.",
        {200: shown(answers.ListedPayoutFiles, "A page of payout files.")},
        (_NAME, *page(LIMIT_DEFAULT, LIMIT_MAX, "payout files")),
    ),
    Route(
        "GET",
        "/v1/channels/{name}/payout-files/{file_no}",
        payout_files.get_payout_file,
        ApiClass.QUERY,
        "get_payout_file",
        _TAG,
        "Read a payout file",
        "Returns the number, the sum and the digest of the file.",
        {200: shown(answers.PayoutFile, "The payout file."), 404: _NO_FILE},
        (_NAME, _NO),
    ),
    Route(
        "GET",
        "/v1/channels/{name}/payout-files/{file_no}/content",
        payout_files.get_content,
        ApiClass.LIST,
        "get_payout_file_content",
        _TAG,
        "Download a payout file",
        "Returns the content of the file, the same bytes each time, with whole account numbers.",
        {
            200: Answer(
                "The content.",
                {OCTETS: Annotated[str, about(format="binary")]},
                {DIGEST: True, DISPOSITION: True},
            ),
            404: _NO_FILE,
        },
        (_NAME, _NO),
    ),
    Route(
        "POST",
        "/v1/channels/{name}/payout-results",
        payout_files.post_results,
        ApiClass.CONFIRM,
        "post_payout_results",
        _TAG,
        "Import the results of a payout file",
        "Each result that names a payout of the file, with its amount, ends the withdrawal. A wrong amount, an unknown "
        "reference, and a repeated or contradictory result are findings, and change nothing. The content is the "
        "idempotency key: a replay returns 200 with the same report.",
        {
            201: shown(answers.PayoutResults, "The outcome of each line."),
            200: Answer(
                "Replay of an earlier import: the same report.",
                {JSON: answers.PayoutResults},
                {"Idempotent-Replay": True},
            ),
            404: _NO_FILE,
            422: Answer("Nothing is imported.", problems=(Code.PAYOUT_RESULTS_OTHER,)),
        },
        (_NAME,),
        (PayoutResultsRequest, {"file_no": 1, "format": "csv", "content": _RESULTS}),
        body_bytes_max=BATCH_BODY_BYTES_MAX,
        role=Role.OPERATOR,
    ),
]
