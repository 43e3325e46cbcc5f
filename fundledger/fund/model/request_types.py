"""Model of the fund service: the type of the request body of each kind of order."""

from typing import Final

from fundledger.fund.model import merchant_requests, own_requests, requests
from fundledger.fund.model.order import Kind
from fundledger.fund.model.requests import Request

MODULES: Final = frozenset(module.__name__ for module in (requests, own_requests, merchant_requests))
"""The modules with the request bodies of orders."""
REQUESTS: Final[dict[Kind, type[Request]]] = {
    type_.kind: type_ for type_ in Request.__subclasses__() if type_.__module__ in MODULES
}
