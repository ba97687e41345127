"""Keys and accounts in a SQL database. Rows and driver errors never leave this folder.

Importing it costs SQLAlchemy, half a second: only `assembly` does, and only when a database is configured.
"""

from machpay_gateway.stores.sql.store import SqlStore

__all__ = ["SqlStore"]
