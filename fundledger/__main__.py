"""Entry point of `python -m fundledger`: the command line."""

from fundledger.app.commands.cli import main

main()
