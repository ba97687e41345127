"""The pure heart: values, tables and arithmetic that decide, without I/O, clocks or randomness.

Time and entropy come in as arguments, so every rule here can be tested by calling it.
"""
