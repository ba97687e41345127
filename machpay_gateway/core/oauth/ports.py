"""What the store of the authorization server provides. Every method raises StoreUnavailable."""

from collections.abc import Collection, Sequence
from typing import Protocol

from machpay_gateway.core.accounts.ports import UserStore
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.ports import ChangedRecord
from machpay_gateway.core.oauth.client import OAuthClient
from machpay_gateway.core.oauth.grant import AuthorizationCode, Grant, RefreshToken, StoredRefreshToken, TokenFamily


class ClientStore(Protocol):
    """The source of truth for OAuth clients. A deleted one stays stored, with `deleted_at`."""

    async def add_client(self, client: OAuthClient, change: Change, once: bytes | None = None) -> None:
        """Store a new client with its secrets. Raises InputError for an unknown account.

        Raises DuplicateRequest and stores nothing when another change was made under the name *once* within a day.
        """

    async def register_client(self, client: OAuthClient, max_clients: int, change: Change) -> bool:
        """Store a client that registered itself; False, and nothing stored, when there are *max_clients* of those.

        Deleted ones do not count. Raises InputError as `add_client` does.
        """

    async def unused_clients(self, registered_before: float, limit: int) -> Sequence[OAuthClient]:
        """Return at most *limit* clients that registered themselves by then and that no user allowed, oldest first.

        *registered_before* is in seconds since the epoch, and included.
        """

    async def remove_clients(self, client_ids: Collection[str], change: Change) -> bool:
        """Remove the clients with their secrets; False, and nothing removed, unless each exists and is unused."""

    async def client(self, account_id: str | None, client_id: str) -> OAuthClient | None:
        """Return the client, of the account, or of any when *account_id* is None."""

    async def clients(
        self, account_id: str | None, *, environment: str | None, after: str | None, limit: int
    ) -> Sequence[OAuthClient]:
        """Return at most *limit* clients that are not deleted, newest first, starting after the id *after*."""

    async def replace_client(
        self, client: OAuthClient, change: Change, once: bytes | None = None
    ) -> Sequence[ChangedRecord] | None:
        """Write *client* and its secrets over version `client.version - 1`; None when that is not the stored one.

        Returns its grants, whose versions are raised: what they allow depends on the client. *once* is as in
        `add_client`.
        """


class GrantStore(Protocol):
    """The source of truth for grants."""

    async def grant(self, grant_id: str, now: float) -> Grant | None:
        """Return the grant as it is at *now*."""

    async def grant_of(self, client_id: str, holder_id: str, now: float) -> Grant | None:
        """Return the client's grant from the user *holder_id*, or its own when that is its id, revoked or not."""

    async def grants(
        self,
        account_id: str | None,
        *,
        client_id: str | None,
        environment: str | None,
        after: str | None,
        limit: int,
    ) -> Sequence[Grant]:
        """Return at most *limit* grants, newest first, starting after the id *after*, without their ended families.

        They are those from the account's users and its clients' own, or everyone's when *account_id* is None.
        """

    async def put_grant(self, grant: Grant, change: Change) -> bool:
        """Insert a grant of version 1, or write one over the version before; False when the stored one is another.

        A grant that is valid from this version on replaces a revoked one: its earlier codes and token families end for
        good. Raises InputError when its client or user does not exist.
        """

    async def revoke_grant(self, account_id: str | None, grant_id: str, change: Change) -> ChangedRecord | None:
        """End the grant and all its token families; None when it does not exist or is revoked already."""


class TokenStore(Protocol):
    """The source of truth for authorization codes, token families and refresh tokens."""

    async def add_code(self, code: AuthorizationCode) -> None:
        """Store a code, and delete those that expired long ago."""

    async def code(self, digest: bytes) -> AuthorizationCode | None:
        """Return the code with this *digest*, used or not."""

    async def use_code(self, digest: bytes, at: float, family: TokenFamily, token: RefreshToken | None) -> bool:
        """Mark the code as used and store its *family* and *token*; False, and nothing stored, when it was used."""

    async def refresh_token(self, digest: bytes) -> StoredRefreshToken | None:
        """Return the refresh token with this *digest*, its family and its grant, without the ended families."""

    async def use_refresh_token(self, digest: bytes, seed: bytes, successor: RefreshToken) -> bool:
        """Store the *successor* of the refresh token; False when it has one or its family ended."""

    async def revoke_family(self, family_id: str, change: Change) -> ChangedRecord | None:
        """End the family and raise its grant's version; None when it does not exist or has ended already."""


class OAuthStore(UserStore, ClientStore, GrantStore, TokenStore, Protocol):
    """Everything that the authorization server stores, in one database."""
