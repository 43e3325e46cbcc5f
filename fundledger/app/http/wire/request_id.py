"""HTTP wire level: the request id, sent by the caller or generated. Answers, log lines and problems contain it."""

import itertools
import re
import secrets
from typing import Final

from multidict import MultiMapping, istr

from fundledger.app.http.problems import PROBLEM_TYPE, malformed
from fundledger.app.http.wire.reply import Reply

HEADER: Final = "Request-Id"
_HEADER: Final = istr(HEADER)
DOCUMENTATION: Final = "/docs#problem-"
_is_id = re.compile(r"[A-Za-z0-9_.-]{1,64}\Z").match
_process: Final = secrets.token_hex(6)
_numbers = itertools.count()
_TYPE: Final = b'{"type":"'


def new_request_id() -> str:
    """Return an id that no other request of any process has."""
    return f"{_process}-{next(_numbers)}"


def request_id_of(headers: MultiMapping[str]) -> str:
    """Return the id that the caller sent, or a new id. Raises BadRequest (400) for an id of a wrong form."""
    sent = headers.get(_HEADER)
    if sent is None:
        return new_request_id()
    if _is_id(sent) is None:
        raise malformed(f"{HEADER} must have 1 to 64 characters of [A-Za-z0-9_.-]", field=HEADER)
    return sent


def stamped(reply: Reply, request_id: str) -> Reply:
    """Return the reply. If it is a problem, add the members `request_id` and `documentation`.

    `documentation` is the place in `/docs` that explains the problem type. Stored problems and problems in lists get
    neither member, because such a problem belongs to more than one request.
    """
    if reply.content_type != PROBLEM_TYPE or not reply.body.startswith(_TYPE):
        return reply
    type_ = reply.body[len(_TYPE) : reply.body.index(b'"', len(_TYPE))]
    name = re.split("[:#]", type_.decode())[-1]
    more = f',"request_id":"{request_id}","documentation":"{DOCUMENTATION}{name}"}}'
    return Reply(reply.status, reply.body[:-1] + more.encode(), reply.content_type, reply.headers)
