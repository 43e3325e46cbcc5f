"""Python client: split large batches into several requests, sent one after the other."""

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
    """Send items in batches within the service's limits and return the results: `results[i]` answers `items[i]`.

    `whole`: send one request of any size; the service refuses it if it is too large. Raises what `send` raises. If an
    earlier batch was answered, a fault with `undone` is raised as OutcomeUnknown.
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
