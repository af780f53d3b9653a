"""Logs on the local disk."""
