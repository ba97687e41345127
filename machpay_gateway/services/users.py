"""The use cases on users, shared by the command line, the sign-in pages and the Console."""

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
    email_key,
    validate_email,
    validate_role,
)
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.audit import APPLICATION, Actor, Change
from machpay_gateway.core.keys.key import ENTROPY_BYTES, mint_id
from machpay_gateway.core.limits.ports import Limiter
from machpay_gateway.core.network.address import block_name
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, digest_of, mint
from machpay_gateway.core.text import format_moment_or_none, quote_value
from machpay_gateway.services.optimistic_locking import Edit, Invalidate, update_record
from machpay_gateway.services.password_rules import validate_password
from machpay_gateway.services.passwords import HashingClient, Passwords
from machpay_gateway.services.sign_in_limits import SignInAttempt, SignInLimits
from machpay_gateway.services.sign_in_log import SignInLog, log

SIGN_IN_SECONDS = 12 * 3600.0
_SEEN_SECONDS = 60.0  # between writes of when a session was last used


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A successful sign-in, with the session *cookie* for the browser.

    *device* is the cookie by which the browser is recognized when the user signs in again.
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
    """A failed sign-in: wrong email or password, or too many attempts, to be repeated after *wait_seconds*."""

    wait_seconds: float | None = None

    @property
    def message(self) -> str:
        """The message for the user. It does not tell which of email and password is wrong."""
        if self.wait_seconds is None:
            return "The email or the password is wrong."
        return "Too many attempts. Wait some minutes and try again."

    @property
    def about_own_password(self) -> str:
        """The message for a user who is signed in."""
        return "This is not your password." if self.wait_seconds is None else self.message

    @property
    def status(self) -> int:
        """The HTTP status of a page with this message."""
        return HTTPStatus.BAD_REQUEST if self.wait_seconds is None else HTTPStatus.TOO_MANY_REQUESTS


