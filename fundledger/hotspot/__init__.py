"""Hot accounts: detect which accounts are hot, and post to them fast."""
