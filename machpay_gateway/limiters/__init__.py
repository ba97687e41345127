"""Limiters: in-process and in Redis. Each keeps the promises of `core.limits.ports.Limiter`."""
