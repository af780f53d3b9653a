"""Which shards this worker reads."""
