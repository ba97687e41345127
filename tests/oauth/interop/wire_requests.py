"""Rows of the table: a request as it goes over the wire, and what has to be said of it.

Values may hold what only a server can fill in, in braces: `{code}` is a new code of the app `web`, `{native.id}` the id
of another app; all names are in `parties.py`. None leaves a parameter out, a tuple sends it more than once.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

from tests.oauth.harness import FORM

Values = Mapping[str, str | tuple[str, ...] | None]
FORM_TYPE = FORM["Content-Type"]
AS_IT_IS = "As-it-is"  # a scheme that is no other than Basic, for what is encoded already, or badly

# Reasons that several rows have.
METHOD = "What is there, but not by this method, is 405 (RFC 9110 §15.5.6)."
NO_CLIENT = "That no client is authenticated is invalid_client (RFC 6749 §5.2: no client authentication included)."
UNKNOWN_SCOPE = "An unknown scope is an invalid one (RFC 6749 §4.1.2.1 and §5.2), though a server may ignore it (§3.3)."


@dataclass(frozen=True)
class Asked:
    """A request to an *endpoint*. *body* is sent in the place of *values*, *tail* as it is after the *query*."""

    endpoint: str
    values: Values
    authorization: tuple[str, ...] = ()
    method: str = "POST"
    query: Values = field(default_factory=dict)
    content_type: str = FORM_TYPE
    body: str | None = None
    tail: str = ""


@dataclass(frozen=True)
class Row:
    """What is *said* to what is *asked*. The other server says the same, or *theirs*, and then *why* tells why."""

    claim: str
    outcome: str
    request: Asked
    theirs: str = ""
    why: str = ""


def authorize(
    claim: str, outcome: str, theirs: str = "", why: str = "", **changes: str | tuple[str, ...] | None
) -> Row:
    """Return a row about a good authorization request of the app `web`, with *changes*."""
    values: Values = {
        "client_id": "{web.id}",
        "redirect_uri": "{web.redirect_uri}",
        "response_type": "code",
        "scope": "skills:execute account:read",
        "state": "s-1",
        "code_challenge": "{challenge}",
        "code_challenge_method": "S256",
        **changes,
    }
    return Row(claim, outcome, Asked("authorize", {}, method="GET", query=values), theirs, why)


@dataclass(frozen=True)
class By:
    """How a client says who it is."""

    authorization: tuple[str, ...] = ()
    values: Values = field(default_factory=dict)


BASIC = By(("Basic {web.id} {web.secret}",))
POST = By(values={"client_id": "{web.id}", "client_secret": "{web.secret}"})
NATIVE = By(values={"client_id": "{native.id}"})
OTHER = By(("Basic {other.id} {other.secret}",))
MACHINE = By(("Basic {machine.id} {machine.secret}",))
NOBODY = By()


def token(
    claim: str,
    outcome: str,
    theirs: str = "",
    why: str = "",
    *,
    by: By = BASIC,
    **values: str | tuple[str, ...] | None,
) -> Row:
    """Return a row about a token request *by* a client."""
    return Row(claim, outcome, Asked("token", {**by.values, **values}, by.authorization), theirs, why)


def redeem(
    claim: str,
    outcome: str,
    theirs: str = "",
    why: str = "",
    *,
    by: By = BASIC,
    **changes: str | tuple[str, ...] | None,
) -> Row:
    """Return a row about a good exchange of a new code of the app `web`, with *changes*."""
    values: Values = {
        "grant_type": "authorization_code",
        "code": "{code}",
        "redirect_uri": "{web.redirect_uri}",
        "code_verifier": "{verifier}",
        **changes,
    }
    return token(claim, outcome, theirs, why, by=by, **values)


def written(pairs: Values) -> str:
    """Return *pairs* as a form has them."""
    return urlencode(
        [
            (name, value)
            for name, values in pairs.items()
            if values is not None
            for value in ((values,) if isinstance(values, str) else values)
        ]
    )


def header(authorization: str) -> str:
    """Return *authorization* as it is sent: put together as RFC 6749 §2.3.1 has it, or its parts as they are."""
    scheme, _, rest = authorization.partition(" ")
    name, space, secret = rest.partition(" ")
    if not space:
        return authorization
    pair = f"{name}:{secret}" if scheme == AS_IT_IS else f"{quote_plus(name)}:{quote_plus(secret)}"
    return f"Basic {b64encode(pair.encode()).decode()}"
