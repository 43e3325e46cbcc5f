"""HTTP handlers of the fund service for payout files. `routes/payout_files.py` declares the routes that call them."""

import base64
import hashlib
from typing import Final

from fundledger.app.fund.answers import payout_files as answers
from fundledger.app.fund.answers.problems import gone, refused, unverified_items
from fundledger.app.fund.handlers.channels import channel_name
from fundledger.app.fund.handlers.orders import LIMIT_DEFAULT, LIMIT_MAX, SEQ_MAX
from fundledger.app.fund.service import FundService
from fundledger.app.http.bodies.decoding import decoder, known_currency, long_decoder
from fundledger.app.http.problems import malformed, not_found
from fundledger.app.http.query import number
from fundledger.app.http.routing import BATCH_BODY_BYTES_MAX, Call
from fundledger.app.http.wire.reply import JSON, Reply, encode
from fundledger.fund.model.answer import OrderFault
from fundledger.fund.model.payout_file import PayoutFile, PayoutFileRequest, PayoutResultsRequest
from fundledger.fund.model.refusal import Refusal
from fundledger.fund.payout_files.csv_file import BadResults

OCTETS: Final = "application/octet-stream"
DIGEST: Final = "Content-Digest"
DISPOSITION: Final = "Content-Disposition"
_REPLAY: Final = {"Idempotent-Replay": "true"}
_decode_export = decoder(PayoutFileRequest)
_decode_results = long_decoder(PayoutResultsRequest, BATCH_BODY_BYTES_MAX)


async def post_payout_file(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/channels/{name}/payout-files`: 201 with a new payout file, or 200 if `file_no` exists."""
    name, request = channel_name(call), _decode_export(call.body)
    known_currency(request.currency)
    exported = await service.reading(lambda: service.payout_files.export(name, request, call.module))
    if isinstance(exported, Refusal):
        return refused(exported)
    if isinstance(exported, OrderFault):
        return gone(exported)
    body = encode(answers.payout_file(exported.file, exported.unnamed))
    return Reply(200, body, JSON, _REPLAY) if exported.replay else Reply(201, body)


async def list_payout_files(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/channels/{name}/payout-files`: a page of payout files, by number."""
    name = channel_name(call)
    limit = number(call.query, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
    after = number(call.query, "cursor", 0, 0, SEQ_MAX)
    found, bad, last = await service.reading(lambda: service.payout_files.page(name, after, limit))
    following = str(last) if len(found) + len(bad) == limit else None
    shown = [answers.payout_file(file) for file in found]
    unverified = unverified_items("payout file", bad)
    return Reply(200, encode(answers.ListedPayoutFiles(shown, following, unverified)))


async def get_payout_file(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/channels/{name}/payout-files/{file_no}`: one payout file, without its content."""
    return Reply(200, encode(answers.payout_file(await _found(service, channel_name(call), _file_no(call)))))


async def get_content(service: FundService, call: Call) -> Reply:
    """Handle `GET /v1/channels/{name}/payout-files/{file_no}/content`: the same bytes each time."""
    name, file_no = channel_name(call), _file_no(call)
    found = await service.reading(lambda: service.payout_files.content(name, file_no))
    if found is None:
        raise _no_file(name, file_no)
    file, content = found
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    # RFC 9530 and RFC 6266. The name of a channel needs no escape.
    headers = {DIGEST: f"sha-256=:{digest}:", DISPOSITION: f'attachment; filename="{file.name}"'}
    return Reply(200, content, OCTETS, headers)


async def post_results(service: FundService, call: Call) -> Reply:
    """Handle `POST /v1/channels/{name}/payout-results`: import the results of a payout file. Idempotent by content."""
    name, request = channel_name(call), _decode_results(call.body)
    file = await _found(service, name, request.file_no)
    try:
        imported = await service.reading(lambda: service.payout_results.import_results(file, request, call.module))
    except BadResults as bad:
        raise malformed(str(bad), field="content") from None
    if isinstance(imported, Refusal):
        return refused(imported)
    body = encode(answers.results(file, imported))
    return Reply(200, body, JSON, _REPLAY) if imported.replay else Reply(201, body)


async def _found(service: FundService, name: str, file_no: int) -> PayoutFile:
    file = await service.reading(lambda: service.payout_files.read(name, file_no))
    if file is None:
        raise _no_file(name, file_no)
    return file


def _no_file(name: str, file_no: int) -> Exception:
    return not_found(f"payout file {file_no} of channel {name}")


def _file_no(call: Call) -> int:
    return number(call.parameters, "file_no", 0, 1, (1 << 53) - 1)
