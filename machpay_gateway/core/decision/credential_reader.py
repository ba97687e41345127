"""The credential of a request, wherever the settings allow it: every front reads it by `CredentialReader`.

The result has the form of Authorization's values, which `parse_authorization` parses. So the gate does not depend on
where the credential was.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from machpay_gateway.core.decision.challenge import Challenge, challenge_of
from machpay_gateway.core.decision.credential import CONFLICTING, BoundToken, parse_authorization
from machpay_gateway.core.decision.credential_settings import AUTHORIZATION, PROTOCOL_PREFIX, CredentialSettings
from machpay_gateway.core.decision.reason import Reason

PROTOCOLS = b"sec-websocket-protocol"
_PREFIX = PROTOCOL_PREFIX.encode()
_CONFLICT = (CONFLICTING,)

Field = tuple[bytes, bytes]  # of a header, the name in lower case


@dataclass(frozen=True, slots=True)
class CredentialReader:
    """Reads credentials as *settings* say.

    *headers* are the headers to pass to `read`, in lower case; *tokens* those of them with the credential alone;
    *query* is the parameter's name; *challenge* tells callers without a credential where it belongs.
    """

    settings: CredentialSettings = field(default_factory=CredentialSettings)
    headers: frozenset[bytes] = field(init=False, repr=False, compare=False)
    tokens: frozenset[bytes] = field(init=False, repr=False, compare=False)
    query: bytes | None = field(init=False, repr=False, compare=False)
    challenge: Challenge = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        settings = self.settings
        tokens = frozenset(name.lower().encode() for name in settings.other_headers)
        headers = {*tokens, *([PROTOCOLS] if settings.subprotocol else [])}
        if settings.takes_authorization:
            headers.add(AUTHORIZATION.lower().encode())
        object.__setattr__(self, "headers", frozenset(headers))
        object.__setattr__(self, "tokens", tokens)
        object.__setattr__(self, "query", None if settings.query is None else settings.query.encode())
        object.__setattr__(self, "challenge", challenge_of(settings))

    def read(self, authorization: tuple[bytes, ...], fields: Iterable[Field]) -> tuple[bytes, ...]:
        """Return the credential in *authorization*, the values of that header, and in the other *fields*."""
        places: dict[bytes, tuple[bytes, ...]] = {}
        for name, value in fields:
            if name in self.tokens:
                places[name] = (*places.get(name, ()), value.strip(b" \t"))
            elif name == PROTOCOLS and name in self.headers and (parts := split_protocols(value)) is not None:
                places[name] = (*places.get(name, ()), *parts[1])
        for tokens in places.values():
            authorization = combine(authorization, tokens)
        return authorization


def combine(authorization: tuple[bytes, ...], tokens: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the credential that *authorization* and the *tokens* of another place are together.

    The same credential in both is one. A place with more than one value is malformed, as with Authorization itself.
    """
    if len(tokens) > 1:
        return tokens
    if not tokens or not tokens[0] or len(authorization) > 1:
        return authorization
    bearer = (b"Bearer " + tokens[0],)
    if not authorization:
        return bearer
    credential = parse_authorization(authorization)
    if isinstance(credential, BoundToken):
        credential = credential.token
    if isinstance(credential, bytes):
        return authorization if credential == tokens[0] else _CONFLICT
    # Another scheme is no credential of ours (RFC 6750 §3.1), but a malformed header stays malformed.
    return bearer if credential.reason is Reason.MISSING_CREDENTIALS else authorization


def split_protocols(value: bytes) -> tuple[bytes, tuple[bytes, ...]] | None:
    """Return the subprotocols in *value* without those that hold a credential, and these credentials.

    None if there are none, so that *value* stays as it is.
    """
    if _PREFIX not in value:
        return None
    names = [name for part in value.split(b",") if (name := part.strip(b" \t"))]
    others = [name for name in names if not name.startswith(_PREFIX)]
    credentials = tuple(name.removeprefix(_PREFIX) for name in names if name.startswith(_PREFIX))
    return (b", ".join(others), credentials) if credentials else None


def split_query(query: bytes, name: bytes) -> tuple[bytes, tuple[bytes, ...]] | None:
    """Return *query* without the parameter *name*, and the parameter's decoded values; None if it is not there."""
    if name not in query and b"%" not in query:
        return None
    others, values = [], []
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        if _decode(key) == name:
            values.append(_decode(value))
        else:
            others.append(part)
    return (b"&".join(others), tuple(values)) if values else None


def without_credential(url: bytes, name: bytes) -> bytes | None:
    """Return *url* without the query parameter *name*; None if it has none, so that *url* stays as it is."""
    before, _, rest = url.partition(b"?")
    query, mark, fragment = rest.partition(b"#")
    parts = split_query(query, name)
    if parts is None:
        return None
    return before + (b"?" + parts[0] if parts[0] else b"") + mark + fragment


def _decode(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))
