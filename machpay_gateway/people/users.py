"""What can be done with users: the use cases that the command line, the sign-in page and the Console share."""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from machpay_gateway.core.admission import Demand, Exceeded, spent
from machpay_gateway.core.audit import APPLICATION, Actor, Change
from machpay_gateway.core.errors import InputError, StoreUnavailable
from machpay_gateway.core.input import format_moment_or_none, shown
from machpay_gateway.core.key import ENTROPY_BYTES, mint_id
from machpay_gateway.core.oauth.opaque import Kind, digest_of, mint
from machpay_gateway.core.oauth.ports import UserStore
from machpay_gateway.core.oauth.user import (
    MAX_PASSWORD,
    VIEWER,
    SignIn,
    User,
    checked_email,
    checked_password,
    checked_role,
    email_key,
)
from machpay_gateway.core.ports import Limiter
from machpay_gateway.core.quota import Tier
from machpay_gateway.people.passwords import Passwords

SIGN_IN_SECONDS = 12 * 3600.0
_ATTEMPTS = 10
# Attempts, right or wrong. From one address at one e-mail a person who is looking for the right password has enough of
# them; an e-mail is tried from anywhere often enough that a stranger who means harm does not shut its owner out for the
# day; an address has many people behind it.
_OF_EMAIL_FROM_ADDRESS = Tier(rate="10/5 minutes", concurrency=4)
_OF_EMAIL = Tier(rate="100/hour", concurrency=8)
_OF_ADDRESS = Tier(rate="60/5 minutes", concurrency=16)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user who has signed in, and the *cookie* that the browser is known by from now on."""

    user: User
    cookie: str


@dataclass(frozen=True, slots=True)
class NotSignedIn:
    """Nobody has: wrong, or for *wait_seconds* too often. Which of e-mail and password is wrong is not told."""

    wait_seconds: float | None = None

    @property
    def told(self) -> str:
        """What a page says of it."""
        if self.wait_seconds is None:
            return "The e-mail or the password is wrong."
        return "Too many attempts. Wait some minutes and try again."


class Users:
    """The use cases on users. *announce* is told (grant id, version) of each grant that a stored change concerns."""

    def __init__(
        self,
        store: UserStore,
        *,
        limiter: Limiter,
        passwords: Passwords,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        announce: Callable[[str, int], Awaitable[None]],
    ) -> None:
        self._store = store
        self._limiter = limiter
        self._passwords = passwords
        self._clock = clock
        self._entropy = entropy
        self._announce = announce

    async def create(
        self,
        account_id: str,
        email: str,
        password: str | None = None,
        *,
        role: str = VIEWER,
        actor: Actor = APPLICATION,
    ) -> User:
        """Create a user; without *password* they cannot sign in yet. Raises InputError."""
        now = self._clock()
        user = User(
            id=mint_id("user", self._entropy(ENTROPY_BYTES)),
            account_id=account_id,
            email=checked_email(email),
            created_at=now,
            password=None if password is None else await self._passwords.hashed(checked_password(password)),
            role=checked_role(role),
        )
        change = Change(now, actor, "user.create", account_id, user.id, {}, _state(user))
        if not await self._store.add_user(user, change):
            raise InputError(f"A user with the e-mail {shown(user.email)} exists already.")
        return user

    async def list(self, account_id: str | None = None) -> Sequence[User]:
        """Return the users of the account, or of all, oldest first."""
        return await self._store.users(account_id)

    async def find(self, account_id: str | None, id_or_email: str) -> User | None:
        """Return the user with that id or e-mail."""
        key = id_or_email if id_or_email.startswith("user_") else email_key(id_or_email)
        return await self._store.user(account_id, key) if key.isprintable() else None

    async def emails(self, account_id: str, user_ids: Iterable[str | None]) -> Mapping[str, str]:
        """Return the e-mails of those of *user_ids* who are users of the account."""
        ids = {user_id for user_id in user_ids if user_id is not None and user_id.startswith("user_")}
        return await self._store.emails(account_id, ids) if ids else {}

    async def set_password(self, user: User, password: str, *, actor: Actor = APPLICATION) -> User:
        """Give the user another password and end every sign-in. Raises InputError."""
        hashed = await self._passwords.hashed(checked_password(password))
        return await self._change(user, "user.set_password", lambda known: replace(known, password=hashed), actor)

    async def set_role(self, user: User, role: str, *, actor: Actor = APPLICATION) -> User:
        """Let the user do more or less in the Console, and end every sign-in. Raises InputError."""
        wanted = checked_role(role)
        return await self._change(user, "user.set_role", lambda known: replace(known, role=wanted), actor)

    async def disable(self, user: User, *, actor: Actor = APPLICATION) -> User:
        """Shut the user out: every sign-in ends, and apps that act for them are refused from their next request."""

        def disabled(known: User) -> User:
            return known if known.disabled_at is not None else replace(known, disabled_at=self._clock())

        return await self._change(user, "user.disable", disabled, actor)

    async def enable(self, user: User, *, actor: Actor = APPLICATION) -> User:
        """Let the user in again, and the apps that act for them."""
        return await self._change(user, "user.enable", lambda known: replace(known, disabled_at=None), actor)

    async def sign_in(
        self, email: str, password: str, *, address: int | None, shown_address: str | None
    ) -> SignedIn | NotSignedIn:
        """Sign in from *address*. Raises StoreUnavailable, also when too many passwords are being checked."""
        key = email_key(email)
        user = await self._store.user(None, key) if key.isprintable() and "@" in key else None
        if wait := await self._wait(key, user, address, shown_address):
            return NotSignedIn(wait)
        kept = None if user is None or user.disabled_at is not None else user.password
        if len(password) > MAX_PASSWORD or not await self._passwords.is_right(password, kept):
            return NotSignedIn()
        assert user is not None  # noqa: S101 - only somebody's hash can be right
        now, cookie = self._clock(), mint(Kind.BROWSER, self._entropy(ENTROPY_BYTES))
        sign_in = SignIn(sha256(cookie.encode()).digest(), user.id, now, now + SIGN_IN_SECONDS, shown_address)
        # While the password was checked, somebody may have given the user another one, or shut them out.
        return SignedIn(user, cookie) if await self._store.add_sign_in(sign_in, user) else NotSignedIn()

    async def signed_in(self, cookie: str) -> User | None:
        """Return the user whom a browser with this *cookie* is signed in as."""
        digest = digest_of(Kind.BROWSER, cookie)
        return None if digest is None else await self._store.signed_in(digest, self._clock())

    async def sign_out(self, cookie: str) -> None:
        """End the sign-in of the browser with this *cookie*."""
        digest = digest_of(Kind.BROWSER, cookie)
        if digest is not None:
            await self._store.drop_sign_in(digest)

    async def sign_ins(self, user: User) -> Sequence[SignIn]:
        """Return where *user* is signed in, newest first."""
        return await self._store.sign_ins(user.id, self._clock())

    async def end_sign_in(self, user: User, name: str) -> bool:
        """End the sign-in of *user* that `SignIn.name` tells apart; False when there is none of that name."""
        for sign_in in await self.sign_ins(user):
            if sign_in.name == name:
                await self._store.drop_sign_in(sign_in.digest)
                return True
        return False

    async def end_other_sign_ins(self, user: User, cookie: str) -> None:
        """End every sign-in of *user* but that of the browser with this *cookie*."""
        await self._store.drop_other_sign_ins(user.id, sha256(cookie.encode()).digest())

    async def _wait(
        self, email: str, user: User | None, address: int | None, shown_address: str | None
    ) -> float | None:
        """Return for how long no attempt may be made, None when this one may."""
        name = sha256(email.encode(errors="replace")).hexdigest()[:32]
        place = "none" if address is None else f"{address:x}"
        demands = [(f"sign-in:{name}:{place}", _OF_EMAIL_FROM_ADDRESS), (f"sign-in:{place}", _OF_ADDRESS)]
        # Where somebody is signed in from, strangers cannot slow them: they keep their own attempts from there.
        if not await self._is_at_home(user, shown_address):
            demands.append((f"sign-in:{name}", _OF_EMAIL))
        for subject, tier in demands:
            answer = await spent(self._limiter.admit(Demand(subject, 0, tier, 1)))
            if isinstance(answer, Exceeded):
                return answer.wait_seconds
        return None

    async def _is_at_home(self, user: User | None, address: str | None) -> bool:
        if user is None or address is None:
            return False
        return await self._store.is_signed_in_from(user.id, address, self._clock())

    async def _change(self, user: User, action: str, changed: Callable[[User], User], actor: Actor) -> User:
        for _ in range(_ATTEMPTS):
            # Read anew: while a password was being hashed, somebody may have shut the user out.
            known = await self._store.user(user.account_id, user.id)
            if known is None:
                raise InputError(f"There is no user {shown(user.email)}.")
            wanted = changed(known)
            if wanted == known:
                return known
            change = Change(self._clock(), actor, action, known.account_id, known.id, _state(known), _state(wanted))
            raised = await self._store.replace_user(known, wanted, change)
            if raised is not None:
                for grant_id, version in raised:
                    await self._announce(grant_id, version)
                return wanted
        raise StoreUnavailable(f"user change: {user.id} changed {_ATTEMPTS} times meanwhile")


def random_password() -> str:
    """Return a password that nobody has to think of: 144 bits."""
    return os.urandom(18).hex()


def _state(user: User) -> dict[str, object]:
    return {
        "email": user.email,
        "role": user.role,
        "has_password": user.password is not None,
        "disabled_at": format_moment_or_none(user.disabled_at),
    }
