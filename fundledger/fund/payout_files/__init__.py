"""Payout files of the fund service: withdrawals are exported for a bank in a file, and its results are imported."""
