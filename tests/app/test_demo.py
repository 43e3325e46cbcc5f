"""`fundledger demo --keep`: what it prints, that its columns add up, and that Ctrl-C stops and deletes everything."""

import asyncio
import os
import re
import signal
import subprocess
from decimal import Decimal
from pathlib import Path

from tests.support.client import Client
from tests.support.running import COMMAND, clean_environment

AMOUNT = re.compile(r"-?[\d,]+\.\d\d")
SHOWN = (
    r"same order, no money moved \(replay: True\)",
    r"its receipt is sent as sale-again of tea-house: refused, receipt-already-booked",
    r"its receipt is sent as sale-of-another of flowers: refused, receipt-already-booked",
    r"a refund of 0.01 on a fully refunded payment: refused, refund-exceeds-payment",
    r"the bank sends them to the payers: paid",
    r"a refund of [\d,.]+: bounced \(.*\); another one: paid",
    r"tea-house withdraws 500.00: paid",
    r"the payee's bank returns it later, reference \S+: 500.00 to tea-house, the fee is kept",
    r"book-shop withdraws 100.00: bounced",
    r"returns has 0.05 left and owes [\d,.]+",
    r"repays [\d,.]+ of its debt",
    r"returns withdraws the whole payment: refused, insufficient-funds",
    r"a payer disputes a payment of 120.00: cinema has [\d,.]+ instead of ([\d,.]+); the dispute is won, and it has \1 again",
    r"one receipt of 100.00 for two merchants: flowers 69.58, noodles 29.10, fees 1.32",
    r"half of it goes back to the payer: paid; flowers -34.79, noodles -14.55",
    r"cannot approve it: approval-needs-another",
    r"late-settler is settled: [\d,.]+ pending",
    r"approves \d+ bank differences against suspense: posted",
    r"the books are right",
)


def columns_of(table: str) -> list[list[Decimal]]:
    """Return the amounts of the lines of a table, by column. A trial balance has one amount in each line."""
    return [[Decimal(found.replace(",", "")) for found in AMOUNT.findall(line)] for line in table.splitlines()]


def add_up(table: str) -> bool:
    """Return whether each column of balances adds up to its last line."""
    *lines, total = [line for line in columns_of(table) if line]
    return [sum(column) for column in zip(*lines, strict=True)] == total


async def test_the_demo_shows_its_day_and_keeps_its_services_until_it_is_stopped(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(str(COMMAND), "demo", "--seconds", "1", "--rate", "20", "--keep"),
        env=clean_environment({}),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(120):
            printed = (await process.stdout.readuntil(b"deletes their data\n")).decode()
        folder = re.search(r"tokens +(\S+)/dev-token,", printed)
        fund = re.search(r"fund service +(http://\S+)", printed)
        assert folder and fund, printed
        async with Client(fund[1], Path(folder[1], "dev-token").read_text().strip()) as client:
            assert (await client.get("/v1/merchants/tea-house")).status == 200
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(60):
            rest = await process.stdout.read()
            assert await process.wait() == 0, printed + rest.decode()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert not Path(folder[1]).exists()
    for shown in SHOWN:
        assert re.search(shown, printed), (shown, printed)
    morning, evening = (printed.split(f"{when}, in CNY:\n")[1].split("\n\n")[0] for when in ("morning", "evening"))
    assert add_up(morning)
    assert add_up(evening)
    trial = printed.split("Trial balance, in CNY:\n")[1].split("\n\n")[0]
    *lines, (debit, credit) = [line for line in columns_of(trial) if line]
    assert debit == credit
    assert debit > 0
    assert sum(abs(amount) for line in lines for amount in line) == debit + credit