class Users:
    """The use cases on users.

    *invalidate* is called with the grants that a change affects.
    *account_name* returns the name of the account with this id; a session ends after *idle_seconds* without use.
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
        self._limits = SignInLimits(limiter)
        self._log = SignInLog(store.add_audit_entry, clock=self._now)
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
        now, email = self._clock(), validate_email(email)
        user = User(
            id=mint_id("user", self._entropy(ENTROPY_BYTES)),
            account_id=account_id,
            email=email,
            created_at=now,
            password=None if password is None else await self._hash_new_password(password, email, account_id),
            role=validate_role(role),
        )
        change = Change(now, actor, "user.create", account_id, user.id, {}, _state(user))
        if not await self._store.add_user(user, change):
            raise InputError(f"A user with the email {quote_value(user.email)} exists already.")
        return user

    async def list(self, account_id: str | None = None) -> Sequence[User]:
        """Return the users of the account, or of all, oldest first."""
        return await self._store.users(account_id)

    async def find(self, account_id: str | None, id_or_email: str) -> User | None:
        """Return the user with that id or email."""
        key = id_or_email if id_or_email.startswith("user_") else email_key(id_or_email)
        return await self._store.user(account_id, key) if key.isprintable() else None

    async def emails(self, account_id: str, user_ids: Iterable[str | None]) -> Mapping[str, str]:
        """Return the emails of those of *user_ids* who are users of the account."""
        ids = {user_id for user_id in user_ids if user_id is not None and user_id.startswith("user_")}
        return await self._store.emails(account_id, ids) if ids else {}

    async def set_password(self, user: User, password: str, *, actor: Actor = APPLICATION) -> User:
        """Set the user's password and end all sessions. Raises InputError."""
        hashed = await self._hash_new_password(password, user.email, user.account_id)
        return await self._update(user, "user.set_password", lambda stored: replace(stored, password=hashed), actor)

    async def set_role(self, user: User, role: str, *, actor: Actor = APPLICATION) -> User:
        """Set the user's role in the Console and end all sessions. Raises InputError."""
        role = validate_role(role)
        return await self._update(user, "user.set_role", lambda stored: replace(stored, role=role), actor)

    async def disable(self, user: User, *, actor: Actor = APPLICATION) -> User:
        """Disable the user: all sessions end, and tokens of apps that act for them are refused from now on."""

        def disabled(stored: User) -> User:
            if stored.disabled_at is not None:
                return stored
            now = self._clock()
            return replace(stored, disabled_at=now, devices_from=now)

        return await self._update(user, "user.disable", disabled, actor)

    async def enable(self, user: User, *, actor: Actor = APPLICATION) -> User:
        """Enable the user again, and the apps that act for them."""
        return await self._update(user, "user.enable", lambda stored: replace(stored, disabled_at=None), actor)

    async def sign_in(
        self,
        email: str,
        password: str,
        *,
        address: int | None,
        display_address: str | None,
        device: str = "",
        sign_in_pass: str = "",
        request_id: str | None = None,
    ) -> SignedIn | NotSignedIn:
        """Sign in from *address*, with the browser's *device* cookie or a *sign_in_pass* if there is one.

        Raises StoreUnavailable, also when too many passwords are being checked, and Unavailable.
        """
        key, now, block = email_key(email), self._clock(), block_name(address)
        user = await self._store.user(None, key) if key.isprintable() and "@" in key else None
        origin = Actor("anonymous", "", display_address, request_id)
        known_device = device_of(device, user, now) or pass_of(sign_in_pass, user, now)
        # Also queried without a user: otherwise the time of the response would tell whether one exists.
        is_familiar = await self._store.is_familiar_block(
            "" if user is None else user.id, block, now - FAMILIAR_SECONDS
        )
        wait = await self._limits.wait_seconds(SignInAttempt(key, block, known_device, is_familiar))
        if wait is not None:
            await self._log.throttled(user, email, origin, block)
            return NotSignedIn(wait)
        stored_hash = None if user is None or user.disabled_at is not None else user.password
        owner = HashingClient(block) if known_device is None else HashingClient(known_device, is_known=True)
        if len(password) > MAX_PASSWORD or not await self._passwords.is_right(password, stored_hash, owner):
            await self._log.failed(user, email, origin, _failure_reason(user))
            return NotSignedIn()
        assert user is not None  # noqa: S101 - without a user, no password is right
        after = {"known_browser": known_device is not None}
        change = self._log.change("user.sign_in", user, replace(origin, kind="user", id=user.id), after)
        signed_in = await self._create_session(user, display_address, block, change)
        if signed_in is None:
            await self._log.failed(user, email, origin, "the user was changed in between")
        return signed_in or NotSignedIn()

    async def session(self, cookie: str, *, is_automatic: bool = False) -> BrowserSession | None:
        """Return the session of the browser with this *cookie*, None when it has ended.

        Requests that the page sends by itself (*is_automatic*) do not keep an idle session alive.
        """
        digest, now = digest_of(OpaqueTokenKind.BROWSER, cookie), self._clock()
        stored = None if digest is None else await self._store.session(digest, now)
        if stored is None:
            return None
        user, sign_in = stored
        idle_seconds = now - sign_in.last_seen_at
        if idle_seconds >= self._idle_seconds:
            return None
        if not is_automatic and idle_seconds >= _SEEN_SECONDS:
            sign_in = replace(sign_in, seen_at=now)
            await self._store.update_sign_in(sign_in)
        return BrowserSession(user, sign_in)

    async def signed_in(self, cookie: str) -> User | None:
        """Return the user who is signed in by the browser with this *cookie*."""
        session = await self.session(cookie)
        return None if session is None else session.user

    async def confirm(self, session: BrowserSession, password: str, actor: Actor) -> NotSignedIn | None:
        """Verify the password of the signed-in user again and note the time in the session; None when it is right.

        Raises Unavailable, StoreUnavailable.
        """
        refusal = await self._verify_own_password(session, password, actor)
        if refusal is None:
            await self._store.update_sign_in(replace(session.sign_in, confirmed_at=self._clock()))
        return refusal

    async def change_password(
        self, session: BrowserSession, current: str, new: str, *, address: int | None, actor: Actor
    ) -> SignedIn | NotSignedIn:
        """Set a *new* password for a signed-in user who knows the *current* one.

        All sessions end, and this browser gets a new one (ASVS 5.0 7.2.4). Raises InputError.
        """
        user = session.user
        if (refusal := await self._verify_own_password(session, current, actor)) is not None:
            return refusal
        if new == current:
            raise InputError("The new password is the current one.")
        hashed = await self._hash_new_password(new, user.email, user.account_id)

        def changed(stored: User) -> User:
            if stored.password != user.password:  # one that an operator has set in between is not overwritten
                raise InputError("The password was changed in the meantime: sign in again.")
            return replace(stored, password=hashed)

        user = await self._update(user, "user.set_password", changed, actor)
        return await self._create_session(user, actor.address, block_name(address)) or NotSignedIn()

    async def sign_out(self, cookie: str, origin: Actor = APPLICATION) -> None:
        """End the session of the browser with this *cookie*; *origin* has the address and the request id."""
        digest = digest_of(OpaqueTokenKind.BROWSER, cookie)
        stored = None if digest is None else await self._store.session(digest, self._clock())
        if stored is not None:
            user, sign_in = stored
            change = self._log.change("user.sign_out", user, replace(origin, kind="user", id=user.id))
            await self._store.delete_sign_in(sign_in.digest, change)
            log(change)

    async def sign_ins(self, user: User) -> Sequence[SignIn]:
        """Return the sessions of *user*, newest first."""
        now = self._clock()
        sign_ins = await self._store.sign_ins(user.id, now)
        return [each for each in sign_ins if now - each.last_seen_at < self._idle_seconds]

    async def end_sign_in(self, user: User, name: str, actor: Actor = APPLICATION) -> bool:
        """End the session of *user* with this `SignIn.name`; False when there is none."""
        for sign_in in await self.sign_ins(user):
            if sign_in.name == name:
                change = self._log.change("user.sign_out", user, actor, {"session": name})
                await self._store.delete_sign_in(sign_in.digest, change)
                log(change)
                return True
        return False

    async def end_other_sign_ins(self, user: User, cookie: str, actor: Actor = APPLICATION) -> None:
        """End all sessions of *user* except that of the browser with this *cookie*."""
        change = self._log.change("user.sign_out", user, actor, {"session": "all others"})
        await self._store.delete_other_sign_ins(user.id, sha256(cookie.encode()).digest(), change)
        log(change)

    async def create_sign_in_pass(self, user: User, actor: Actor = APPLICATION) -> str:
        """Return a sign-in pass: for 15 minutes, a new browser of the user has the limit of a known one.

        Raises InputError for a user who cannot sign in.
        """
        if user.password is None or user.disabled_at is not None:
            raise InputError(f"{quote_value(user.email)} cannot sign in: {_failure_reason(user)}.")
        await self._store.add_audit_entry(self._log.change("user.make_pass", user, actor))
        return new_pass(user, self._entropy(NONCE_BYTES), self._clock())

    async def record_refusal(self, user: User, actor: Actor, reason: str, path: str) -> None:
        """Record that the Console refused a request of *user* to *path*."""
        await self._log.refused(user, actor, reason, path)

    async def _create_session(
        self, user: User, address: str | None, block: str, change: Change | None = None
    ) -> SignedIn | None:
        """Store a session for a user whose password was right; None when the user was changed in between."""
        now, cookie = self._clock(), mint(OpaqueTokenKind.BROWSER, self._entropy(ENTROPY_BYTES))
        sign_in = SignIn(sha256(cookie.encode()).digest(), user.id, now, now + SIGN_IN_SECONDS, address)
        # While the password was checked, an operator may have set another one, or disabled the user.
        if not await self._store.add_sign_in(sign_in, user, change, block=block):
            return None
        if change is not None:
            log(change)
        return SignedIn(user, cookie, device_cookie(user, self._entropy(NONCE_BYTES), now))

    async def _verify_own_password(self, session: BrowserSession, password: str, actor: Actor) -> NotSignedIn | None:
        """Return why a signed-in user fails to confirm by *password*, None when it is right."""
        user = session.user
        wait = await self._limits.wait_to_confirm(session.sign_in.name)
        if wait is not None:
            await self._log.throttled(user, "", actor, user.id)
            return NotSignedIn(wait)
        owner = HashingClient(user.id, is_known=True)
        if len(password) > MAX_PASSWORD or not await self._passwords.is_right(password, user.password, owner):
            await self._log.failed(user, "", actor, "wrong password of a user who is signed in")
            return NotSignedIn()
        return None

    async def _hash_new_password(self, password: str, email: str, account_id: str) -> str:
        """Return the hash of a new password. Raises InputError."""
        check = partial(validate_password, password, email=email, account=await self._account_name(account_id))
        return await self._passwords.compute_hash(await self._passwords.in_thread(check))

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
    """Return a random password with 144 bits of entropy."""
    return os.urandom(18).hex()


def _failure_reason(user: User | None) -> str:
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
