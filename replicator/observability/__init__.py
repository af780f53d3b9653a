"""Sight: logs, metrics, the status board, the admin server, systemd."""
