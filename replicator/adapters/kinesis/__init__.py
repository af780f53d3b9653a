"""Kinesis Data Streams for DynamoDB as a source of changes."""
