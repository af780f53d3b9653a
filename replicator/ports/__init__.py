"""What the engine needs of the outside, as small Protocols."""
