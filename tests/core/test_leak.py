"""Reports of leaked secrets: signatures and parsing."""

import base64

import orjson
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.scanner import is_signature_of, parse_scanner_keys, parse_signature
from machpay_gateway.core.jose.token import VerifyingKey, VerifyingKeys
from machpay_gateway.core.keys.leak import LeakMatch, LeakSettings, parse_report

# The sample of GitHub's own documentation: github/docs, "Secret scanning partner program", validation in Python.
GITHUBS_KEY = """-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE9MJJHnMfn2+H4xL4YaPDA4RpJqUq
kCmRCBnYERxZanmcpzQSXs1X/AljlKkbJ8qpVIW4clayyef9gWhFbNHWAA==
-----END PUBLIC KEY-----"""
GITHUBS_KEY_ID = "90a421169f0a406205f1563a953312f0be898d3c7b6c06b681aa86a874555f4a"
GITHUBS_REPORT = b'[{"token":"some_token","type":"some_type","url":"some_url"}]'
GITHUBS_SIGNATURE = "MEUCIQDKZokqnCjrRtw0tni+2Ltvl/uiMJ1EGumEsp1BsNr32AIgQY1YXD2nlj+XNfGK4rBfkMJ1JDOQcYXxa2sY8FNkrKc="


def published(*keys: object) -> bytes:
    return orjson.dumps({"public_keys": list(keys)})


def keys_in(document: bytes) -> VerifyingKeys:
    keys = parse_scanner_keys(document)
    assert isinstance(keys, VerifyingKeys), keys
    return keys


GITHUBS = published({"key_identifier": GITHUBS_KEY_ID, "key": GITHUBS_KEY, "is_current": True})


def pem(curve: ec.EllipticCurve) -> tuple[ec.EllipticCurvePrivateKey, str]:
    private = ec.generate_private_key(curve)
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return private, private.public_key().public_bytes(encoding, form).decode()


def refusal(result: object) -> str:
    """Return the reason of a refusal; a parsed result, whose repr may contain the same words, is a failure."""
    assert isinstance(result, str), result
    return result


def is_signed(report: bytes, signature: str, key: VerifyingKey) -> bool:
    """Return whether *signature* is one, and by *key*."""
    made = parse_signature(signature)
    return made is not None and is_signature_of(report, made, key)


def test_the_documented_sample_is_signed_by_its_key() -> None:
    (key,) = keys_in(GITHUBS).keys
    assert key.kid == GITHUBS_KEY_ID
    assert is_signed(GITHUBS_REPORT, GITHUBS_SIGNATURE, key)


@pytest.mark.parametrize(
    "report, signature",
    [
        (GITHUBS_REPORT + b" ", GITHUBS_SIGNATURE),  # of the bytes as they were sent, not of what they mean
        (GITHUBS_REPORT, ""),
        (GITHUBS_REPORT, "not base64!"),
        (GITHUBS_REPORT, base64.b64encode(b"\x30\x06\x02\x01\x00\x02\x01\x00").decode()),  # r = s = 0
        (GITHUBS_REPORT, base64.b64encode(bytes(64)).decode()),  # as JWS has it, which is not DER
        (GITHUBS_REPORT, GITHUBS_SIGNATURE[:-4]),
    ],
)
def test_anything_else_is_not_signed(report: bytes, signature: str) -> None:
    (key,) = keys_in(GITHUBS).keys
    assert not is_signed(report, signature, key)


def test_another_key_of_the_scanner_does_not_stand_for_the_one_that_signed() -> None:
    private, other = pem(ec.SECP256R1())
    (key,) = keys_in(published({"key_identifier": "other", "key": other})).keys
    assert not is_signed(GITHUBS_REPORT, GITHUBS_SIGNATURE, key)
    assert is_signed(b"[]", base64.b64encode(private.sign(b"[]", ec.ECDSA(hashes.SHA256()))).decode(), key)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"public_keys": {}}',
        b'{"public_keys": []}',
        b'{"public_keys": [1]}',
        b'{"public_keys": [{}]}',
    ],
)
def test_a_document_without_keys_has_none(document: bytes) -> None:
    assert isinstance(parse_scanner_keys(document), str)


def test_unusable_keys_are_skipped() -> None:
    unusable = (
        {"key_identifier": "p384", "key": pem(ec.SECP384R1())[1]},
        {"key_identifier": "junk", "key": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"},
        {"key_identifier": "text", "key": 1},
    )
    keys = keys_in(published(*unusable, {"key_identifier": "good", "key": GITHUBS_KEY}))
    assert [key.kid for key in keys.keys] == ["good"]
    assert len(keys.unusable) == 3
    assert "no usable key" in refusal(parse_scanner_keys(published(*unusable)))


@pytest.mark.parametrize(
    "report, expected",
    [
        (GITHUBS_REPORT, (LeakMatch("some_token", "some_type", "some_url", ""),)),
        (b"[]", ()),
        (b'[{"token":"t","type":"k","url":"","source":"commit"}]', (LeakMatch("t", "k", "", "commit"),)),
        (b'[{"token":1}]', None),
        (b"[1]", None),
        (b"{}", None),
        (b"[", None),
    ],
)
def test_a_report_is_a_list_of_matches_or_nothing(report: bytes, expected: tuple[LeakMatch, ...] | None) -> None:
    assert parse_report(report) == expected


def test_a_match_does_not_show_its_secret() -> None:
    assert "some_token" not in repr(parse_report(GITHUBS_REPORT))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"keys": "http://scanner.example.com/keys"}, "https URL"),
        ({"keys": ""}, "https URL"),
        ({"keys": 1}, "https URL"),
        ({"keys": "https://user:word@scanner.example.com/keys"}, "https URL"),
        ({"action": "ignore"}, "'ignore' does not exist: use revoke or alert"),
    ],
)
def test_an_invalid_setting_is_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as refused:
        LeakSettings(**settings)  # type: ignore[arg-type] # as TOML has it
    assert "word" not in str(refused.value)
