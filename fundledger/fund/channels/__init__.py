"""Where money leaves and comes in: the interface of a channel, one over HTTP, a stand-in for a bank, and payouts."""
