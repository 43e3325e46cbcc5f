"""Options of the CLI commands `fundledger payouts export`, `list`, `download` and `import`."""

import argparse
import asyncio
from collections.abc import Callable
from pathlib import Path

from fundledger.settings import Settings

SettingsOf = Callable[[argparse.Namespace], Settings]


def add_payouts(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", settings_of: SettingsOf) -> None:
    """Add the command `payouts`. `settings_of` returns the settings for parsed options."""
    help_ = "export payout files and import their results"
    payouts = commands.add_parser(
        "payouts",
        help=help_,
        description="Export the due withdrawals of a channel with the payout method `file`, and import their results. "
        "The fund service has to run.",
    )
    subcommands = payouts.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, help_: str) -> argparse.ArgumentParser:
        added = subcommands.add_parser(name, help=help_, description=help_)
        added.set_defaults(run=lambda options: _run(name, options, settings_of(options)))
        added.add_argument("channel", metavar="CHANNEL")
        added.add_argument("--data", dest="data_dir", metavar="DIR", help="data directory (default ./data)")
        added.add_argument(
            "--token-file",
            type=Path,
            metavar="FILE",
            help="file with a token (default: dev-token of the data directory)",
        )
        return added

    exporting = command("export", "export due withdrawals into a new payout file, and save it")
    exporting.add_argument("--currency", required=True)
    exporting.add_argument("--format", choices=["csv", "pain.001"], default="csv")
    exporting.add_argument("--limit", type=int, help="maximum number of payouts (default 1000, at most 10000)")
    exporting.add_argument("--file-no", type=int, help="the expected number of the file: a repeated command is safe")
    for name in ("holder", "iban", "account", "bank-code"):
        exporting.add_argument(f"--debtor-{name}", help="the account that pays, required for pain.001")
    command("list", "list the payout files of a channel")
    downloading = command("download", "save a payout file again: the same bytes")
    downloading.add_argument("file_no", type=int, metavar="NUMBER")
    importing = command("import", "import the results of a payout file; exit status 1 if there are findings")
    importing.add_argument("file", type=Path, metavar="FILE")
    importing.add_argument("--file-no", type=int, required=True, help="number of the payout file")
    importing.add_argument("--format", choices=["csv", "pain.002"], default="csv")
    for saving in (exporting, downloading):
        saving.add_argument("--output", type=Path, metavar="FILE", help="default: CHANNEL-NUMBER.csv or .xml")


def _run(name: str, options: argparse.Namespace, settings: Settings) -> int:
    from fundledger.app.commands import payouts

    return asyncio.run(payouts.COMMANDS[name](settings, options))
