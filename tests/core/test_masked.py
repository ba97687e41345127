"""What is cut short before it is logged, and what is left as it is."""

import os
from base64 import urlsafe_b64encode

import pytest

from machpay_gateway.core.keys.key import mint_secret
from machpay_gateway.core.oauth.opaque_token import OpaqueTokenKind, mint
from machpay_gateway.core.text import contains_secret, mask_secrets

SIGNED = ".".join(
    urlsafe_b64encode(part).rstrip(b"=").decode()
    for part in (b'{"alg":"ES256","typ":"JWT"}', b'{"sub":"user_1","exp":4070908800}', os.urandom(64))
)
ENCRYPTED = ".".join(
    urlsafe_b64encode(part).rstrip(b"=").decode()
    for part in (b'{"alg":"dir","enc":"A256GCM"}', b"", os.urandom(12), os.urandom(80), os.urandom(16))
)
SECRETS = {
    "a live key": mint_secret("live", os.urandom(32)),
    "a test key": mint_secret("test", os.urandom(32)),
    **{kind.name: mint(kind, os.urandom(32)) for kind in OpaqueTokenKind},
    "a signed token": SIGNED,
    "an encrypted token": ENCRYPTED,
}


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "/v1/{}/runs",
        "/v1/x;key={}",
        "/v1/a:{}@b",
        "ES256 {},{}",
    ],
)
def test_a_secret_is_masked(secret: str, around: str) -> None:
    text = around.replace("{}", secret)
    assert secret[12:] not in mask_secrets(text)
    assert secret.rpartition(".")[2][8:] not in mask_secrets(text)
    assert contains_secret(text)


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
@pytest.mark.parametrize("times", [1, 2, 3])
def test_an_escaped_secret_is_masked(secret: str, times: int) -> None:
    escaped = "".join(f"%{'25' * (times - 1)}{ord(char):02X}" for char in secret)
    assert mask_secrets(f"/v1/{escaped}/x") == mask_secrets(f"/v1/{secret}/x")
    partly = secret.replace("_", f"%{'25' * (times - 1)}5f").replace("e", f"%{'25' * (times - 1)}65")
    assert secret[12:] not in mask_secrets(f"/v1/{partly}/x")
    assert secret.rpartition(".")[2][8:] not in mask_secrets(f"/v1/{partly}/x")


@pytest.mark.parametrize(
    "text, shown",
    [
        ("postgresql://machpay:hunter2@db:5432/m", "postgresql://machpay:…@db:5432/m"),
        ("redis://:hunter2@127.0.0.1/0", "redis://:…@127.0.0.1/0"),
        ("redis://a:p@ss:w@127.0.0.1", "redis://a:…@127.0.0.1"),  # up to the last one, as libraries read it
    ],
)
def test_the_password_in_a_url_is_masked(text: str, shown: str) -> None:
    assert mask_secrets(f"it is {text} here") == f"it is {shown} here"


@pytest.mark.parametrize(
    "text",
    [
        "/v1/skills/execute",
        "http://127.0.0.1:9000/x@y",
        "postgresql://machpay@db/m",
        "/v1/eyewitness.tar.gz",
        "/files/report-2024.eyes.pdf",
        "/v1/a%20b%2Fc",
        "/v1/sk_live_…",  # cut already
        "key_01hzy3k9",
    ],
)
def test_text_without_secrets_is_unchanged(text: str) -> None:
    assert mask_secrets(text) == text
    assert not contains_secret(text)


@pytest.mark.parametrize("piece", ["ey", "ey.", "ey-", "eyaaaaaaaa.", "%25", "e", "aaaaaaaaaa.ey", "://a:", "://a:b@"])
def test_a_long_path_is_masked_in_linear_time(piece: str) -> None:
    # Within the test's time limit only if reading does not begin again at each letter: 1 MB squared is hours.
    assert isinstance(mask_secrets(piece * (1_000_000 // len(piece))), str)
