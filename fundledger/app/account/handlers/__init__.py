"""HTTP handlers of the account service: accounts, holds, vouchers, and the event feed."""
