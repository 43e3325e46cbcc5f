"""OpenAPI documents of the HTTP services: the parts that both share, and the page that shows a document."""
