"""The admin endpoint: health, readiness, metrics and status over HTTP."""
