"""Cross-region replication and cache-sync daemon for Amazon DynamoDB."""

__version__ = "0.1.0"
