"""The state of a client's credential: the credential, how to refresh it, and when."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from machpay._credential import Credential, credential_from, missing_credential
from machpay._dpop import DPoPKey
from machpay._oauth import require_text
from machpay._token_request import Application
from machpay._token_store import StoredTokens
from machpay._tokens import Tokens, expiry_of
from machpay.errors import ConfigurationError, InvalidArgumentError, MachPayError, OAuthError

EARLY_SECONDS = 30.0  # a token that expires in transit would be refused


@dataclass(frozen=True, slots=True)
class RefreshGrant:
    """What it takes to get another access token."""

    application: Application
    refresh_token: str | None = field(repr=False)  # None: not loaded yet


@dataclass(frozen=True, slots=True)
class TokenState:
    """An immutable state. *refresh_at* is in seconds since the epoch, None if the expiry is unknown.

    *undelivered* are tokens that the callback has not stored yet. After *final_error* no refresh can succeed.
    """

    credential: Credential | None
    grant: RefreshGrant | None = None
    refresh_at: float | None = None
    undelivered: Tokens | None = None
    final_error: OAuthError | None = None

    def is_due(self, now: float) -> bool:
        """Return whether the credential must be refreshed before the next request."""
        if self.grant is None:
            return False
        return self.credential is None or (self.refresh_at is not None and now >= self.refresh_at)

    def is_ready(self, now: float) -> bool:
        """Return whether the credential can be sent without waiting for anything."""
        return not self.is_due(now) and self.undelivered is None and self.final_error is None

    def credential_to_send(self) -> Credential:
        """Return the credential. Raises ConfigurationError if there is none: only calls that need one fail."""
        if self.credential is None:
            raise missing_credential()
        return self.credential

    def with_tokens(self, tokens: Tokens, now: float) -> "TokenState":
        """Return the state after *tokens* were received."""
        grant = self.grant
        if grant is not None and tokens.refresh_token is not None:
            grant = replace(grant, refresh_token=tokens.refresh_token)
        return TokenState(Credential(tokens.access_token), grant, _refresh_at(tokens, now), undelivered=tokens)

    def with_stored(self, stored: StoredTokens, now: float) -> "TokenState":
        """Return the state after *stored* tokens were loaded: the same one unless they are others."""
        grant, credential = self.grant, self.credential
        if grant is None or grant.refresh_token == stored.refresh_token:
            return self
        access_token = stored.access_token
        end = None if access_token is None else expiry_of(access_token)
        if stored.expires_at is not None:
            end = stored.expires_at.timestamp()
        credential = None if access_token is None else Credential(access_token)
        refresh_at = None if end is None else end - min(EARLY_SECONDS, max(0.0, (end - now) / 2))
        return TokenState(credential, replace(grant, refresh_token=stored.refresh_token), refresh_at)


def token_state_from(
    api_key: str | None,
    access_token: str | None,
    environment: Mapping[str, str],
    *,
    refresh_token: str | None,
    client_id: str | None,
    client_secret: str | None,
    dpop_key: DPoPKey | None = None,
    can_load: bool = False,
) -> TokenState:
    """Return the initial state of a client. Raises ConfigurationError for arguments that contradict each other."""
    if dpop_key is not None and access_token is None and refresh_token is None and not can_load and api_key is not None:
        raise ConfigurationError("Both api_key and dpop_key are given; only access tokens are bound to a key.")
    if refresh_token is None and not can_load:
        return TokenState(credential_from(api_key, access_token, environment))
    name = "load_tokens" if refresh_token is None else "refresh_token"
    if api_key is not None:
        raise ConfigurationError(f"Both api_key and {name} are given; a key is never refreshed.")
    if client_id is None:
        raise ConfigurationError(
            f"{name} is given without client_id; pass the client_id that it was issued to, "
            "and its client_secret if it has one."
        )
    try:
        if refresh_token is not None:
            require_text("refresh_token", refresh_token)
        grant = RefreshGrant(Application(client_id, client_secret, dpop_key), refresh_token)
    except InvalidArgumentError as exc:
        raise ConfigurationError(str(exc)) from None
    if access_token is None:
        return TokenState(None, grant)
    end = expiry_of(access_token)
    return TokenState(credential_from(None, access_token, {}), grant, None if end is None else end - EARLY_SECONDS)


def missing_refresh_token() -> ConfigurationError:
    """Return the error of a call that needs tokens when none are stored."""
    return ConfigurationError("load_tokens returned None, and there is no refresh_token: the user has to sign in.")


def copy_error(error: Exception) -> Exception:
    """Return a copy of *error* to raise again, so that tracebacks do not grow. Foreign errors are not copied."""
    return copy.copy(error) if isinstance(error, MachPayError) else error


def _refresh_at(tokens: Tokens, now: float) -> float | None:
    """Return when to refresh *tokens*, received *now*, or None if their expiry is unknown.

    Short-lived tokens are refreshed after half of their lifetime, so that not every call starts with a refresh. An
    expiry in the past means that the clocks differ, and is ignored.
    """
    end = expiry_of(tokens.access_token) if tokens.expires_in is None else now + tokens.expires_in
    if end is None or end <= now:
        return None
    return end - min(EARLY_SECONDS, (end - now) / 2)
