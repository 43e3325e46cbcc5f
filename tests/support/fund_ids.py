"""The keys of the fund service in tests, and the ids derived from them."""

from typing import Final

from fundledger.fund.model.ids import Ids, ids_key
from fundledger.fund.store.macs import OrderMacs
from fundledger.security.keys import KeyFault
from fundledger.security.mac import MacKey


class TestKeys:
    """A key ring with one key, the same in each test."""

    __test__ = False
    current: Final = MacKey(1, bytes(range(100, 132)))

    def by_version(self, version: int) -> MacKey:
        if version != 1:
            raise KeyFault(f"no key {version}")
        return self.current


KEYS: Final = TestKeys()
MACS: Final = OrderMacs(KEYS)
IDS: Final = Ids(ids_key(KEYS))
order_id = IDS.order
voucher_id = IDS.voucher
