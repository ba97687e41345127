"""Statements on kept answers."""

from dataclasses import asdict

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.errors import DuplicateRequest
from machpay_gateway.core.keys.idempotency import IDEMPOTENCY_SECONDS, StoredResponse, completion_marker
from machpay_gateway.stores.schema import KEPT_ANSWERS
from machpay_gateway.stores.sql.upsert import insert_or


async def insert_answer(connection: AsyncConnection, answer: StoredResponse) -> None:
    """Insert *answer*, and drop those that are too old. Raises DuplicateRequest when there is one of its name."""
    await connection.execute(delete(KEPT_ANSWERS).where(KEPT_ANSWERS.c.at < answer.at - IDEMPOTENCY_SECONDS))
    statement = insert_or(connection.dialect.name, KEPT_ANSWERS).values(asdict(answer)).on_conflict_do_nothing()
    if (await connection.execute(statement)).rowcount == 0:
        raise DuplicateRequest


async def insert_note(connection: AsyncConnection, once: bytes | None, at: float) -> None:
    """Insert that something was done *at* a moment under the name *once*, if it has one; raises as above."""
    if once is not None:
        await insert_answer(connection, completion_marker(once, at))


async def answer_of(connection: AsyncConnection, name: bytes, since: float) -> StoredResponse | None:
    """Return the answer of that *name*, unless it is from before *since*."""
    fields = [KEPT_ANSWERS.c[name] for name in StoredResponse.__slots__]
    statement = select(*fields).where(KEPT_ANSWERS.c.name == name, KEPT_ANSWERS.c.at >= since)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else StoredResponse(*row)
