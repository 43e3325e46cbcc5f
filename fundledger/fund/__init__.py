"""Domain of the fund service: merchants, orders, fees, flows, channels. Money moves only through the
account service.
"""
