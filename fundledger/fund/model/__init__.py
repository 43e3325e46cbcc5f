"""Types and rules of fund orders: requests, fees, flows, accounts. Pure."""
