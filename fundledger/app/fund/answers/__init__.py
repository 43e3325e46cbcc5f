"""Answers of the fund service: their types, their conversion from orders and merchants, and problems."""
