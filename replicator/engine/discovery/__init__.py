"""Which shards a stream has."""
