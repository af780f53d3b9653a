"""The demonstration of caches that are never stale for good: readers on a hot set, failures, and what readers saw."""
