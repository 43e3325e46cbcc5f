"""The OpenAPI document of the account service: schemas, operations, examples."""
