"""Sinks of events: services of AWS, addresses that take signed requests, and streams of Redis."""
