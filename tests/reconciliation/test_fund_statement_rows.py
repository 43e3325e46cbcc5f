"""SQL files that prove the fund service, on right rows and on wrong ones: see `test_fund_statement_rows.txt`."""

from pathlib import Path

import pytest

from fundledger.database.statements import load
from fundledger.fund.store.queries import ORDER_COLUMNS
from tests.support.database import Databases
from tests.support.row_cases import Block, read_cases
from tests.support.statement_rows import outcome

STATEMENTS = load("fundledger.reconciliation.fund", order=ORDER_COLUMNS)
DEFAULTS, BLOCKS = read_cases(Path(__file__).with_suffix(".txt"))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.statement)
async def test_a_statement_reads_and_changes_these_rows_only(postgres: Databases, block: Block) -> None:
    assert await outcome(postgres, None, STATEMENTS, DEFAULTS, block) == [call.expected for call in block.calls]
