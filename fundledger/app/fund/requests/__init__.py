"""Request bodies of the fund service, the order in the path, and the account to which a request is charged."""
