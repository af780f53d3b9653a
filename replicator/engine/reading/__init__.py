"""Pages of records from shards, read once for all rules."""
