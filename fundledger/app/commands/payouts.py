"""CLI commands `fundledger payouts export`, `list`, `download` and `import`: requests to the running fund service."""

import argparse
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from fundledger.app.host.preflight import CannotServe
from fundledger.client import Fault, FundService, PayoutFile, Refused, Unauthorized
from fundledger.fund.model.payout_file import amount_text
from fundledger.settings import Settings, url_of

FINDINGS: Final = 1
_FINDING: Final = ("unknown", "amount", "repeated", "contradictory")


async def run_export(settings: Settings, options: argparse.Namespace) -> int:
    """Make a payout file, and save its content. Return 1 if the service refuses. Raises CannotServe."""
    debtor = {
        name: value
        for name in ("holder", "iban", "account", "bank_code")
        if (value := getattr(options, f"debtor_{name}")) is not None
    }
    async with _fund(settings, options) as fund:
        file = await fund.export_payouts(
            *(options.channel, options.currency, options.format),
            limit=options.limit,
            file_no=options.file_no,
            debtor=debtor or None,
        )
        print(_line(file))
        if file.unnamed:
            print(f"{file.unnamed} due withdrawals have no payee, and are in no file")
        return await _save(fund, file, options.output)


async def run_list(settings: Settings, options: argparse.Namespace) -> int:
    """Print the payout files of a channel. Raises CannotServe."""
    async with _fund(settings, options) as fund:
        files = [file async for file in fund.payout_files(options.channel)]
    for file in files:
        print(_line(file))
    if not files:
        print("no payout files")
    return 0


async def run_download(settings: Settings, options: argparse.Namespace) -> int:
    """Save the content of a payout file. Return 1 if there is no such file. Raises CannotServe."""
    async with _fund(settings, options) as fund:
        file = await fund.payout_file(options.channel, options.file_no)
        if file is None:
            print(f"refused: there is no payout file {options.file_no} of channel {options.channel}")
            return FINDINGS
        return await _save(fund, file, options.output)


async def run_import(settings: Settings, options: argparse.Namespace) -> int:
    """Import the results of a payout file, and print their outcomes. Return 1 if there are findings. Raises
    CannotServe.
    """
    try:
        content = options.file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise CannotServe(f"cannot read {options.file} as UTF-8: {error}") from None
    async with _fund(settings, options) as fund:
        report = await fund.import_payout_results(options.channel, options.file_no, options.format, content)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in report.counts.items() if count)
    print(f"{counts}{', as before' if report.replay else ''}")
    found = [line for line in report.lines if line.outcome in _FINDING]
    for line in found:
        print(f"line {line.line}: {line.outcome}: {line.ref} {line.state}")
    return FINDINGS if found else 0


Run = Callable[[Settings, argparse.Namespace], Coroutine[Any, Any, int]]


def _refusing(run: Run) -> Run:
    """Return a command that prints a refusal and returns 1, and raises CannotServe for a fault."""

    async def refusing(settings: Settings, options: argparse.Namespace) -> int:
        try:
            return await run(settings, options)
        except Refused as no:
            print(f"refused: {no}")
            return FINDINGS
        except (Fault, Unauthorized) as fault:
            raise CannotServe(f"the fund service does not answer as expected: {fault}") from None

    return refusing


COMMANDS: Final[dict[str, Run]] = {
    "export": _refusing(run_export),
    "list": _refusing(run_list),
    "download": _refusing(run_download),
    "import": _refusing(run_import),
}


def _fund(settings: Settings, options: argparse.Namespace) -> FundService:
    path = options.token_file or settings.data_dir / "dev-token"
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise CannotServe(f"cannot read the token: {error}") from None
    return FundService(url_of(settings.host, settings.fund_port), token, timeout_s=120.0)


async def _save(fund: FundService, file: PayoutFile, output: Path | None) -> int:
    """Write the content of a file, which has account numbers, to a new file that only its owner can read."""
    path = output or Path(f"{file.channel}-{file.file_no}.{'csv' if file.format == 'csv' else 'xml'}")
    content = await fund.payout_file_content(file.channel, file.file_no)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.read_bytes() != content:
            print(f"refused: {path} exists with other content")
            return FINDINGS
    except OSError as error:
        raise CannotServe(f"cannot write {path}: {error}") from None
    else:
        with os.fdopen(descriptor, "wb") as saved:
            saved.write(content)
    print(f"saved {path}")
    return 0


def _line(file: PayoutFile) -> str:
    total, at = amount_text(file.total, file.currency), file.created_at.isoformat(timespec="seconds")
    made = f"{at} by {file.created_by}  sha256 {file.sha256[:16]}"
    return f"{file.channel} {file.file_no}  {file.format}  {file.lines} payouts  {total} {file.currency}  {made}"
