"""What can be done with users: the use cases that the command line, the sign-in page and the Console share."""

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from http import HTTPStatus

from machpay_gateway.core.accounts.device import NONCE_BYTES, device_cookie, device_of, pass_of
from machpay_gateway.core.accounts.device import sign_in_pass as new_pass
from machpay_gateway.core.accounts.ports import UserStore
from machpay_gateway.core.accounts.user import (
    FAMILIAR_SECONDS,
    MAX_PASSWORD,
    VIEWER,
    SignIn,
    User,
    checked_email,
    checked_role,
    email_key,
)
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import APPLICATION, Actor, Change
from machpay_gateway.core.keys.key import ENTROPY_BYTES, mint_id
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.network.address import block_name
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of, mint
from machpay_gateway.core.text import format_moment_or_none, quote_value
from machpay_gateway.services.optimistic_locking import Edit, Invalidate, update_record
from machpay_gateway.services.password_rules import checked_password
from machpay_gateway.services.passwords import HashingClient, Passwords
from machpay_gateway.services.sign_in_limits import SignInAttempt, SignInLimits
from machpay_gateway.services.sign_in_log import SignInLog, log

SIGN_IN_SECONDS = 12 * 3600.0
_SEEN_SECONDS = 60.0  # between writes of when a session was last used


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user who has signed in, and the *cookie* that the browser is known by from now on.

    *device* is the cookie that tells it from a stranger's browser when the user signs in again.
    """

    user: User
    cookie: str
    device: str


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A browser in which *user* is signed in."""

    user: User
    sign_in: SignIn


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

    @property
    def about_own_password(self) -> str:
        """What a page says of it to a user who is signed in."""
        return "This is not your password." if self.wait_seconds is None else self.told

    @property
    def status(self) -> int:
        """The status of a page that says so."""
        return HTTPStatus.BAD_REQUEST if self.wait_seconds is None else HTTPStatus.TOO_MANY_REQUESTS


