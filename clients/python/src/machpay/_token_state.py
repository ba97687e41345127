"""The state of a client's credential: the credential, how to refresh it, and when."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from machpay._credential import Credential, credential_from, missing_credential
from machpay._oauth import require_text
from machpay._token_request import Application
from machpay._tokens import Tokens, expiry_of
from machpay.errors import ConfigurationError, InvalidArgumentError, MachPayError, OAuthError

EARLY_SECONDS = 30.0  # a token that expires in transit would be refused


@dataclass(frozen=True, slots=True)
class RefreshGrant:
    """What it takes to get another access token."""

    application: Application
    refresh_token: str = field(repr=False)


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


def token_state_from(
    api_key: str | None,
    access_token: str | None,
    environment: Mapping[str, str],
    *,
    refresh_token: str | None,
    client_id: str | None,
    client_secret: str | None,
) -> TokenState:
    """Return the initial state of a client. Raises ConfigurationError for arguments that contradict each other."""
    if refresh_token is None:
        return TokenState(credential_from(api_key, access_token, environment))
    if api_key is not None:
        raise ConfigurationError("Both api_key and refresh_token are given; a key is never refreshed.")
    if client_id is None:
        raise ConfigurationError(
            "refresh_token is given without client_id; pass the client_id that it was issued to, "
            "and its client_secret if it has one."
        )
    try:
        grant = RefreshGrant(Application(client_id, client_secret), require_text("refresh_token", refresh_token))
    except InvalidArgumentError as exc:
        raise ConfigurationError(str(exc)) from None
    if access_token is None:
        return TokenState(None, grant)
    end = expiry_of(access_token)
    return TokenState(credential_from(None, access_token, {}), grant, None if end is None else end - EARLY_SECONDS)


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
