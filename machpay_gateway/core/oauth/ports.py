"""What the authorization server asks of its store. Everything raises StoreUnavailable."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from machpay_gateway.core.audit import Change
from machpay_gateway.core.oauth.client import Client
from machpay_gateway.core.oauth.grant import Code, Family, Grant, Held, RefreshToken
from machpay_gateway.core.oauth.user import SignIn, User

# Of a grant that changed: its id, and the version that it has now.
Raised = tuple[str, int]


class UserStore(Protocol):
    """The source of truth for users and where they are signed in."""

    async def add_user(self, user: User, change: Change) -> bool:
        """Store a new user; False when the e-mail is taken. Raises InputError for an account that does not exist."""

    async def user(self, account_id: str | None, id_or_email: str) -> User | None:
        """Return the user with that id or e-mail, when it is of the account or *account_id* is None."""

    async def users(self, account_id: str | None) -> Sequence[User]:
        """Return the users of the account, or of all, oldest first."""

    async def emails(self, account_id: str, user_ids: Collection[str]) -> Mapping[str, str]:
        """Return the e-mails of those of *user_ids* who are users of the account."""

    async def replace_user(self, known: User, user: User, change: Change) -> Sequence[Raised] | None:
        """Write what *user* may be changed in, and end every sign-in; None when it is not as *known*.

        After another password, or when the user is disabled, no address block is familiar any more. Returns the
        user's grants, whose versions are raised: the user may have been disabled.
        """

    async def add_sign_in(
        self, sign_in: SignIn, known: User, change: Change | None = None, *, block: str | None = None
    ) -> bool:
        """Store a sign-in, and drop those that have ended; False when the user has changed, and is not as *known*.

        From then on the address *block* is familiar.
        """

    async def session(self, digest: bytes, now: float) -> tuple[User, SignIn] | None:
        """Return who is signed in by the cookie with this *digest* at *now*, None when disabled meanwhile."""

    async def is_familiar(self, user_id: str, block: str, since: float) -> bool:
        """Tell whether the user has signed in from the address *block* at or after *since*."""

    async def mark_sign_in(self, sign_in: SignIn) -> None:
        """Store when the sign-in was last seen and confirmed."""

    async def sign_ins(self, user_id: str, now: float) -> Sequence[SignIn]:
        """Return where the user is signed in at *now*, newest first."""

    async def drop_sign_in(self, digest: bytes, change: Change) -> None:
        """End a sign-in."""

    async def drop_other_sign_ins(self, user_id: str, digest: bytes, change: Change) -> None:
        """End every sign-in of the user but the one with this *digest*."""

    async def add_note(self, change: Change) -> None:
        """Append to the audit log what changed nothing that is stored, such as a refusal."""


class ClientStore(Protocol):
    """The source of truth for clients. One that was deleted is still there, and is told by `deleted_at`."""

    async def add_client(self, client: Client, change: Change, once: bytes | None = None) -> None:
        """Store a new client with its secrets. Raises InputError for an account that does not exist.

        Raises AnsweredMeanwhile, and nothing is stored, when something was done under the name *once* within a day.
        """

    async def register_client(self, client: Client, max_clients: int, change: Change) -> bool:
        """Store a client that registered itself; False, and nothing stored, when *max_clients* such are there.

        Those that were deleted do not count. Raises InputError as `add_client` does.
        """

    async def unused_clients(self, registered_before: float, limit: int) -> Sequence[Client]:
        """Return clients that registered themselves by that moment and that no user allowed, oldest first."""

    async def remove_clients(self, client_ids: Collection[str], change: Change) -> bool:
        """Remove the clients with their secrets; False, and nothing is removed, unless all are unused and there."""

    async def client(self, account_id: str | None, client_id: str) -> Client | None:
        """Return the client, when it is of the account or *account_id* is None."""

    async def clients(
        self, account_id: str | None, *, environment: str | None, after: str | None, limit: int
    ) -> Sequence[Client]:
        """Return clients that are not deleted, newest first, at most *limit*, those that come after the id *after*."""

    async def replace_client(
        self, client: Client, change: Change, once: bytes | None = None
    ) -> Sequence[Raised] | None:
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

    async def grant_versions_since(self, since: float) -> Sequence[Raised]:
        """Return (grant id, version) of each grant changed at or after *since*, seconds since the epoch."""

    async def put_grant(self, grant: Grant, change: Change) -> bool:
        """Store a grant of version 1, or write one over the version before its own, alive; False when there is another.

        One that is valid from this version on was revoked: what came of it before ends for good. Raises InputError
        when its client or user does not exist.
        """

    async def add_code(self, code: Code) -> None:
        """Store a code, and drop those that have long expired."""

    async def code(self, digest: bytes) -> Code | None:
        """Return the code with this *digest*, used or not."""

    async def use_code(self, digest: bytes, at: float, family: Family, token: RefreshToken | None) -> bool:
        """Mark the code as used and store what came of it; False, and nothing stored, when it was used before."""

    async def held(self, digest: bytes) -> Held | None:
        """Return the refresh token with this *digest* and what it depends on."""

    async def use_refresh_token(self, digest: bytes, seed: bytes, following: RefreshToken) -> bool:
        """Store the one after the refresh token, which is used by that; False when it was used or its family ended."""

    async def end_family(self, family_id: str, change: Change) -> Raised | None:
        """End the family and raise its grant's version; None when it is not there or has ended before."""

    async def revoke_grant(self, account_id: str | None, grant_id: str, change: Change) -> Raised | None:
        """End the grant and all its families; None when it is not there or was revoked before."""


class OAuthStore(UserStore, ClientStore, GrantStore, Protocol):
    """All of it, in one database."""
