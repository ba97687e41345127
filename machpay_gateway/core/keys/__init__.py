"""API keys: secrets, validation, the audit log, and what is asked of their store."""
