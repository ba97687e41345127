"""What is asked of the store of accounts and users."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from machpay_gateway.core.accounts.account import Account
from machpay_gateway.core.accounts.user import SignIn, User
from machpay_gateway.core.keys.audit import Change
from machpay_gateway.core.keys.ports import RecordVersion


class AccountStore(Protocol):
    """The source of truth for accounts. Raises StoreUnavailable."""

    async def add_account(self, account: Account, change: Change) -> bool:
        """Store a new account; False when its name is taken."""

    async def account(self, id_or_name: str) -> Account | None:
        """Return the account with that id or name."""

    async def accounts(self) -> Sequence[Account]:
        """Return all accounts, oldest first."""

    async def set_tier(self, account: Account, tier: str, change: Change) -> Sequence[tuple[str, int]] | None:
        """Change the tier and raise the version of every key of *account* and grant of its clients.

        Returns the id and the new version of each; None when the account is not there with the tier that it has here.
        """


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

    async def replace_user(self, known: User, user: User, change: Change) -> Sequence[RecordVersion] | None:
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
