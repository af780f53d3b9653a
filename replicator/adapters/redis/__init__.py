"""Redis and Valkey caches."""
