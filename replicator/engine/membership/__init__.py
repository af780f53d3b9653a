"""Which workers live, and whether this one still does."""
