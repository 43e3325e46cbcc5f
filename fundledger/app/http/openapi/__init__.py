"""OpenAPI documents of the HTTP services: the code that both services share, and the HTML page of a document."""
