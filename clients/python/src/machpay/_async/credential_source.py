"""The credential that a client sends, shared by the clients derived from it, and refreshed once for all waiting calls.

A refresh token can be used only once. So only one refresh runs at a time (singleflight): its result is for every call
that waited for it, and new tokens are delivered to the callback before any call uses them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace

from machpay._async.oauth import fetch_tokens
from machpay._async.sender import AsyncSender
from machpay._async.shielded import shielded  # async only
from machpay._credential import Credential
from machpay._event_loops import AsyncLock
from machpay._token_request import refresh_request
from machpay._token_state import RefreshGrant, TokenState, copy_error, missing_refresh_token
from machpay._token_store import AsyncTokenStore
from machpay.errors import OAuthError

# The callback may use the client with the new tokens. Such a call must not wait for the callback: a deadlock.
_delivery_in_context: ContextVar[object] = ContextVar("machpay_delivery", default=None)


class AsyncCredentialSource:
    """Returns the credential to send, and refreshes it."""

    def __init__(self, state: TokenState, store: AsyncTokenStore) -> None:
        self._state = state
        self._store = store
        self._lock = AsyncLock()
        self._finished_refreshes = 0
        self._last_error: Exception | None = None  # of the last refresh
        self._delivery: object | None = None  # identifies the running call of the callback

    @property
    def credential(self) -> Credential | None:
        """The credential without a refresh. It may have expired."""
        return self._state.credential

    async def current(self, sender: AsyncSender) -> Credential:
        """Return the credential to send, refreshed if it expires soon."""
        finished, state = self._finished_refreshes, self._state
        if state.is_ready(sender.effects.now()) or self._is_called_by_callback:
            return state.credential_to_send()
        return await self._refreshed(sender, None, finished)

    async def replacement(self, refused: Credential, sender: AsyncSender) -> Credential | None:
        """Return another credential than the *refused* one, or None if there is no way to get one."""
        if self._state.grant is None or self._is_called_by_callback:
            return None
        return await self._refreshed(sender, refused, self._finished_refreshes)

    @property
    def _is_called_by_callback(self) -> bool:
        return self._delivery is not None and _delivery_in_context.get() is self._delivery

    @shielded  # async only
    async def _refreshed(self, sender: AsyncSender, refused: Credential | None, finished: int) -> Credential:
        """Return the credential to send. *finished* is the number of finished refreshes when the call began to wait."""
        async with self._lock.within(2 * sender.options.deadline):
            if self._finished_refreshes != finished and self._last_error is not None:
                raise copy_error(self._last_error)
            if self._is_stale(sender, refused) or self._state.final_error is not None:
                await self._load(sender)
            state = self._state
            if state.final_error is not None:
                raise copy_error(state.final_error)
            is_stale = self._is_stale(sender, refused)
            if is_stale or state.undelivered is not None:
                await self._refresh_and_deliver(sender, state.grant if is_stale else None)
            return self._state.credential_to_send()

    def _is_stale(self, sender: AsyncSender, refused: Credential | None) -> bool:
        is_refused = refused is not None and self._state.credential == refused
        return is_refused or self._state.is_due(sender.effects.now())

    async def _load(self, sender: AsyncSender) -> bool:
        """Take over tokens that another process has stored. Return whether there are any."""
        # Undelivered tokens are newer than any that are stored.
        if not self._store.can_load or self._state.undelivered is not None:
            return False
        async with self._delivering():
            stored = await self._store.load()
        before = self._state
        if stored is not None:
            self._state = before.with_stored(stored, sender.effects.now())
        return self._state is not before

    async def _refresh_and_deliver(self, sender: AsyncSender, grant: RefreshGrant | None) -> None:
        """Fetch new tokens, if there is a *grant*, and deliver those that are not delivered yet."""
        self._last_error = None
        try:
            if grant is not None:
                await self._refresh(sender, grant)
            await self._deliver()
        except Exception as exc:
            self._last_error = copy_error(exc)
            raise
        finally:
            self._finished_refreshes += 1

    async def _refresh(self, sender: AsyncSender, grant: RefreshGrant) -> None:
        if grant.refresh_token is None:
            raise missing_refresh_token()
        try:
            tokens = await fetch_tokens(sender, refresh_request(grant.application, refresh_token=grant.refresh_token))
        except OAuthError as exc:
            if exc.error != "invalid_grant":
                raise
            if await self._load(sender):  # another process has refreshed meanwhile
                await self._refresh_if_due(sender)
                return
            # Final: no later refresh can succeed.
            error = OAuthError(exc.error, exc.error_description, exc.response)
            self._state = replace(self._state, final_error=error)
            raise
        self._state = self._state.with_tokens(tokens, sender.effects.now())

    async def _refresh_if_due(self, sender: AsyncSender) -> None:
        if self._state.grant is not None and self._state.is_due(sender.effects.now()):
            await self._refresh(sender, self._state.grant)

    async def _deliver(self) -> None:
        """Pass undelivered tokens to the callback. If it fails, they are delivered before the next request."""
        tokens = self._state.undelivered
        if tokens is None:
            return
        async with self._delivering():
            await self._store.save(tokens)
        self._state = replace(self._state, undelivered=None)

    @asynccontextmanager
    async def _delivering(self) -> AsyncIterator[None]:
        """Mark what runs inside as called by this object, which must not wait for itself."""
        self._delivery = object()
        reset = _delivery_in_context.set(self._delivery)
        try:
            yield
        finally:
            _delivery_in_context.reset(reset)
            self._delivery = None
