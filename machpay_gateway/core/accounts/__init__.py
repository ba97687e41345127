"""Accounts and their users: sign-in, devices, and what a manager may do."""
