"""Store of the fund service: access to the rows of its database, such as orders, reservations, merchants, events and
MACs.
"""
