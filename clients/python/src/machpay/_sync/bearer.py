"""The credential of a client and of those made from it: fetched anew where that is agreed, once for all that wait.

A refresh token is used up by a refresh. So there is one at a time, its outcome is for all that waited for it, and
what it brings is handed over before anybody uses it.

Generated from `_async` by generate.py: edit it there.
"""

from contextvars import ContextVar
from dataclasses import replace

from machpay._credential import Credential
from machpay._effects import Lock
from machpay._held import Grant, Held, again
from machpay._listener import Listener
from machpay._sync.oauth import fetch_tokens
from machpay._sync.wire import Wire
from machpay._token_request import refresh_request
from machpay.errors import OAuthError

# Whoever takes new tokens may ask with them whose they are, and would else wait for its own end.
_telling: ContextVar[object] = ContextVar("machpay_telling", default=None)


class Bearer:
    """Has a credential to send."""

    def __init__(self, held: Held, listener: Listener) -> None:
        self._held = held
        self._listener = listener
        self._lock = Lock()
        self._flights = 0  # those that have ended
        self._failure: Exception | None = None  # of the last one
        self._handing_over: object | None = None

    @property
    def credential(self) -> Credential | None:
        """What would be sent now, if it were still good."""
        return self._held.credential

    def current(self, wire: Wire) -> Credential:
        """Return the credential to send; another one than before when that is about to end."""
        flights, held = self._flights, self._held
        if held.is_ready(wire.effects.now()) or self._is_asked_by_the_taker:
            return held.credential_to_send()
        return self._settled(wire, None, flights)

    def in_place_of(self, refused: Credential, wire: Wire) -> Credential | None:
        """Return another credential than the *refused* one, None where there can be none."""
        if self._held.grant is None or self._is_asked_by_the_taker:
            return None
        return self._settled(wire, refused, self._flights)

    @property
    def _is_asked_by_the_taker(self) -> bool:
        return self._handing_over is not None and _telling.get() is self._handing_over

    def _settled(self, wire: Wire, refused: Credential | None, flights: int) -> Credential:
        """Return the credential to send. *flights* is how many had ended when it was asked for."""
        with self._lock:
            held = self._held
            if held.ended is not None:
                raise again(held.ended)
            if self._flights != flights and self._failure is not None:
                raise again(self._failure)
            is_stale = held.is_due(wire.effects.now()) or (refused is not None and held.credential == refused)
            if is_stale or held.unsaved is not None:
                self._fly(wire, held.grant if is_stale else None)
            return self._held.credential_to_send()

    def _fly(self, wire: Wire, grant: Grant | None) -> None:
        """Fetch other tokens by *grant*, if given, and hand over what nobody has taken."""
        self._failure = None
        try:
            if grant is not None:
                self._refresh(wire, grant)
            self._hand_over()
        except Exception as exc:
            self._failure = again(exc)
            raise
        finally:
            self._flights += 1

    def _refresh(self, wire: Wire, grant: Grant) -> None:
        try:
            tokens = fetch_tokens(wire, refresh_request(grant.application, refresh_token=grant.refresh_token))
        except OAuthError as exc:
            if exc.error == "invalid_grant":  # and stays so
                self._held = replace(self._held, ended=OAuthError(exc.error, exc.error_description, exc.response))
            raise
        self._held = self._held.renewed(tokens, wire.effects.now())

    def _hand_over(self) -> None:
        """Have the tokens taken. When that fails, they are kept, and offered again before the next request."""
        tokens = self._held.unsaved
        if tokens is None:
            return
        self._handing_over = object()
        told = _telling.set(self._handing_over)
        try:
            self._listener.tell(tokens)
        finally:
            _telling.reset(told)
            self._handing_over = None
        self._held = replace(self._held, unsaved=None)
