"""The demonstration: real servers, the real daemon, real traffic, and a comparison item by item at the end."""
