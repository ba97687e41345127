"""Users, clients and grants in the database of the store that this is a part of."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from machpay_gateway.core.accounts.user import FAMILIAR_SECONDS, SignIn, User
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.ports import RecordVersion
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import AuthorizationCode, Grant, RefreshToken, StoredRefreshToken, TokenFamily
from machpay_gateway.stores.schema import OAUTH_GRANTS
from machpay_gateway.stores.sql import audit, clients, grants, idempotency, tokens, users
from machpay_gateway.stores.sql.engine import Database


class SqlOAuth:
    """OAuthStore. What a token request does takes no lock that another one waits for, but its own rows'."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_user(self, user: User, change: Change) -> bool:
        """Store a new user; False when the e-mail is taken. Raises InputError for an account that does not exist."""
        async with audit.changing(self._database, "user creation") as connection:
            with _fitting(f"Account {user.account_id} is unknown"):
                if not await users.insert_user(connection, user):
                    return False
            await audit.insert_change(connection, change)
            return True

    async def user(self, account_id: str | None, id_or_email: str) -> User | None:
        """Return the user with that id or e-mail, when it is of the account or *account_id* is None."""
        async with self._database.reading("user") as connection:
            return await users.user_by(connection, account_id, id_or_email)

    async def users(self, account_id: str | None) -> Sequence[User]:
        """Return the users of the account, or of all, oldest first."""
        async with self._database.reading("users") as connection:
            return await users.all_users(connection, account_id)

    async def emails(self, account_id: str, user_ids: Collection[str]) -> Mapping[str, str]:
        """Return the e-mails of those of *user_ids* who are users of the account."""
        async with self._database.reading("users") as connection:
            return await users.emails_of(connection, account_id, user_ids)

    async def replace_user(self, known: User, user: User, change: Change) -> Sequence[RecordVersion] | None:
        """Write what *user* may be changed in, and end every sign-in; None when it is not as *known*.

        After another password, or when the user is disabled, no address block is familiar any more. Returns the
        user's grants, whose versions are raised: the user may have been disabled.
        """
        async with audit.changing(self._database, "user change") as connection:
            if not await users.update_user(connection, known, user):
                return None
            await users.delete_sign_ins(connection, user.id)
            if (user.password, user.disabled_at) != (known.password, known.disabled_at):
                await users.delete_familiar(connection, user.id)
            await audit.insert_change(connection, change)
            return await grants.raise_versions(connection, OAUTH_GRANTS.c.user_id == user.id, change.at)

    async def add_sign_in(
        self, sign_in: SignIn, known: User, change: Change | None = None, *, block: str | None = None
    ) -> bool:
        """Store a sign-in, and drop those that have ended; False when the user has changed, and is not as *known*.

        From then on the address *block* is familiar.
        """
        async with self._noting("sign-in", change) as connection:
            if not await users.is_as_known(connection, known):
                return False
            await users.insert_sign_in(connection, sign_in)
            if block is not None:
                now = sign_in.created_at
                await users.insert_familiar(connection, known.id, block, now)
                await users.delete_familiar(connection, known.id, before=now - FAMILIAR_SECONDS)
            if change is not None:
                await audit.insert_change(connection, change)
            return True

    async def session(self, digest: bytes, now: float) -> tuple[User, SignIn] | None:
        """Return who is signed in by the cookie with this *digest* at *now*, None when disabled meanwhile."""
        async with self._database.reading("sign-in") as connection:
            return await users.session_by(connection, digest, now)

    async def is_familiar(self, user_id: str, block: str, since: float) -> bool:
        """Tell whether the user has signed in from the address *block* at or after *since*."""
        async with self._database.reading("sign-in") as connection:
            return await users.is_familiar(connection, user_id, block, since)

    async def mark_sign_in(self, sign_in: SignIn) -> None:
        """Store when the sign-in was last seen and confirmed."""
        async with self._database.writing("sign-in") as connection:
            await users.mark_sign_in(connection, sign_in)

    async def sign_ins(self, user_id: str, now: float) -> Sequence[SignIn]:
        """Return where the user is signed in at *now*, newest first."""
        async with self._database.reading("sign-ins") as connection:
            return await users.sign_ins_of(connection, user_id, now)

    async def drop_sign_in(self, digest: bytes, change: Change) -> None:
        """End a sign-in."""
        async with audit.changing(self._database, "sign-out") as connection:
            await users.delete_sign_in(connection, digest)
            await audit.insert_change(connection, change)

    async def drop_other_sign_ins(self, user_id: str, digest: bytes, change: Change) -> None:
        """End every sign-in of the user but the one with this *digest*."""
        async with audit.changing(self._database, "sign-out") as connection:
            await users.delete_sign_ins(connection, user_id, but=digest)
            await audit.insert_change(connection, change)

    async def add_note(self, change: Change) -> None:
        """Append to the audit log what changed nothing that is stored, such as a refusal."""
        async with audit.changing(self._database, "audit log") as connection:
            await audit.insert_change(connection, change)

    async def add_client(self, client: OAuthClient, change: Change, once: bytes | None = None) -> None:
        """Store a new client with its secrets. Raises InputError for an account that does not exist.

        Raises DuplicateRequest, and nothing is stored, when something was done under the name *once* within a day.
        """
        async with audit.changing(self._database, "client creation") as connection:
            await idempotency.insert_note(connection, once, change.at)
            await _add_client(connection, client, change)

    async def register_client(self, client: OAuthClient, max_clients: int, change: Change) -> bool:
        """Store a client that registered itself; False, and nothing stored, when *max_clients* such are there.

        Those that were deleted do not count. Raises InputError as `add_client` does.
        """
        # No other change runs beside this one, so that none is added between the count and the insert.
        async with audit.changing(self._database, "client registration") as connection:
            if await clients.count_self_registered(connection) >= max_clients:
                return False
            await _add_client(connection, client, change)
            return True

    async def unused_clients(self, registered_before: float, limit: int) -> Sequence[OAuthClient]:
        """Return clients that registered themselves by that moment and that no user allowed, oldest first."""
        async with self._database.reading("unused clients") as connection:
            return await clients.unused_clients(connection, registered_before, limit)

    async def remove_clients(self, client_ids: Collection[str], change: Change) -> bool:
        """Remove the clients with their secrets; False, and nothing is removed, unless all are unused and there."""
        async with audit.changing(self._database, "removal of clients") as connection:
            if await clients.count_unused(connection, client_ids) != len(client_ids):
                return False
            await clients.delete_clients(connection, client_ids)
            await audit.insert_change(connection, change)
            return True

    async def client(self, account_id: str | None, client_id: str) -> OAuthClient | None:
        """Return the client, when it is of the account or *account_id* is None."""
        async with self._database.reading("client") as connection:
            return await clients.client_by_id(connection, account_id, client_id)

    async def clients(
        self, account_id: str | None, *, environment: str | None, after: str | None, limit: int
    ) -> Sequence[OAuthClient]:
        """Return clients that are not deleted, newest first, at most *limit*, those that come after the id *after*."""
        async with self._database.reading("clients") as connection:
            return await clients.clients_page(connection, account_id, environment=environment, after=after, limit=limit)

    async def replace_client(
        self, client: OAuthClient, change: Change, once: bytes | None = None
    ) -> Sequence[RecordVersion] | None:
        """Write *client* and its secrets over version `client.version - 1`; None when that is not the stored one.

        Returns its grants, whose versions are raised: what they are worth may have changed. *once* is as in
        `add_client`.
        """
        async with audit.changing(self._database, "client change") as connection:
            if not await clients.update_client(connection, client):
                return None
            await idempotency.insert_note(connection, once, change.at)
            await clients.rewrite_secrets(connection, client)
            await audit.insert_change(connection, change)
            return await grants.raise_versions(connection, OAUTH_GRANTS.c.client_id == client.id, change.at)

    async def grant(self, grant_id: str, now: float) -> Grant | None:
        """Return the grant as it is at *now*."""
        async with self._database.reading("grant") as connection:
            return await grants.grant_by_id(connection, grant_id, now)

    async def grant_of(self, client_id: str, holder_id: str, now: float) -> Grant | None:
        """Return the grant of the client and its user, or of the client itself, revoked or not."""
        async with self._database.reading("grant") as connection:
            return await grants.grant_of(connection, client_id, holder_id, now)

    async def grants(
        self,
        account_id: str | None,
        *,
        client_id: str | None,
        environment: str | None,
        after: str | None,
        limit: int,
    ) -> Sequence[Grant]:
        """Return grants that the account's users gave, and its clients have for themselves, newest first.

        At most *limit*, those that come after the id *after*, and without the families that ended.
        """
        async with self._database.reading("grants") as connection:
            return await grants.grants_page(
                connection, account_id, client_id=client_id, environment=environment, after=after, limit=limit
            )

    async def grant_versions_since(self, since: float) -> Sequence[RecordVersion]:
        """Return (grant id, version) of each grant changed at or after *since*, seconds since the epoch."""
        async with self._database.reading("changed grants") as connection:
            return await grants.versions_since(connection, since)

    async def put_grant(self, grant: Grant, change: Change) -> bool:
        """Store a grant of version 1, or write one over the version before its own, alive; False when there is another.

        One that is valid from this version on was revoked: what came of it before ends for good. Raises InputError
        when its client or user does not exist.
        """
        async with audit.changing(self._database, "grant") as connection:
            with _fitting(f"Client {grant.client_id} or user {grant.user_id} is unknown"):
                if not await grants.put_grant(connection, grant, change.at):
                    return False
            if grant.valid_from == grant.version:
                # Codes first: one that is being used right now is waited for, and then its family is there to be ended.
                await tokens.delete_codes(connection, grant.id, change.at)
                await tokens.end_families(connection, grant.id, change.at)
            await audit.insert_change(connection, change)
            return True

    async def add_code(self, code: AuthorizationCode) -> None:
        """Store a code, and drop those that have long expired."""
        async with self._database.writing("authorization code") as connection:
            await tokens.insert_code(connection, code)

    async def code(self, digest: bytes) -> AuthorizationCode | None:
        """Return the code with this *digest*, used or not."""
        async with self._database.reading("authorization code") as connection:
            return await tokens.code_by(connection, digest)

    async def use_code(self, digest: bytes, at: float, family: TokenFamily, token: RefreshToken | None) -> bool:
        """Mark the code as used and store what came of it; False, and nothing stored, when it was used before."""
        async with self._database.writing("authorization code") as connection:
            if not await tokens.use_code(connection, digest, at):
                return False
            await tokens.insert_family(connection, family)
            if token is not None:
                await tokens.insert_token(connection, token)
            return True

    async def refresh_token(self, digest: bytes) -> StoredRefreshToken | None:
        """Return the refresh token with this *digest* and what it depends on."""
        async with self._database.reading("refresh token") as connection:
            return await tokens.held(connection, digest)

    async def use_refresh_token(self, digest: bytes, seed: bytes, following: RefreshToken) -> bool:
        """Store the one after the refresh token, which is used by that; False when it was used or its family ended."""
        async with self._database.writing_once("refresh token") as connection:
            return await tokens.insert_following(connection, digest, seed, following)

    async def end_family(self, family_id: str, change: Change) -> RecordVersion | None:
        """End the family and raise its grant's version; None when it is not there or has ended before."""
        async with audit.changing(self._database, "family's end") as connection:
            grant_id = await tokens.end_family(connection, family_id, change.at)
            if grant_id is None:
                return None
            await audit.insert_change(connection, change)
            return (await grants.raise_versions(connection, OAUTH_GRANTS.c.id == grant_id, change.at))[0]

    async def revoke_grant(self, account_id: str | None, grant_id: str, change: Change) -> RecordVersion | None:
        """End the grant and all its families; None when it is not there or was revoked before."""
        async with audit.changing(self._database, "grant's end") as connection:
            which = (OAUTH_GRANTS.c.id == grant_id) & OAUTH_GRANTS.c.revoked_at.is_(None)
            if account_id is not None:
                which &= OAUTH_GRANTS.c.account_id == account_id
            raised = await grants.raise_versions(connection, which, change.at, revoked_at=change.at)
            if not raised:
                return None
            await tokens.end_families(connection, grant_id, change.at)
            await audit.insert_change(connection, change)
            return raised[0]

    def _noting(self, what: str, change: Change | None) -> AbstractAsyncContextManager[AsyncConnection]:
        """Return a transaction that writes *what*, with the audit log if there is a *change* to append."""
        return self._database.writing(what) if change is None else audit.changing(self._database, what)


async def _add_client(connection: AsyncConnection, client: OAuthClient, change: Change) -> None:
    with _fitting(f"Account {client.account_id} is unknown, or the client's id or secret is taken"):
        await clients.insert_client(connection, client)
        await clients.rewrite_secrets(connection, client)
    await audit.insert_change(connection, change)


@contextmanager
def _fitting(told: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError as exc:
        raise InputError(f"{told}.") from exc