class Users:
    """The use cases on users. *announce* is told (grant id, version) of each grant that a stored change concerns.

    *account_name* returns the name of the account of that id; a session ends when nobody used it for *idle_seconds*.
    """

    def __init__(
        self,
        store: UserStore,
        *,
        limiter: Limiter,
        passwords: Passwords,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        invalidate: Invalidate,
        account_name: Callable[[str], Awaitable[str]],
        idle_seconds: float,
    ) -> None:
        self._store = store
        self._budgets = SignInLimits(limiter)
        self._records = SignInLog(store.add_note, clock=self._now)
        self._passwords = passwords
        self._clock = clock
        self._entropy = entropy
        self._invalidate = invalidate
        self._account_name = account_name
        self._idle_seconds = idle_seconds

    def _now(self) -> float:
        return self._clock()

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
        now, email = self._clock(), checked_email(email)
        user = User(
            id=mint_id("user", self._entropy(ENTROPY_BYTES)),
            account_id=account_id,
            email=email,
            created_at=now,
            password=None if password is None else await self._hash_of(password, email, account_id),
            role=checked_role(role),
        )
        change = Change(now, actor, "user.create", account_id, user.id, {}, _state(user))
        if not await self._store.add_user(user, change):
            raise InputError(f"A user with the e-mail {quote_value(user.email)} exists already.")
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
        hashed = await self._hash_of(password, user.email, user.account_id)
        return await self._update(user, "user.set_password", lambda known: replace(known, password=hashed), actor)

    async def set_role(self, user: User, role: str, *, actor: Actor = APPLICATION) -> User:
        """Let the user do more or less in the Console, and end every sign-in. Raises InputError."""
        wanted = checked_role(role)
        return await self._update(user, "user.set_role", lambda known: replace(known, role=wanted), actor)

    async def disable(self, user: User, *, actor: Actor = APPLICATION) -> User:
        """Shut the user out: every sign-in ends, and apps that act for them are refused from their next request."""

        def disabled(known: User) -> User:
            if known.disabled_at is not None:
                return known
            now = self._clock()
            return replace(known, disabled_at=now, devices_from=now)

        return await self._update(user, "user.disable", disabled, actor)

    async def enable(self, user: User, *, actor: Actor = APPLICATION) -> User:
        """Let the user in again, and the apps that act for them."""
        return await self._update(user, "user.enable", lambda known: replace(known, disabled_at=None), actor)

    async def sign_in(
        self,
        email: str,
        password: str,
        *,
        address: int | None,
        shown_address: str | None,
        device: str = "",
        sign_in_pass: str = "",
        request_id: str | None = None,
    ) -> SignedIn | NotSignedIn:
        """Sign in from *address*, in a browser with the cookie *device* or a *sign_in_pass* if it has one.

        Raises StoreUnavailable, also when too many passwords are being checked.
        """
        key, now, block = email_key(email), self._clock(), block_name(address)
        user = await self._store.user(None, key) if key.isprintable() and "@" in key else None
        origin = Actor("anonymous", "", shown_address, request_id)
        known = device_of(device, user, now) or pass_of(sign_in_pass, user, now)
        # Asked for nobody too: a missing question would take less time.
        is_familiar = await self._store.is_familiar("" if user is None else user.id, block, now - FAMILIAR_SECONDS)
        wait = await self._budgets.wait_seconds(SignInAttempt(key, block, known, is_familiar))
        if wait is not None:
            await self._records.throttled(user, email, origin, block)
            return NotSignedIn(wait)
        kept = None if user is None or user.disabled_at is not None else user.password
        owner = HashingClient(block) if known is None else HashingClient(known, is_known=True)
        if len(password) > MAX_PASSWORD or not await self._passwords.is_right(password, kept, owner):
            await self._records.failed(user, email, origin, _why_not(user))
            return NotSignedIn()
        assert user is not None  # noqa: S101 - only somebody's hash can be right
        after = {"known_browser": known is not None}
        change = self._records.change("user.sign_in", user, replace(origin, kind="user", id=user.id), after)
        signed_in = await self._let_in(user, shown_address, block, change)
        if signed_in is None:
            await self._records.failed(user, email, origin, "the user was changed meanwhile")
        return signed_in or NotSignedIn()

    async def session(self, cookie: str, *, is_automatic: bool = False) -> BrowserSession | None:
        """Return who is signed in by the browser with this *cookie*, None when that has ended.

        What is asked for *is_automatic*, and not by a person, does not keep a session from ending.
        """
        digest, now = digest_of(OpaqueTokenKind.BROWSER, cookie), self._clock()
        found = None if digest is None else await self._store.session(digest, now)
        if found is None:
            return None
        user, sign_in = found
        idle_seconds = now - sign_in.last_seen_at
        if idle_seconds >= self._idle_seconds:
            return None
        if not is_automatic and idle_seconds >= _SEEN_SECONDS:
            sign_in = replace(sign_in, seen_at=now)
            await self._store.mark_sign_in(sign_in)
        return BrowserSession(user, sign_in)

    async def signed_in(self, cookie: str) -> User | None:
        """Return the user whom a browser with this *cookie* is signed in as."""
        session = await self.session(cookie)
        return None if session is None else session.user

    async def confirm(self, session: BrowserSession, password: str, actor: Actor) -> NotSignedIn | None:
        """Ask once more for the password of who is signed in; None when it is right, as the session then knows.

        Raises StoreUnavailable.
        """
        refused = await self._refused_own(session, password, actor)
        if refused is None:
            await self._store.mark_sign_in(replace(session.sign_in, confirmed_at=self._clock()))
        return refused

    async def change_password(
        self, session: BrowserSession, current: str, new: str, *, address: int | None, actor: Actor
    ) -> SignedIn | NotSignedIn:
        """Give a user who is signed in, and knows the *current* password, a *new* one.

        Every sign-in ends, and the browser gets another one in place of its own (ASVS 5.0 7.2.4). Raises InputError.
        """
        user = session.user
        if (refused := await self._refused_own(session, current, actor)) is not None:
            return refused
        if new == current:
            raise InputError("The new password is the current one.")
        hashed = await self._hash_of(new, user.email, user.account_id)

        def changed(known: User) -> User:
            if known.password != user.password:  # an operator's is not undone by who knew the one before
                raise InputError("The password was changed meanwhile: sign in again.")
            return replace(known, password=hashed)

        user = await self._update(user, "user.set_password", changed, actor)
        return await self._let_in(user, actor.address, block_name(address)) or NotSignedIn()

    async def sign_out(self, cookie: str, origin: Actor = APPLICATION) -> None:
        """End the sign-in of the browser with this *cookie*; *origin* has the address and the request."""
        digest = digest_of(OpaqueTokenKind.BROWSER, cookie)
        found = None if digest is None else await self._store.session(digest, self._clock())
        if found is not None:
            user, sign_in = found
            change = self._records.change("user.sign_out", user, replace(origin, kind="user", id=user.id))
            await self._store.drop_sign_in(sign_in.digest, change)
            log(change)

    async def sign_ins(self, user: User) -> Sequence[SignIn]:
        """Return where *user* is signed in, newest first."""
        now = self._clock()
        found = await self._store.sign_ins(user.id, now)
        return [each for each in found if now - each.last_seen_at < self._idle_seconds]

    async def end_sign_in(self, user: User, name: str, actor: Actor = APPLICATION) -> bool:
        """End the sign-in of *user* that `SignIn.name` tells apart; False when there is none of that name."""
        for sign_in in await self.sign_ins(user):
            if sign_in.name == name:
                change = self._records.change("user.sign_out", user, actor, {"session": name})
                await self._store.drop_sign_in(sign_in.digest, change)
                log(change)
                return True
        return False

    async def end_other_sign_ins(self, user: User, cookie: str, actor: Actor = APPLICATION) -> None:
        """End every sign-in of *user* but that of the browser with this *cookie*."""
        change = self._records.change("user.sign_out", user, actor, {"session": "all others"})
        await self._store.drop_other_sign_ins(user.id, sha256(cookie.encode()).digest(), change)
        log(change)

    async def make_pass(self, user: User, actor: Actor = APPLICATION) -> str:
        """Return what lets the user try to sign in by a new browser though strangers try too, for 15 minutes.

        Raises InputError for a user who cannot sign in.
        """
        if user.password is None or user.disabled_at is not None:
            raise InputError(f"{quote_value(user.email)} cannot sign in: {_why_not(user)}.")
        await self._store.add_note(self._records.change("user.make_pass", user, actor))
        return new_pass(user, self._entropy(NONCE_BYTES), self._clock())

    async def record_refusal(self, user: User, actor: Actor, reason: str, path: str) -> None:
        """Record that the Console did not do what a browser of *user* sent to *path*."""
        await self._records.refused(user, actor, reason, path)

    async def _let_in(
        self, user: User, address: str | None, block: str, change: Change | None = None
    ) -> SignedIn | None:
        """Return the sign-in of a user whose password was right, None when the user has changed meanwhile."""
        now, cookie = self._clock(), mint(OpaqueTokenKind.BROWSER, self._entropy(ENTROPY_BYTES))
        sign_in = SignIn(sha256(cookie.encode()).digest(), user.id, now, now + SIGN_IN_SECONDS, address)
        # While the password was checked, somebody may have given the user another one, or shut them out.
        if not await self._store.add_sign_in(sign_in, user, change, block=block):
            return None
        if change is not None:
            log(change)
        return SignedIn(user, cookie, device_cookie(user, self._entropy(NONCE_BYTES), now))

    async def _refused_own(self, session: BrowserSession, password: str, actor: Actor) -> NotSignedIn | None:
        """Return why a user who is signed in does not prove to be there by *password*, None when they do."""
        user = session.user
        wait = await self._budgets.wait_to_confirm(session.sign_in.name)
        if wait is not None:
            await self._records.throttled(user, "", actor, user.id)
            return NotSignedIn(wait)
        owner = HashingClient(user.id, is_known=True)
        if len(password) > MAX_PASSWORD or not await self._passwords.is_right(password, user.password, owner):
            await self._records.failed(user, "", actor, "wrong password of a user who is signed in")
            return NotSignedIn()
        return None

    async def _hash_of(self, password: str, email: str, account_id: str) -> str:
        """Return the hash of a new password. Raises InputError."""
        check = partial(checked_password, password, email=email, account=await self._account_name(account_id))
        return await self._passwords.hashed(await self._passwords.in_thread(check))

    async def _update(self, user: User, action: str, edit: Edit[User], actor: Actor) -> User:
        def describe(before: User, after: User) -> Change:
            states = _state(before), _state(after)
            return Change(self._clock(), actor, action, before.account_id, before.id, *states)

        updated = await update_record(
            f"user {user.id}",
            partial(self._store.user, user.account_id, user.id),
            edit,
            self._store.replace_user,
            describe=describe,
            invalidate=self._invalidate,
        )
        if updated is None:
            raise InputError(f"There is no user {quote_value(user.email)}.")
        return updated


def random_password() -> str:
    """Return a password that nobody has to think of: 144 bits."""
    return os.urandom(18).hex()


def _why_not(user: User | None) -> str:
    if user is None:
        return "no such user"
    if user.disabled_at is not None:
        return "the user is disabled"
    return "wrong password" if user.password is not None else "the user has no password"


def _state(user: User) -> dict[str, object]:
    return {
        "email": user.email,
        "role": user.role,
        "has_password": user.password is not None,
        "disabled_at": format_moment_or_none(user.disabled_at),
    }
