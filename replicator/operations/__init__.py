"""What can be done to a running group, as functions that return values."""
