"""One process: what it is made of, how long each part lives, and how it ends."""
