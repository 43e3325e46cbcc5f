"""OpenAPI document of the fund service: operations, schemas, pages."""
