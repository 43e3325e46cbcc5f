"""Request bodies of the account service, and the accounts to which a request is charged."""
