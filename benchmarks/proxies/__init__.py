"""Reverse proxies before one upstream: the gateway's own, beside others' and Python's, each on one core.

The upstream and the load share the other core, so that what a proxy leaves unused of its own core is theirs to explain.
"""
