"""Account statements of the ledger, read page by page."""
