"""Handler of `GET /` of an HTTP service: links to its documentation, as HTML or as JSON."""

from html import escape
from typing import Final

import msgspec

from fundledger.app.http.openapi.docs_page import POLICY
from fundledger.app.http.routing import Call
from fundledger.app.http.wire.reply import HTML, Reply
from fundledger.app.http.worker import Served

LINKS: Final = {
    "/docs": "requests, answers and problem types, with examples",
    "/openapi.json": "the same for programs, as OpenAPI 3.1",
    "/metrics": "metrics for Prometheus",
    "/readyz": "whether the service accepts requests",
}


class Home:
    """The handler of `GET /` of one service."""

    def __init__(self, title: str) -> None:
        rows = [f"<li><a href={path}>{path}</a>: {escape(about)}</li>" for path, about in LINKS.items()]
        self._page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            "<style>:root{color-scheme:light dark}body{font:16px/1.6 system-ui,sans-serif;margin:2rem}</style>"
            f"<title>{escape(title)}</title></head><body><h1>{escape(title)}</h1>"
            f"<p>An HTTP service for programs.</p><ul>{''.join(rows)}</ul></body></html>"
        ).encode()
        self._links = msgspec.json.encode({"service": title, "links": list(LINKS)})

    async def get(self, service: Served, call: Call) -> Reply:
        """Return a page if the caller accepts HTML, else JSON."""
        del service
        if "text/html" in call.headers.get("Accept", ""):
            return Reply(200, self._page, HTML, {"Content-Security-Policy": POLICY})
        return Reply(200, self._links)
