"""Model of the fund service: the type of the request body of each kind of order."""

from collections.abc import Iterator
from typing import Final

from fundledger.fund.model import merchant_requests, own_requests, requests, split_requests
from fundledger.fund.model.order import Kind
from fundledger.fund.model.requests import Request

MODULES: Final = frozenset(module.__name__ for module in (requests, own_requests, merchant_requests, split_requests))
"""The modules with the request bodies of orders."""


def _types(of: type[Request]) -> Iterator[type[Request]]:
    """Yield the subclasses that are the body of a kind."""
    for type_ in of.__subclasses__():
        if hasattr(type_, "kind") and type_.__module__ in MODULES:
            yield type_
        yield from _types(type_)


REQUESTS: Final[dict[Kind, type[Request]]] = {type_.kind: type_ for type_ in _types(Request)}
