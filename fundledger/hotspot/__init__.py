"""Hot accounts: detecting which accounts are hot, and posting to them fast."""
