"""How a refusal says where the credential belongs: the challenge in WWW-Authenticate, and a sentence."""

from typing import NamedTuple

from machpay_gateway.core.decision.credential_settings import CredentialSettings


class Challenge(NamedTuple):
    """*scheme* and *parameters*, without the realm, are for WWW-Authenticate (RFC 9110 §11.6.1).

    *hint* is the detail of `missing_credentials`.
    """

    scheme: str
    hint: str
    parameters: tuple[str, ...] = ()


BEARER = Challenge("Bearer", "Send an API key or a token as `Authorization: Bearer …`.")


def challenge_of(settings: CredentialSettings) -> Challenge:
    """Return the challenge of a gateway that reads credentials as *settings* say.

    It never asks for Basic: browsers would open a dialog for a name and a password.
    """
    places = [f"`{name}: …`" for name in settings.other_headers]
    if settings.takes_authorization:
        places.insert(0, "`Authorization: Bearer …`")
    if settings.query is not None:
        places.append(f"the query parameter `{settings.query}`")
    *first, last = places
    hint = f"Send an API key or a token as {', '.join(first)}{' or ' if first else ''}{last}."
    if settings.takes_authorization:
        return Challenge(BEARER.scheme, hint)
    # RFC 9110 §15.5.2 requires a challenge, and no registered scheme is that of a key in a header of its own.
    where = f'header="{settings.headers[0]}"' if settings.headers else f'query="{settings.query}"'
    return Challenge("ApiKey", hint, (where,))
