"""Alembic's environment. It opens no connection: `upgrade` passes one, in a transaction."""

from alembic import context

from machpay_gateway.stores.schema import METADATA

# The caller owns the transaction. SQLite's DDL is transactional after an explicit BEGIN, contrary to Alembic's default.
context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
