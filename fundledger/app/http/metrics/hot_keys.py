"""Hot-key metrics of HTTP workers: types of the answer to `GET /debug/hotkeys`, which the supervisor builds."""

from typing import Annotated

import msgspec

from fundledger.app.http.admission.hot_keys import SHOWN
from fundledger.json_values import about


class HotKey(msgspec.Struct):
    id: Annotated[str, about("the caller, merchant or account, as requests name it")]
    rate: Annotated[float, about("requests per second", minimum=0)]
    share: Annotated[float, about("share of all requests with a key of this kind", minimum=0, maximum=1)]


_Top = Annotated[list[HotKey], msgspec.Meta(max_length=SHOWN)]


class HotKeyKinds(msgspec.Struct):
    """The hot keys of each kind, the most frequent first."""

    caller: _Top
    merchant: _Top
    account: _Top


class HotKeys(msgspec.Struct):
    kinds: HotKeyKinds
    window_s: Annotated[float, about("period over which rates are measured, in seconds")]
