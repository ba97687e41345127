"""What Alembic runs around the scripts. It opens nothing: `upgrade` hands over a connection and its transaction."""

from alembic import context

from machpay_gateway.stores.schema import METADATA

# The transaction is the caller's. SQLite's DDL is transactional once BEGIN was said, whatever Alembic supposes.
context.configure(connection=context.config.attributes["connection"], target_metadata=METADATA, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
