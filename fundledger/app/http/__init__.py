"""HTTP layer of both services: protocol, routing, admission, problems, metrics and OpenAPI of a worker."""
