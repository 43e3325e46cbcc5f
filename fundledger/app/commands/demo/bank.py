"""Demo: client of the simulated bank."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

CONCURRENT: Final = 50


class Bank:
    """Client of the simulated bank. Open it with `async with`. Calls raise what aiohttp raises."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    async def moved(self, movements: Sequence[tuple[str, int]]) -> None:
        """Report the amounts that the bank received (positive) or paid (negative), by reference. The bank knows its
        payouts, refunds and returns already.
        """
        for start in range(0, len(movements), CONCURRENT):
            some = movements[start : start + CONCURRENT]
            await asyncio.gather(
                *(self._post("receipts", {"channel_ref": ref, "amount": amount}) for ref, amount in some)
            )

    async def return_payout(self, ref: str) -> dict[str, Any]:
        """Return a payout that is paid, and return its `amount` and the `channel_ref` of the return."""
        return await self._post(f"payouts/{ref}/return", {})

    async def behave(self, **faults: float) -> None:
        """Configure the faults of the bank. Without arguments it has none."""
        await self._post("behaviour", faults)

    async def statement(self) -> dict[str, Any]:
        """Return the bank statement of the current day."""
        day = datetime.now(UTC).date()
        async with self._http.get(f"{self._url}/statements/{day}") as response:
            response.raise_for_status()
            statement: dict[str, Any] = await response.json()
            return statement

    async def _post(self, path: str, body: object) -> dict[str, Any]:
        async with self._http.post(f"{self._url}/{path}", json=body) as response:
            response.raise_for_status()
            answer: dict[str, Any] = await response.json()
            return answer
