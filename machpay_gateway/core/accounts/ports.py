"""What the store of accounts and users provides."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.accounts.user import SignIn, User
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.ports import ChangedRecord


class AccountStore(Protocol):
    """The source of truth for accounts. Raises StoreUnavailable."""

    async def add_account(self, account: Account, change: Change) -> bool:
        """Store a new account; False when its id or its name is taken."""

    async def account(self, id_or_name: str) -> Account | None:
        """Return the account with that id, else the one with that name."""

    async def accounts(self) -> Sequence[Account]:
        """Return all accounts, oldest first."""

    async def set_tier(self, account: Account, tier: str, change: Change) -> Sequence[ChangedRecord] | None:
        """Change the tier and raise the version of *account*, and of every grant of its users and its clients.

        Returns the id and the new version of each; None when the stored account no longer has the tier of *account*.
        The keys are not written: however many they are, each is read with the version of its account.
        """


class UserStore(Protocol):
    """The source of truth for users and their sign-ins. Raises StoreUnavailable."""

    async def add_user(self, user: User, change: Change) -> bool:
        """Store a new user; False when the email address is taken. Raises InputError for an unknown account."""

    async def user(self, account_id: str | None, id_or_email: str) -> User | None:
        """Return the user with that id or email address, of the account, or of any when *account_id* is None."""

    async def users(self, account_id: str | None) -> Sequence[User]:
        """Return the users of the account, or of all when *account_id* is None, oldest first."""

    async def emails(self, account_id: str, user_ids: Collection[str]) -> Mapping[str, str]:
        """Return the email addresses, by id, of those of *user_ids* that are users of the account."""

    async def replace_user(self, expected: User, user: User, change: Change) -> Sequence[ChangedRecord] | None:
        """Write the changeable fields of *user* and end every sign-in; None when the stored one is not *expected*.

        A new password or disabling the user also forgets the familiar address blocks. Returns the user's grants, whose
        versions are raised: their validity depends on the user.
        """

    async def add_sign_in(
        self, sign_in: SignIn, expected: User, change: Change | None = None, *, block: str | None = None
    ) -> bool:
        """Store a sign-in and delete expired ones; False when the stored user is not *expected*.

        It makes the address *block* familiar.
        """

    async def session(self, digest: bytes, now: float) -> tuple[User, SignIn] | None:
        """Return the user and the sign-in of the cookie with this *digest*; None if expired, or the user is disabled.

        *now* is in seconds since the epoch.
        """

    async def is_familiar_block(self, user_id: str, block: str, since: float) -> bool:
        """Tell whether the user has signed in from the address *block* at or after *since*."""

    async def update_sign_in(self, sign_in: SignIn) -> None:
        """Store when the sign-in was last used and confirmed; nothing happens when it has ended."""

    async def sign_ins(self, user_id: str, now: float) -> Sequence[SignIn]:
        """Return the user's sign-ins that have not expired at *now*, newest first."""

    async def delete_sign_in(self, digest: bytes, change: Change) -> None:
        """End a sign-in."""

    async def delete_other_sign_ins(self, user_id: str, digest: bytes, change: Change) -> None:
        """End every sign-in of the user except the one with this *digest*."""

    async def add_audit_entry(self, change: Change) -> None:
        """Append an event that changed no record, such as a refusal, to the audit log."""
