"""Statements on the responses that are stored for requests with an idempotency key."""

from dataclasses import asdict

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.errors import DuplicateRequest
from machpay_gateway.core.keys.idempotency import IDEMPOTENCY_SECONDS, StoredResponse, completion_marker
from machpay_gateway.stores.schema import KEPT_ANSWERS
from machpay_gateway.stores.sql.upsert import dialect_insert


async def insert_response(connection: AsyncConnection, response: StoredResponse) -> None:
    """Insert *response* and delete expired ones. Raises DuplicateRequest when there is one with its name."""
    await connection.execute(delete(KEPT_ANSWERS).where(KEPT_ANSWERS.c.at < response.at - IDEMPOTENCY_SECONDS))
    statement = dialect_insert(connection.dialect.name, KEPT_ANSWERS).values(asdict(response)).on_conflict_do_nothing()
    if (await connection.execute(statement)).rowcount == 0:
        raise DuplicateRequest


async def insert_marker(connection: AsyncConnection, once: bytes | None, at: float) -> None:
    """Insert a marker without a response under the name *once*, unless that is None. Raises DuplicateRequest."""
    if once is not None:
        await insert_response(connection, completion_marker(once, at))
