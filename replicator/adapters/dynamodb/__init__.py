"""DynamoDB tables and streams."""
