"""Pure decisions: no I/O, no clock, no randomness, no clients.

Everything in this package is a value or a function of values; engine, simulator and tests run the same code.
"""
