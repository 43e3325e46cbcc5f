"""The transactional outbox. It delivers events at least once and in order, by a feed, a Redis stream and webhooks."""
