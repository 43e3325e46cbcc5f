"""Which accounts are hot, and how to post to them fast."""
