"""Python client: division of a large batch into several requests, which are sent one after the other."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from fundledger.client.faults import Fault, OutcomeUnknown

BATCH_MAX: Final = 5000
BODY_BYTES_MAX: Final = 8 << 20
Item = TypeVar("Item")
Result = TypeVar("Result")


async def in_batches(
    items: Sequence[Item],
    encode: Callable[[Sequence[Item]], bytes],
    send: Callable[[Sequence[Item], bytes], Awaitable[list[Result]]],
    *,
    whole: bool = False,
) -> list[Result]:
    """Send items in requests that respect the service's limits. Return the results: `results[i]` answers `items[i]`.

    `whole`: send all items in one request, even if it is too large; the service then refuses the request. Raises what
    `send` raises. If an earlier request was answered, a fault with `undone` is raised as OutcomeUnknown, because some
    items may have had an effect.
    """
    if whole or len(items) <= BATCH_MAX:
        waiting = [items] if items else []
    else:
        waiting = [items[start : start + BATCH_MAX] for start in range(0, len(items), BATCH_MAX)][::-1]
    results: list[Result] = []
    while waiting:
        batch = waiting.pop()
        body = encode(batch)
        if len(body) > BODY_BYTES_MAX and len(batch) > 1 and not whole:
            half = len(batch) // 2
            waiting += [batch[half:], batch[:half]]
            continue
        try:
            results += await send(batch, body)
        except Fault as fault:
            if not results or not fault.undone:
                raise
            detail = f"{fault}; {len(results)} of {len(items)} items were answered before"
            raise OutcomeUnknown(detail, fault.problem, fault.retry_after_s) from fault
    return results
