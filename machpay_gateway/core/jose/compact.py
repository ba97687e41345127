"""Strict parsing of signed tokens, before any key is needed (RFC 7515 §7.1, RFC 7519 §7.2, RFC 8725 §2.4).

A token that two parsers read differently can fool one of them: a second `sub`, a stray `=`, an ignored `crit`. Only
unambiguous tokens are accepted, in time that is linear in a bounded size. This module knows no key, issuer or time.
"""

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

MAX_TOKEN_BYTES = 8 * 1024  # half of what an Authorization header may have
MAX_DEPTH = 10  # Keycloak's claims nest five levels; Python's stack ends at about a thousand
MAX_KID_LENGTH = 256
_MAX_INTEGER_LENGTH = 20  # 64 bits, which some issuers use for ids; a NumericDate needs 12 digits
_MAX_NUMBER_LENGTH = 40
_PARTS = 3
# RFC 7515 §4.1.11: an extension in `crit` that is not implemented makes the token invalid, and none is implemented.
# `zip` belongs to JWE, and `b64` (RFC 7797 §7) must not be used in a JWT.
_EXTENSIONS = ("crit", "zip", "b64")
# A string ends at its quote or at the end of the text: with a required quote, the rest of the text would be scanned
# again for each open quote.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class CompactToken:
    """A well-formed token. Its *claims* cannot be trusted until the signature is verified.

    *type* is the header's `typ` as a media type without its `application/`, in lower case.
    """

    algorithm: str
    kid: str | None
    type: str
    claims: Mapping[str, object] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    header: Mapping[str, object] = field(default_factory=dict, repr=False)


class _MalformedError(ValueError):
    """The token is malformed or ambiguous. Never leaves this module; its text has nothing of the token."""


def parse_compact(token: bytes) -> CompactToken | str:
    """Return *token* parsed, or the reason, for the log, why it is not a JWT."""
    if len(token) > MAX_TOKEN_BYTES:
        return f"token over {MAX_TOKEN_BYTES} bytes"
    parts = token.split(b".", _PARTS)
    if len(parts) != _PARTS or not all(parts):
        return "not three parts with something in each"
    try:
        header, claims = _json_object(_decode_part(parts[0])), _json_object(_decode_part(parts[1]))
        return _with_header(header, claims, token.rpartition(b".")[0], _decode_part(parts[2]))
    except _MalformedError as malformed:
        return str(malformed)


def media_type(typ: str) -> str:
    """Return *typ* for comparison: without `application/` (RFC 7515 §4.1.9) and in lower case."""
    prefix, slash, subtype = typ.lower().partition("/")
    return subtype if slash and prefix == "application" and "/" not in subtype else typ.lower()


def _with_header(
    header: dict[str, object], claims: dict[str, object], signing_input: bytes, signature: bytes
) -> CompactToken:
    # `jku`, `x5u`, `jwk` and `x5c` are ignored: a token must not name its own verification key (RFC 8725 §3.10).
    for name in _EXTENSIONS:
        if name in header:
            msg = f"header has {name}, an extension that is not implemented"
            raise _MalformedError(msg)
    algorithm, kid, typ = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str):
        raise _MalformedError("header alg is not a string")
    if "kid" in header and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        raise _MalformedError("header kid is not a string of bounded length")
    if not isinstance(typ, str):
        raise _MalformedError("header typ is not a string")
    kid_or_none = kid if isinstance(kid, str) else None
    return CompactToken(algorithm, kid_or_none, media_type(typ), claims, signing_input, signature, header)


def _decode_part(part: bytes) -> bytes:
    """Return the bytes that *part* encodes in canonical base64url.

    Encoding them again and comparing refuses everything else: other characters, padding, white space, and unused bits
    that are not zero (RFC 4648 §3.5).
    """
    try:
        raw = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError as exc:
        raise _MalformedError("a part is not base64url") from exc
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != part:
        raise _MalformedError("a part is not canonical base64url")
    return raw


def _json_object(raw: bytes) -> dict[str, object]:
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        raise _MalformedError("a part is not UTF-8") from exc
    _check_depth(text)
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:
            # A lone surrogate has no UTF-8 form: it would fail later, wherever the claim is written.
            json.dumps(value, ensure_ascii=False).encode()
    except _MalformedError:
        raise
    except ValueError as exc:
        raise _MalformedError("a part is not JSON") from exc
    if not isinstance(value, dict):
        raise _MalformedError("a part is not a JSON object")
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        mark = match[0]
        if mark in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                msg = f"JSON nested over {MAX_DEPTH} levels"
                raise _MalformedError(msg)
        elif mark in "]}":
            depth -= 1


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # RFC 7515 §4, RFC 7519 §4: names must be unique. Most parsers take the last one, but a proxy in front may have
    # checked the first.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _MalformedError("duplicate member in a JSON object")
    return members


def _integer(literal: str) -> int:
    if len(literal) > _MAX_INTEGER_LENGTH:
        raise _MalformedError("absurd number")
    return int(literal)


def _number(literal: str) -> float:
    if len(literal) > _MAX_NUMBER_LENGTH or not math.isfinite(value := float(literal)):
        raise _MalformedError("absurd number")
    return value


def _no_constant(_: str) -> NoReturn:
    raise _MalformedError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_int=_integer, parse_float=_number, parse_constant=_no_constant
)
