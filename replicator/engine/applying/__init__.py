"""From a page of records to durable effects."""
