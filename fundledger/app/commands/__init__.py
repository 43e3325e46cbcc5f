"""Subcommands of the `fundledger` command line, one file each."""
