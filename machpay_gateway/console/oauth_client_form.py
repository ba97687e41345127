"""An app's settings as people write them into a form: kept as they were written until all of it is right."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

from machpay_gateway.console.form_choices import Note, check_environment, limited
from machpay_gateway.console.forms import FieldErrors, Form
from machpay_gateway.core.errors import InputError
from machpay_gateway.core.keys.validation import validate_name
from machpay_gateway.core.oauth.client import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    REFRESH_TOKEN,
    SELF_REGISTERED_GRANT_TYPES,
    OAuthClient,
    checked_app_scopes,
    checked_grant_types,
)
from machpay_gateway.core.oauth.redirect_uri import MAX_URIS, RedirectError, checked_redirect_uris

CONFIDENTIAL, PUBLIC = KINDS = ("confidential", "public")
KIND_WORDS = {
    CONFIDENTIAL: "runs on a server of yours, where it keeps a secret",
    PUBLIC: "runs with its users, in a browser or on a phone, and has no secret",
}
GRANT_WORDS = {
    AUTHORIZATION_CODE: "it acts for users, who sign in and allow it",
    REFRESH_TOKEN: "it goes on for them without asking again",
    CLIENT_CREDENTIALS: "it calls for itself, without a user",
}


class GrantChoice(NamedTuple):
    """A grant type that an app may ask by: its name, what it is for, and whether it is ticked."""

    name: str
    words: str
    is_ticked: bool


@dataclass(frozen=True, slots=True)
class OAuthClientForm:
    """What was written, and the *mistakes* in it. *redirects* are URIs, each on a line of its own."""

    name: str = ""
    environment: str = "live"
    kind: str = CONFIDENTIAL
    scopes: Collection[str] = ()
    redirects: str = ""
    grant_types: Collection[str] = (AUTHORIZATION_CODE, REFRESH_TOKEN)
    is_pkce_ticked: bool = True
    binds_tokens: bool = False
    is_self_registered: bool = False
    mistakes: FieldErrors = field(default_factory=FieldErrors)

    @classmethod
    def of(cls, form: Form) -> Self:
        """Return what was sent."""
        return cls(
            name=form.text("name"),
            environment=form.text("environment"),
            kind=form.text("kind"),
            scopes=form.all("scopes"),
            redirects=form.text("redirect_uris"),
            grant_types=form.all("grant_types"),
            is_pkce_ticked=bool(form.text("pkce")),
            binds_tokens=bool(form.text("dpop")),
        )

    @classmethod
    def about(cls, client: OAuthClient) -> Self:
        """Return what the form of an app that is there begins with."""
        return cls(
            name=client.name,
            environment=client.environment,
            kind=PUBLIC if client.is_public else CONFIDENTIAL,
            scopes=list(client.scopes),
            redirects="\n".join(client.redirect_uris),
            grant_types=client.grant_types,
            is_pkce_ticked=client.requires_pkce,
            binds_tokens=client.binds_tokens,
            is_self_registered=client.is_self_registered,
        )

    @property
    def is_public(self) -> bool:
        """Whether it is to be without a secret."""
        return self.kind == PUBLIC

    @property
    def requires_pkce(self) -> bool:
        """Whether its codes are bound to who asked for them: those of a public app always are."""
        return self.is_pkce_ticked or self.is_public

    @property
    def uris(self) -> list[str]:
        """The redirect URIs one by one: none has a blank in it."""
        return self.redirects.split()

    def check(self, grantable: Collection[str]) -> None:
        """Note every mistake. *grantable* are the scopes that apps may have."""
        with self.mistakes.of("name"):
            validate_name(self.name)
        with self.mistakes.of("environment"):
            check_environment(self.environment)
        with self.mistakes.of("kind"):
            if self.kind not in KINDS:
                raise InputError("Choose confidential or public.")
        with self.mistakes.of("scopes"):
            checked_app_scopes(self.scopes, grantable)
        with self.mistakes.of("redirect_uris"):
            checked_redirect_uris(self.uris)
        with self.mistakes.of("grant_types"):
            self._check_grant_types()

    def grant_choices(self) -> list[GrantChoice]:
        """Return every grant type that it may have."""
        offered = SELF_REGISTERED_GRANT_TYPES if self.is_self_registered else GRANT_WORDS
        return [GrantChoice(name, GRANT_WORDS[name], name in self.grant_types) for name in offered]

    def _check_grant_types(self) -> None:
        try:
            checked_grant_types(
                self.grant_types,
                is_public=self.is_public,
                redirect_uris=self.uris,
                is_self_registered=self.is_self_registered,
            )
        except RedirectError:
            with self.mistakes.of("redirect_uris"):  # told where they are written
                raise


def redirect_notes(uris: Sequence[str]) -> list[Note]:
    """Return what to say of *uris* while they are typed."""
    return limited(_notes(uris), len(uris), MAX_URIS)


def _notes(uris: Sequence[str]) -> Iterator[Note]:
    for uri in uris:
        try:
            yield Note(checked_redirect_uris([uri])[0], is_right=True)
        except RedirectError as exc:
            yield Note(str(exc), is_right=False)
