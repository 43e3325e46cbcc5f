"""Create a frozen data set: `python -m tests.frozen.freeze NAME`, once for each released layout, never again.

It runs `session.py` against a service of this version on a new data directory and writes `tests/frozen/NAME/`: a dump
of both databases, their keys and tokens, the requests with their responses, the reads with their responses, and the
requests that were unfinished when the dump was taken. An existing data set is refused: the past is not regenerated.
"""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg

from fundledger.app.host.postgres.server import _binaries
from tests.frozen.session import Recorder, leave_unfinished, play
from tests.support.running import RunningService
from tests.support.waiting import eventually

HERE = Path(__file__).parent
SECRETS = ("keys/mac-1.key", "dev-token", "fund-token")
SUMS = "SHA256SUMS"
DUMPS = {"account": "account.dump", "fund": "fund.dump"}


async def main(name: str) -> None:
    folder = HERE / name
    folder.mkdir()
    env = {"FUNDLEDGER_BUFFERED_LAG_MAX_S": "3600", "FUNDLEDGER_SHARDS": "2"}
    async with RunningService(workers=2, fund=True, env=env) as service:
        recorder = Recorder(service)
        try:
            await play(recorder)
            (folder / "requests.json").write_text(lines(await answered_again(recorder)))
            (folder / "reads.json").write_text(lines(await read(recorder)))
            (folder / "unfinished.json").write_text(lines(await leave_unfinished(recorder)))
        finally:
            await recorder.close()
        for which, dsn in (("account", service.dsn), ("fund", service.fund_dsn)):
            dump(dsn, folder / DUMPS[which])
        for pid in service.worker_pids():
            os.kill(pid, signal.SIGCONT)
        await eventually(lambda: settled(service), "the books are right when everything has ended", 60)
        for secret in SECRETS:
            (folder / secret).parent.mkdir(exist_ok=True)
            shutil.copy(service.data_dir / secret, folder / secret)
    sums = [f"{digest}  {path}\n" for path, digest in digests(folder).items()]
    (folder / SUMS).write_text("".join(sums))


async def answered_again(recorder: Recorder) -> list[list[Any]]:
    """Replay each recorded request. Return `[service, path, body, status, answer]` for each."""
    requests = list(recorder.requests)
    answers: list[list[Any]] = []
    for where, path, body, _ in requests:
        answer = await recorder.clients[where].post(path, body)
        assert answer.status in (200, 201, 202, 422), (path, answer)
        answers.append([where, path, body, answer.status, answer.json])
    return answers


async def read(recorder: Recorder) -> list[list[Any]]:
    """Read every account, voucher, hold, order and merchant. Return `[service, path, answer]` for each."""
    paths = []
    account = await asyncpg.connect(recorder.service.dsn)
    fund = await asyncpg.connect(recorder.service.fund_dsn)
    try:
        for row in await account.fetch("SELECT id FROM ledger.accounts ORDER BY number"):
            paths += [("account", f"/v1/accounts/{row['id']}")]
            paths += [("account", f"/v1/accounts/{row['id']}/entries?level=entries&limit=500")]
        posted = "SELECT id FROM ledger.vouchers WHERE reference IS NULL OR reference NOT LIKE 'fund:%' ORDER BY id"
        paths += [("account", f"/v1/vouchers/{row['id']}") for row in await account.fetch(posted)]
        paths += [("account", f"/v1/holds/{row['id']}") for row in await account.fetch("SELECT id FROM ledger.holds")]
        paths += [("fund", f"/v1/merchants/{row['id']}") for row in await fund.fetch("SELECT id FROM fund.merchants")]
        for row in await fund.fetch("SELECT kind, id FROM fund.orders ORDER BY seq"):
            plural = row["kind"].replace("_", "-")
            plural = plural[:-1] + "ies" if plural.endswith("y") else plural + "s"
            paths += [("fund", f"/v1/{plural}/{row['id']}"), ("fund", f"/v1/{plural}/{row['id']}/history")]
    finally:
        await account.close()
        await fund.close()
    shown = []
    for where, path in paths:
        answer = await recorder.clients[where].get(path)
        assert answer.status == 200, (path, answer)
        shown.append([where, path, answer.json])
    return shown


async def settled(service: RunningService) -> bool:
    return bool((await service.verify())["ok"])


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a data set, except of the file SHA256SUMS."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def lines(records: list[list[Any]]) -> str:
    """Return JSON with one record in each line, so that a difference is easy to read."""
    return "[\n" + ",\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n]\n"


def dump(dsn: str, path: Path) -> None:
    """Dump the schema and the rows with pg_dump, without the owners of objects, which differ by installation."""
    command = [_binaries() / "pg_dump", "--no-owner", "--no-privileges", f"--file={path}", dsn]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
