"""One shard: read, decide, apply, checkpoint."""
