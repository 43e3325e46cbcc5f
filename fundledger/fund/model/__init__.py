"""Model of the fund service: types and rules of orders, requests, fees, flows and accounts. The model is pure: it does
no I/O.
"""
