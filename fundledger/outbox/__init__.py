"""The transactional outbox: delivers events at least once and in order, by feed, Redis stream and webhooks."""
