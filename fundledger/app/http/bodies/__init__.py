"""HTTP request bodies and values in answers: strict decoding, batches, JSON and CSV values."""
