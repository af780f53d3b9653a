"""Mode versioned: the application's own version decides."""
