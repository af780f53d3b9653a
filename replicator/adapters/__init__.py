"""One module per outside thing. Adapters answer requests and translate errors; they decide nothing."""
