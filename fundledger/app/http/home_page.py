"""HTTP layer that both services share: handler of `GET /`, with links to the documentation as HTML or as JSON."""

from collections.abc import Awaitable, Callable
from html import escape
from typing import Final

import msgspec

from fundledger.app.http.openapi.docs_page import POLICY
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import HTML, Reply, encode
from fundledger.app.http.worker import Served

LINKS: Final = {
    "/docs": "requests, answers and problem types, with examples",
    "/openapi.json": "the same for programs, as OpenAPI 3.1",
    "/metrics": "metrics for Prometheus",
    "/readyz": "whether the service accepts requests",
}


class Home(msgspec.Struct):
    service: str
    links: list[str]


def home(title: str) -> Callable[[Served, Call], Awaitable[Reply]]:
    """Return the handler of `GET /` of the service with this title."""
    rows = [f"<li><a href={path}>{path}</a>: {escape(about)}</li>" for path, about in LINKS.items()]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<style>:root{color-scheme:light dark}body{font:16px/1.6 system-ui,sans-serif;margin:2rem}</style>"
        f"<title>{escape(title)}</title></head><body><h1>{escape(title)}</h1>"
        f"<p>An HTTP service for programs.</p><ul>{''.join(rows)}</ul></body></html>"
    ).encode()
    links = encode(Home(title, list(LINKS)))

    async def get(service: Served, call: Call) -> Reply:
        """Return a page if the caller accepts HTML, else JSON."""
        del service
        if "text/html" in call.headers.get("Accept", ""):
            return Reply(200, page, HTML, {"Content-Security-Policy": POLICY})
        return Reply(200, links)

    return get
