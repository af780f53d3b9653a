"""Logs, metrics, the status board and systemd."""
