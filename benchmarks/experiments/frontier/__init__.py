"""Open keys per query against the rise in held-out loss, method by method."""
