"""The stores of accounts, keys, users and OAuth records. Empty: `stores.cache` must not import SQLAlchemy."""
