"""Copying: start a target that has no progress, find what differs, and repair it; decisions only."""
