"""What a client holds to be let in: a credential, perhaps the way to another, and how long the first will do."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from machpay._credential import Credential, credential_from, missing_credential
from machpay._oauth import given
from machpay._token_request import Application
from machpay._tokens import Tokens, end_of
from machpay.errors import ConfigurationError, InvalidArgumentError, MachPayError, OAuthError

EARLY_SECONDS = 30.0  # a token that ends on its way would be refused


@dataclass(frozen=True, slots=True)
class Grant:
    """How to get another access token."""

    application: Application
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """A moment's state. *due_at* is since the epoch, None when no end is known.

    *unsaved* are tokens that nobody has taken yet; *ended* is why there will be no others.
    """

    credential: Credential | None
    grant: Grant | None = None
    due_at: float | None = None
    unsaved: Tokens | None = None
    ended: OAuthError | None = None

    def is_due(self, now: float) -> bool:
        """Return whether another credential is to be fetched before anything is sent."""
        if self.grant is None:
            return False
        return self.credential is None or (self.due_at is not None and now >= self.due_at)

    def is_ready(self, now: float) -> bool:
        """Return whether the credential may be sent as things are."""
        return not self.is_due(now) and self.unsaved is None and self.ended is None

    def credential_to_send(self) -> Credential:
        """Return the credential. To have none matters to the first call that needs one, and to nobody before."""
        if self.credential is None:
            raise missing_credential()
        return self.credential

    def renewed(self, tokens: Tokens, now: float) -> "Held":
        """Return what is held once *tokens* have been received."""
        grant = self.grant
        if grant is not None and tokens.refresh_token is not None:
            grant = replace(grant, refresh_token=tokens.refresh_token)
        return Held(Credential(tokens.access_token), grant, _due_at(tokens, now), unsaved=tokens)


def held_from(
    api_key: str | None,
    access_token: str | None,
    environment: Mapping[str, str],
    *,
    refresh_token: str | None,
    client_id: str | None,
    client_secret: str | None,
) -> Held:
    """Return what a client begins with. What cannot be meant is refused."""
    if refresh_token is None:
        return Held(credential_from(api_key, access_token, environment))
    if api_key is not None:
        raise ConfigurationError("Both api_key and refresh_token are given; a key is never refreshed.")
    if client_id is None:
        raise ConfigurationError(
            "refresh_token is given without client_id; pass the client_id that it was issued to, "
            "and its client_secret if it has one."
        )
    try:
        grant = Grant(Application(client_id, client_secret), given("refresh_token", refresh_token))
    except InvalidArgumentError as exc:
        raise ConfigurationError(str(exc)) from None
    if access_token is None:
        return Held(None, grant)
    end = end_of(access_token)
    return Held(credential_from(None, access_token, {}), grant, None if end is None else end - EARLY_SECONDS)


def again(error: Exception) -> Exception:
    """Return *error* to be raised once more, without the traceback of the first time where it is one of ours."""
    return copy.copy(error) if isinstance(error, MachPayError) else error


def _due_at(tokens: Tokens, now: float) -> float | None:
    """Return when *tokens*, received *now*, are to be followed by others.

    Half of a short life is left, so that not every call begins with a refresh. An end that has passed already is one
    by another clock than ours, and no end to go by.
    """
    end = end_of(tokens.access_token) if tokens.expires_in is None else now + tokens.expires_in
    if end is None or end <= now:
        return None
    return end - min(EARLY_SECONDS, (end - now) / 2)
