"""Pure decisions: no I/O, no clock, no randomness, no clients.

Everything in this package is a value or a function of values; the engine, the simulator and the tests run the same code.
"""
