"""Addresses, hosts and headers, and what holds for forwarding to an upstream."""
