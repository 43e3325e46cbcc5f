"""What money is and how it moves. Knows no HTTP, no Redis and no heat."""
