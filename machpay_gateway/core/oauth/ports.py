"""What the authorization server asks of its store. Everything raises StoreUnavailable."""

from collections.abc import Collection, Sequence
from typing import Protocol

from machpay_gateway.core.accounts.ports import UserStore
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.ports import RecordVersion
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import AuthorizationCode, Grant, RefreshToken, StoredRefreshToken, TokenFamily


class ClientStore(Protocol):
    """The source of truth for clients. One that was deleted is still there, and is told by `deleted_at`."""

    async def add_client(self, client: OAuthClient, change: Change, once: bytes | None = None) -> None:
        """Store a new client with its secrets. Raises InputError for an account that does not exist.

        Raises DuplicateRequest, and nothing is stored, when something was done under the name *once* within a day.
        """

    async def register_client(self, client: OAuthClient, max_clients: int, change: Change) -> bool:
        """Store a client that registered itself; False, and nothing stored, when *max_clients* such are there.

        Those that were deleted do not count. Raises InputError as `add_client` does.
        """

    async def unused_clients(self, registered_before: float, limit: int) -> Sequence[OAuthClient]:
        """Return clients that registered themselves by that moment and that no user allowed, oldest first."""

    async def remove_clients(self, client_ids: Collection[str], change: Change) -> bool:
        """Remove the clients with their secrets; False, and nothing is removed, unless all are unused and there."""

    async def client(self, account_id: str | None, client_id: str) -> OAuthClient | None:
        """Return the client, when it is of the account or *account_id* is None."""

    async def clients(
        self, account_id: str | None, *, environment: str | None, after: str | None, limit: int
    ) -> Sequence[OAuthClient]:
        """Return clients that are not deleted, newest first, at most *limit*, those that come after the id *after*."""

    async def replace_client(
        self, client: OAuthClient, change: Change, once: bytes | None = None
    ) -> Sequence[RecordVersion] | None:
        """Write *client* and its secrets over version `client.version - 1`; None when that is not the stored one.

        Returns its grants, whose versions are raised: what they are worth may have changed. *once* is as in
        `add_client`.
        """


class GrantStore(Protocol):
    """The source of truth for grants and what came of them."""

    async def grant(self, grant_id: str, now: float) -> Grant | None:
        """Return the grant as it is at *now*."""

    async def grant_of(self, client_id: str, holder_id: str, now: float) -> Grant | None:
        """Return the grant of the client and its user, or of the client itself, revoked or not."""

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

    async def grant_versions_since(self, since: float) -> Sequence[RecordVersion]:
        """Return (grant id, version) of each grant changed at or after *since*, seconds since the epoch."""

    async def put_grant(self, grant: Grant, change: Change) -> bool:
        """Store a grant of version 1, or write one over the version before its own, alive; False when there is another.

        One that is valid from this version on was revoked: what came of it before ends for good. Raises InputError
        when its client or user does not exist.
        """

    async def add_code(self, code: AuthorizationCode) -> None:
        """Store a code, and drop those that have long expired."""

    async def code(self, digest: bytes) -> AuthorizationCode | None:
        """Return the code with this *digest*, used or not."""

    async def use_code(self, digest: bytes, at: float, family: TokenFamily, token: RefreshToken | None) -> bool:
        """Mark the code as used and store what came of it; False, and nothing stored, when it was used before."""

    async def refresh_token(self, digest: bytes) -> StoredRefreshToken | None:
        """Return the refresh token with this *digest* and what it depends on."""

    async def use_refresh_token(self, digest: bytes, seed: bytes, following: RefreshToken) -> bool:
        """Store the one after the refresh token, which is used by that; False when it was used or its family ended."""

    async def end_family(self, family_id: str, change: Change) -> RecordVersion | None:
        """End the family and raise its grant's version; None when it is not there or has ended before."""

    async def revoke_grant(self, account_id: str | None, grant_id: str, change: Change) -> RecordVersion | None:
        """End the grant and all its families; None when it is not there or was revoked before."""


class OAuthStore(UserStore, ClientStore, GrantStore, Protocol):
    """All of it, in one database."""
