"""Entry point of `python -m fundledger`: runs the command line of the package."""

from fundledger.app.commands.cli import main

main()
