"""The store in a SQL database. Rows and driver errors never leave this folder.

Importing it imports SQLAlchemy, which takes half a second: `assembly` does so when it builds a gateway.
"""

from machpay_gateway.stores.sql.store import SqlStore

__all__ = ["SqlStore"]
