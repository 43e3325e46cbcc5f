"""The fund domain: merchants, orders, fees, flows, channels. Money moves only through the account service."""
