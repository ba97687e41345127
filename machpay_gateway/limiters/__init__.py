"""Limiters: who counts what subjects do. All of them keep the promises of `core.limits.ports.Limiter`."""
