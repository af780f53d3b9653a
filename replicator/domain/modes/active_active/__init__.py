"""Mode active-active: the stamp protocol."""
