"""What the business means: merchants, orders, fees, flows, channels. Money moves through the account service only."""
