"""Statistics of the fund service: counters of the postings in one process."""

import msgspec


class Counted(msgspec.Struct):
    """Counters since the start of this process. `orders`: the number of orders by "kind state".
    `batches`: posted batches. `in_batches`: the orders in these batches. `calls_away`: calls of the account service
    that got no answer.
    `unmarked`: orders whose outcome could not be recorded.
    """

    orders: dict[str, int] = {}
    batches: int = 0
    in_batches: int = 0
    calls_away: int = 0
    unmarked: int = 0

    def add(self, other: "Counted") -> None:
        for key, count in other.orders.items():
            self.orders[key] = self.orders.get(key, 0) + count
        self.batches += other.batches
        self.in_batches += other.in_batches
        self.calls_away += other.calls_away
        self.unmarked += other.unmarked
