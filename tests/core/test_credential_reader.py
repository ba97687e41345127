"""One credential from all places that may have it, in the form of Authorization's values."""

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.decision.challenge import BEARER, challenge_of
from machpay_gateway.core.decision.credential import BoundToken, Unreadable, parse_authorization
from machpay_gateway.core.decision.credential_reader import (
    CredentialReader,
    combine,
    split_protocols,
    split_query,
    without_credential,
)
from machpay_gateway.core.decision.credential_settings import CredentialSettings
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.keys.key import mint_secret

KEY, OTHER = (mint_secret("live", bytes([number]) * 32).encode() for number in (1, 2))
MALFORMED, CONFLICTING, MISSING = (
    Reason.MALFORMED_REQUEST, Reason.CONFLICTING_CREDENTIALS, Reason.MISSING_CREDENTIALS
)  # fmt: skip
READER = CredentialReader(CredentialSettings(["Authorization", "X-API-Key", "Api-Token"]))
PROTOCOLS = b"sec-websocket-protocol"


def basic(user: bytes, password: bytes = b"") -> bytes:
    """Return an Authorization value."""
    return b"Basic " + b64encode(user + b":" + password)


def read(authorization: list[bytes], *fields: tuple[bytes, bytes]) -> bytes | Reason:
    """Return the token of a request with these headers, or the reason why there is none."""
    token = parse_authorization(READER.read(tuple(authorization), fields))
    assert not isinstance(token, BoundToken)
    return token.reason if isinstance(token, Unreadable) else token


@pytest.mark.parametrize(
    "authorization, fields, expected",
    [
        ([], [(b"x-api-key", KEY)], KEY),
        ([], [(b"x-api-key", b" \t" + KEY + b" ")], KEY),  # blanks are no part of a value (RFC 9110 §5.5)
        ([], [(b"api-token", KEY)], KEY),
        ([], [(b"x-other", KEY)], MISSING),
        ([], [(b"x-api-key", b"")], MISSING),
        ([], [(b"x-api-key", b"Bearer " + KEY)], b"Bearer " + KEY),  # no key: the gate refuses its shape
        ([], [(b"x-api-key", KEY), (b"x-api-key", KEY)], MALFORMED),  # as two Authorization headers are
        ([], [(b"x-api-key", KEY), (b"x-api-key", OTHER)], MALFORMED),
        ([], [(b"x-api-key", KEY), (b"api-token", KEY)], KEY),
        ([], [(b"x-api-key", KEY), (b"api-token", OTHER)], CONFLICTING),
        ([], [(b"x-api-key", KEY), (b"api-token", OTHER), (PROTOCOLS, b"machpay.bearer." + KEY)], CONFLICTING),
        ([b"Bearer " + KEY], [(b"x-api-key", KEY)], KEY),
        ([b"bearer  " + KEY], [(b"x-api-key", KEY)], KEY),
        ([b"Bearer " + KEY], [(b"x-api-key", OTHER)], CONFLICTING),
        ([b"Bearer " + KEY], [(b"x-api-key", b"")], KEY),
        ([b"Bearer " + KEY, b"Bearer " + KEY], [(b"x-api-key", KEY)], MALFORMED),
        ([b""], [(b"x-api-key", KEY)], KEY),
        ([b'Digest username="a"'], [(b"x-api-key", KEY)], KEY),  # of another system (RFC 6750 §3.1)
        ([basic(b"user", b"password")], [(b"x-api-key", KEY)], KEY),
        ([basic(KEY)], [(b"x-api-key", KEY)], KEY),
        ([basic(KEY)], [(b"x-api-key", OTHER)], CONFLICTING),
        ([b"DPoP " + OTHER], [(b"x-api-key", KEY)], CONFLICTING),
        ([b"\x00"], [(b"x-api-key", KEY)], MALFORMED),
        ([], [(PROTOCOLS, b"chat, machpay.bearer." + KEY + b", v2")], KEY),
        ([], [(PROTOCOLS, b"chat"), (PROTOCOLS, b"machpay.bearer." + KEY)], KEY),
        ([], [(PROTOCOLS, b"chat, v2")], MISSING),
        ([], [(PROTOCOLS, b"machpay.bearer.")], MISSING),
        ([], [(PROTOCOLS, b"machpay.bearer." + KEY + b", machpay.bearer." + OTHER)], MALFORMED),
        ([b"Bearer " + KEY], [(PROTOCOLS, b"machpay.bearer." + OTHER)], CONFLICTING),
    ],
)
def test_a_request_has_one_credential(
    authorization: list[bytes], fields: list[tuple[bytes, bytes]], expected: bytes | Reason
) -> None:
    assert read(authorization, *fields) == expected


