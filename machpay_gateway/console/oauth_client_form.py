"""The form of an OAuth client's settings: what was typed, kept as it is until all of it is valid."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from machpay_gateway.console.form_choices import LineCheck, limit_checks, validate_environment
from machpay_gateway.console.forms import FieldErrors, Form
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.validation import validate_name
from machpay_gateway.core.oauth.client import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    REFRESH_TOKEN,
    SELF_REGISTERED_GRANT_TYPES,
    OAuthClient,
    validate_client_scopes,
    validate_grant_types,
)
from machpay_gateway.core.oauth.redirect_uri import MAX_URIS, RedirectError, validate_redirect_uris
from machpay_gateway.core.scopes import DefinedScopes

CONFIDENTIAL, PUBLIC = "confidential", "public"
CLIENT_TYPES = {
    CONFIDENTIAL: "runs on your server and keeps a secret",
    PUBLIC: "runs in a browser or on a device, and has no secret",
}
_GRANT_TYPES = {
    AUTHORIZATION_CODE: "acts for users, who sign in and consent",
    REFRESH_TOKEN: "stays authorized without asking the user again",
    CLIENT_CREDENTIALS: "calls the API as itself, without a user",
}


class GrantTypeChoice(NamedTuple):
    """A checkbox of a grant type."""

    name: str
    description: str
    is_checked: bool


@dataclass(frozen=True, slots=True)
class OAuthClientForm:
    """The submitted values and their *errors*. *redirect_uris* has one URI per line."""

    name: str = ""
    environment: str = "live"
    kind: str = CONFIDENTIAL
    scopes: Collection[str] = ()
    redirect_uris: str = ""
    grant_types: Collection[str] = (AUTHORIZATION_CODE, REFRESH_TOKEN)
    is_pkce_checked: bool = True
    binds_tokens: bool = False
    is_self_registered: bool = False
    errors: FieldErrors = field(default_factory=FieldErrors)

    @classmethod
    def from_form(cls, form: Form) -> Self:
        """Return the submitted values."""
        return cls(
            name=form.text("name"),
            environment=form.text("environment"),
            kind=form.text("kind"),
            scopes=form.all("scopes"),
            redirect_uris=form.text("redirect_uris"),
            grant_types=form.all("grant_types"),
            is_pkce_checked=bool(form.text("pkce")),
            binds_tokens=bool(form.text("dpop")),
        )

    @classmethod
    def from_client(cls, client: OAuthClient) -> Self:
        """Return the current settings of an OAuth client."""
        return cls(
            name=client.name,
            environment=client.environment,
            kind=PUBLIC if client.is_public else CONFIDENTIAL,
            scopes=list(client.scopes),
            redirect_uris="\n".join(client.redirect_uris),
            grant_types=client.grant_types,
            is_pkce_checked=client.requires_pkce,
            binds_tokens=client.binds_tokens,
            is_self_registered=client.is_self_registered,
        )

    @property
    def is_public(self) -> bool:
        """Whether it has no client secret."""
        return self.kind == PUBLIC

    @property
    def requires_pkce(self) -> bool:
        """Whether authorization requests need PKCE. Those of public clients always do."""
        return self.is_pkce_checked or self.is_public

    @property
    def uris(self) -> list[str]:
        """The redirect URIs one by one: no URI contains white space."""
        return self.redirect_uris.split()

    def validate(self, grantable: DefinedScopes) -> None:
        """Collect all errors. *grantable* are the scopes that OAuth clients may have."""
        with self.errors.collect("name"):
            validate_name(self.name)
        with self.errors.collect("environment"):
            validate_environment(self.environment)
        with self.errors.collect("kind"):
            if self.kind not in CLIENT_TYPES:
                raise InputError("Choose confidential or public.")
        with self.errors.collect("scopes"):
            validate_client_scopes(self.scopes, grantable)
        with self.errors.collect("redirect_uris"):
            validate_redirect_uris(self.uris)
        with self.errors.collect("grant_types"):
            self._validate_grant_types()

    def grant_type_choices(self) -> list[GrantTypeChoice]:
        """Return every grant type that the client may use."""
        allowed = SELF_REGISTERED_GRANT_TYPES if self.is_self_registered else _GRANT_TYPES
        return [GrantTypeChoice(name, _GRANT_TYPES[name], name in self.grant_types) for name in allowed]

    def _validate_grant_types(self) -> None:
        try:
            validate_grant_types(
                self.grant_types,
                is_public=self.is_public,
                redirect_uris=self.uris,
                is_self_registered=self.is_self_registered,
            )
        except RedirectError:
            with self.errors.collect("redirect_uris"):  # shown beside the field that it is about
                raise


def check_uris(uris: Sequence[str]) -> list[LineCheck]:
    """Return the checks of *uris* while they are typed."""
    return limit_checks(_checks(uris), len(uris), MAX_URIS)


def _checks(uris: Sequence[str]) -> Iterator[LineCheck]:
    for uri in uris:
        try:
            yield LineCheck(validate_redirect_uris([uri])[0], is_valid=True)
        except RedirectError as exc:
            yield LineCheck(str(exc), is_valid=False)
