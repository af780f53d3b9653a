"""One mode each: what a record asks of the world, as a generator of requests."""