@pytest.mark.parametrize(
    "value, expected",
    [
        (basic(KEY), KEY),
        (b"basic " + basic(KEY)[6:], KEY),
        (basic(b"a.b.c"), b"a.b.c"),
        (basic(KEY[:-1]), KEY[:-1]),  # a mistyped key, which the gate refuses
        (basic(b"user"), b"user"),  # which may be a credential of the application
        (basic(KEY, b"x"), MISSING),
        (basic(b"user", b"password"), MISSING),
        (basic(b""), MISSING),
        (b"Basic " + b64encode(KEY), MISSING),  # RFC 7617 §2 requires the colon
        (b"Basic !", MISSING),
        (b"Basic", MISSING),
    ],
)
def test_basic_has_the_key_as_user_name_and_no_password(value: bytes, expected: bytes | Reason) -> None:
    assert read([value]) == expected


@pytest.mark.parametrize(
    "query, expected",
    [
        (b"api_key=K", (b"", (b"K",))),
        (b"a=1&api_key=K&b=%20", (b"a=1&b=%20", (b"K",))),
        (b"api%5Fkey=K", (b"", (b"K",))),
        (b"%61pi_key=%4B%2B+", (b"", (b"K+ ",))),
        (b"api_key=K&api_key=L", (b"", (b"K", b"L"))),
        (b"api_key", (b"", (b"",))),
        (b"API_KEY=K", None),
        (b"my_api_key=K", None),
        (b"a=api_key=K", None),
        (b"", None),
    ],
)
def test_the_query_is_split_as_servers_split_it(query: bytes, expected: tuple[bytes, tuple[bytes, ...]] | None) -> None:
    assert split_query(query, b"api_key") == expected


@pytest.mark.parametrize(
    "url, expected",
    [
        (b"https://a.example/p?api_key=K&x=1#f", b"https://a.example/p?x=1#f"),
        (b"/p?api_key=K", b"/p"),
        (b"/p?x=1", None),
        (b"/p#?api_key=K", b"/p#"),  # a fragment is not for servers, but may be there
    ],
)
def test_a_url_loses_the_credential_alone(url: bytes, expected: bytes | None) -> None:
    assert without_credential(url, b"api_key") == expected


@given(st.binary(max_size=40), st.lists(st.binary(max_size=40), max_size=3), st.binary(max_size=40))
def test_no_bytes_make_it_raise(value: bytes, authorization: list[bytes], query: bytes) -> None:
    READER.read(tuple(authorization), [(b"x-api-key", value), (PROTOCOLS, b"machpay.bearer." + value)])
    combine(tuple(authorization), (value,))
    split_protocols(value)
    without_credential(query, b"k")


@pytest.mark.parametrize(
    "settings, expected",
    [
        (CredentialSettings(), BEARER),
        (
            CredentialSettings(["authorization", "X-API-Key"], "key"),
            (
                "Bearer",
                "Send an API key or a token as `Authorization: Bearer …`, `X-API-Key: …` or the query parameter `key`.",
                (),
            ),
        ),
        (
            CredentialSettings(["X-API-Key"]),
            ("ApiKey", "Send an API key or a token as `X-API-Key: …`.", ('header="X-API-Key"',)),
        ),
        (
            CredentialSettings([], "api_key"),
            ("ApiKey", "Send an API key or a token as the query parameter `api_key`.", ('query="api_key"',)),
        ),
    ],
)
def test_the_challenge_says_where_a_credential_belongs(
    settings: CredentialSettings, expected: tuple[object, ...]
) -> None:
    assert challenge_of(settings) == expected


@pytest.mark.parametrize(
    "options, message",
    [
        ({"headers": ["X API Key"]}, "'X API Key' is not the name of a header"),
        ({"headers": ["Cookie"]}, "'Cookie' has another meaning"),
        ({"headers": ["X-Forwarded-For"]}, "another meaning"),
        ({"headers": ["X-MachPay-Key"]}, "another meaning"),
        ({"headers": ["Sec-WebSocket-Protocol"]}, "another meaning"),
        ({"headers": ["Proxy-Authorization"]}, "another meaning"),
        ({"headers": ["X-API-Key", "x-api-key"]}, "names a header twice"),
        ({"headers": [1]}, "is a list of header names"),
        ({"headers": []}, "headers is empty, and no query is set"),
        ({"query": "api key"}, "is not the name of a query parameter"),
        ({"query": 1}, "is not the name of a query parameter"),
        ({"subprotocol": "yes"}, "subprotocol is true or false"),
    ],
)
def test_a_wrong_setting_names_the_way_out(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CredentialSettings(**options)  # type: ignore[arg-type]  # as TOML has any type
