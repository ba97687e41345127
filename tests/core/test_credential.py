import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.core.decision.credential import (
    MAX_AUTHORIZATION_BYTES,
    ApiKey,
    BoundToken,
    SignedToken,
    Unreadable,
    credential_of,
    parse_authorization,
)
from machpay_gateway.core.decision.reason import Reason
from machpay_gateway.core.keys.key import mint_secret

LIVE = mint_secret("live", bytes(32)).encode()
TEST = mint_secret("test", bytes(32)).encode()
MISSING, MALFORMED = Reason.MISSING_CREDENTIALS, Reason.MALFORMED_REQUEST


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer abc",
        b"bearer abc",
        b"BEARER abc",
        b"bEaReR abc",
        b"Bearer   abc",
        b"bearer   abc",
        b"Bearer abc ",  # RFC 9110 §5.5: whitespace around a value is no part of it
        b"Bearer abc\t \t",
        b"bearer abc\t",
        b" \tBearer abc",
        b"\tBearer   abc ",
    ],
)
def test_the_scheme_is_read_in_any_case_and_with_any_number_of_spaces(value: bytes) -> None:
    assert parse_authorization([value]) == b"abc"


@pytest.mark.parametrize("value", [b"DPoP abc", b"dpop abc", b"DPOP   abc", b"DPoP abc ", b"\tDPoP abc\t"])
def test_the_dpop_scheme_is_read_in_any_case(value: bytes) -> None:
    assert parse_authorization([value]) == BoundToken(b"abc")


@pytest.mark.parametrize("value", [b"DPoP", b"dpop "])
def test_the_dpop_scheme_without_a_token_is_no_credential(value: bytes) -> None:
    assert parse_authorization([value]) == BoundToken(b"")
    assert isinstance(credential_of(b""), Unreadable)


@pytest.mark.parametrize(
    "values, reason, why",
    [
        ([], MISSING, "nothing presented"),
        ([b""], MISSING, "an empty header presents nothing"),
        ([b"   "], MISSING, "blanks present nothing"),
        ([b"\t"], MISSING, "blanks present nothing"),
        (
            [b"Bearer abc", b"Bearer abc"],
            MALFORMED,
            "two headers, even the same: which one counts depends on who reads",
        ),
        ([b"", b""], MALFORMED, "two headers, even empty"),
        ([b"Basic dXNlcjpwYXNz"], MISSING, "an unsupported scheme is no authentication information (RFC 6750 §3.1)"),
        ([b"Basic"], MISSING, "as above, without anything after it"),
        ([b'Digest username="a", realm="b"'], MISSING, "as above, with parameters"),
        ([b"BearerX abc"], MISSING, "another scheme that starts alike"),
        ([b"Bearer\tabc"], MALFORMED, "a tab is no space"),
        ([b"Bearer\x00abc"], MALFORMED, "NUL after the scheme"),
        ([b"\xe2\x80\xafBearer abc"], MALFORMED, "a scheme is ASCII"),
        (
            [b"\x0bBearer abc"],
            MALFORMED,
            "of all blanks, only spaces and tabs may stand around a value (RFC 9110 §5.5)",
        ),
        ([b"\t "], MISSING, "as above"),
        ([b"Bearer=abc"], MALFORMED, "no space after the scheme"),
        ([b"Bearer " + b"A" * MAX_AUTHORIZATION_BYTES], MALFORMED, "over-long"),
        ([b"A" * (MAX_AUTHORIZATION_BYTES + 1)], MALFORMED, "over-long, whatever the scheme"),
    ],
)
def test_an_unusable_header_has_a_reason(values: list[bytes], reason: Reason, why: str) -> None:
    read = parse_authorization(values)
    assert isinstance(read, Unreadable), why
    assert read.reason is reason, why
    assert read.detail


def test_a_header_of_the_maximum_size_is_parsed() -> None:
    token = b"A" * (MAX_AUTHORIZATION_BYTES - len(b"Bearer "))
    assert parse_authorization([b"Bearer " + token]) == token


@pytest.mark.parametrize(
    "token, reason, why",
    [
        (b"", MALFORMED, "a scheme without a token"),
        (b"abc def", MALFORMED, "a space within"),
        (b"abc ", MALFORMED, "a space after"),
        (b"abc\x00", MALFORMED, "NUL"),
        (b"abc\n", MALFORMED, "a line end: `$` in a pattern would let it pass"),
        (b"abc,def", MALFORMED, "outside of token68"),
        (b'"abc"', MALFORMED, "quoted"),
        (b"=abc", MALFORMED, "padding comes last (RFC 9110 §11.2)"),
        (b"a=b", MALFORMED, "padding comes last"),
        (b"===", MALFORMED, "padding alone"),
        ("schlüssel".encode(), MALFORMED, "non-ASCII"),
        (b"\xff\xfe", MALFORMED, "no UTF-8 either"),
        (b"abc", Reason.INVALID_CREDENTIALS, "token68, and nothing of ours"),
        (b"abc==", Reason.INVALID_CREDENTIALS, "padding is token68"),
        (b"a.b", Reason.INVALID_CREDENTIALS, "two parts are no signed token"),
        (b"a.b.c.d", Reason.INVALID_CREDENTIALS, "four neither"),
        (b"a.b.c.d.e", Reason.INVALID_CREDENTIALS, "five are an encrypted one"),
        (LIVE[:-1], Reason.INVALID_CREDENTIALS, "a key that lost a character"),
        (LIVE[:-1] + b"!", MALFORMED, "a key with what is no token68"),
        (b"sk_" + b"." * 2, Reason.INVALID_CREDENTIALS, "starts as a key, so it is no signed token"),
        (LIVE.upper(), Reason.INVALID_CREDENTIALS, "keys are read as they are written"),
    ],
)
def test_a_token_of_no_valid_shape_has_a_reason(token: bytes, reason: Reason, why: str) -> None:
    read = credential_of(token)
    assert isinstance(read, Unreadable), why
    assert read.reason is reason, why


@pytest.mark.parametrize("token, environment", [(LIVE, "live"), (TEST, "test")])
def test_a_key_is_recognized_by_its_prefix_and_has_a_digest(token: bytes, environment: str) -> None:
    assert credential_of(token) == ApiKey(environment, hashlib.sha256(token).digest())


@pytest.mark.parametrize("token", [b"a.b.c", b"eyJ.eyJ.sig-_", b"a..", b".."])
def test_three_parts_are_a_signed_token(token: bytes) -> None:
    assert credential_of(token) == SignedToken(token, hashlib.sha256(token).digest())


def test_no_credential_is_in_a_repr() -> None:
    for credential in (credential_of(LIVE), credential_of(b"eyJ.eyJ.secret")):
        assert "secret" not in repr(credential)
        assert "digest" not in repr(credential)


@given(st.lists(st.binary(max_size=64), max_size=3))
def test_no_bytes_make_it_raise(values: list[bytes]) -> None:
    token = parse_authorization(values)
    if isinstance(token, bytes):
        credential_of(token)


@given(st.binary(max_size=60))
def test_junk_after_a_keys_prefix_is_never_a_key(junk: bytes) -> None:
    assert not isinstance(credential_of(b"sk_live_mp1_" + junk), ApiKey)
