"""API keys: secrets, validation, documents, the audit log, and the ports of their store."""
