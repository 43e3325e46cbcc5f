"""`python -m fundledger` is the command line."""

from fundledger.app.cli import main

main()
