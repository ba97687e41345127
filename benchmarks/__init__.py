"""Load tests: the same server with and without the gateway, on this machine, in one run.

Only ratios within a run mean anything: machines differ, and a shared one differs from minute to minute.
"""
