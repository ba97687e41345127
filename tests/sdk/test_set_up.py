import asyncio

import httpx2
import machpay
import pytest
from machpay._credential import credential_from, masked
from machpay._options import auth_url_from, base_url_from

from tests.sdk.conftest import Twin
from tests.sdk.scripted import MASKED, SECRET


@pytest.mark.parametrize(
    "secret, shown",
    [
        (SECRET, MASKED),
        ("sk_test_" + "x" * 20 + "wxyz", "sk_test_…wxyz"),
        ("acme_live_" + "x" * 20 + "wxyz", "acme_live_…wxyz"),  # of a brand
        ("sk_live_abc123...", "sk_live_…"),  # too short to show a part of
        ("a" * 40 + "last", "…last"),
        ("short", "…"),
        ("", "…"),
    ],
)
def test_how_a_credential_is_masked(secret: str, shown: str) -> None:
    assert masked(secret) == shown


@pytest.mark.parametrize(
    "api_key, access_token, environment, expected",
    [
        ("k", None, {}, "k"),
        ("k", None, {"MACHPAY_API_KEY": "e"}, "k"),
        (None, "t", {"MACHPAY_API_KEY": "e"}, "t"),
        (None, None, {"MACHPAY_API_KEY": "e"}, "e"),
    ],
)
def test_an_explicit_credential_beats_the_environment(
    api_key: str | None, access_token: str | None, environment: dict[str, str], expected: str
) -> None:
    credential = credential_from(api_key, access_token, environment)
    assert credential is not None
    assert credential.value == expected


@pytest.mark.parametrize(
    "api_key, access_token, environment, match",
    [
        ("k", "t", {}, "Both api_key and access_token"),
        ("", None, {"MACHPAY_API_KEY": "e"}, "api_key is empty"),
        (None, None, {"MACHPAY_API_KEY": "hidden\n"}, "^MACHPAY_API_KEY contains white space"),
        (None, "hiddén", {}, "^access_token contains"),
    ],
)
def test_a_credential_that_cannot_be_used_is_refused_without_showing_it(
    api_key: str | None, access_token: str | None, environment: dict[str, str], match: str
) -> None:
    with pytest.raises(machpay.ConfigurationError, match=match) as caught:
        credential_from(api_key, access_token, environment)
    assert "hidd" not in str(caught.value)


@pytest.mark.parametrize("variable", [None, ""])
async def test_the_first_call_that_needs_a_credential_names_the_variable(
    twin: Twin, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("MACHPAY_API_KEY", variable)
    client = twin.client(api_key=None)
    assert repr(client) == f"{twin.kind.__name__}(None, base_url={twin.url!r})"
    for _ in range(2):
        with pytest.raises(machpay.ConfigurationError, match="environment variable MACHPAY_API_KEY, or pass api_key"):
            await twin.resolve(client.whoami())
    assert twin.script.requests == []


def test_a_client_takes_key_and_address_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MACHPAY_API_KEY", SECRET)
    with machpay.MachPay() as client:
        assert repr(client) == f"MachPay({MASKED!r}, base_url='https://api.machpay.xyz')"
    monkeypatch.setenv("MACHPAY_BASE_URL", "https://sandbox.example.com/")
    with machpay.MachPay() as client:
        assert "base_url='https://sandbox.example.com'" in repr(client)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.example.com",
        "https://api.example.com:8443/gateway",
        "http://localhost:8000",
        "http://127.0.0.1",
        "http://127.255.0.9:1",
        "http://[::1]:8000",
    ],
)
def test_an_address_that_keeps_the_credential_safe_is_accepted(url: str) -> None:
    assert base_url_from(url + "/", {}) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example.com",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://[2001:db8::1]",
        "https://user:pass@api.example.com",
        "http://localhost@evil.example.com",
        "http://localhost:80@evil.example.com",
        "https://api.example.com/?a=b",
        "https://api.example.com/#a",
        "ftp://api.example.com",
        "api.example.com",
        "https://",
        "https://[::1",
        "",
    ],
)
def test_an_address_that_does_not_is_refused(url: str) -> None:
    with pytest.raises(machpay.ConfigurationError, match=r"^base_url ") as caught:
        base_url_from(url, {})
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    "auth_url, base_url, environment, expected",
    [
        ("https://a.example", "https://b.example", {"MACHPAY_AUTH_URL": "https://c.example"}, "https://a.example"),
        (None, "https://b.example", {"MACHPAY_AUTH_URL": "https://c.example/"}, "https://c.example"),
        (None, "https://b.example/", {"MACHPAY_BASE_URL": "https://d.example"}, "https://b.example"),
        (None, None, {"MACHPAY_BASE_URL": "https://d.example"}, "https://d.example"),
        (None, None, {"MACHPAY_BASE_URL": "", "MACHPAY_AUTH_URL": ""}, "https://auth.machpay.xyz"),
        (None, None, {}, "https://auth.machpay.xyz"),
    ],
)
def test_the_authorization_server_is_beside_an_api_that_is_elsewhere(
    auth_url: str | None, base_url: str | None, environment: dict[str, str], expected: str
) -> None:
    assert auth_url_from(auth_url, base_url, environment) == expected


@pytest.mark.parametrize(
    "given, environment, match",
    [
        ("http://auth.example.com", {}, "^auth_url .* unencrypted"),
        (None, {"MACHPAY_AUTH_URL": "ftp://auth"}, "^MACHPAY_AUTH_URL .* one is https://auth.machpay.xyz"),
        ("https://user:pass@auth.example.com", {}, "^auth_url .* nothing else"),
    ],
)
def test_the_address_of_the_authorization_server_keeps_secrets_as_safe(
    given: str | None, environment: dict[str, str], match: str
) -> None:
    with pytest.raises(machpay.ConfigurationError, match=match) as caught:
        auth_url_from(given, None, environment)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    "base_url, auth_url, expected",
    [
        ("https://a.example", None, True),
        ("http://127.0.0.1:1", None, False),
        ("https://a.example", "http://127.0.0.1:1", False),
    ],
)
def test_no_proxy_of_the_environment_sees_what_goes_over_loopback(
    base_url: str, auth_url: str | None, *, expected: bool
) -> None:
    with machpay.MachPay("k", base_url=base_url, auth_url=auth_url) as client:
        assert client._transport.sender.http.trust_env is expected  # noqa: SLF001 - what it hands on


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), True, "30"])
def test_a_timeout_is_a_positive_number(timeout: float) -> None:
    with pytest.raises(machpay.ConfigurationError, match="timeout="):
        machpay.MachPay("k", timeout=timeout)


@pytest.mark.parametrize("max_retries", [-1, 1.5, True])
def test_a_number_of_retries_is_a_whole_number(max_retries: int) -> None:
    with pytest.raises(machpay.ConfigurationError, match="max_retries="):
        machpay.MachPay("k", max_retries=max_retries)


async def test_a_client_refuses_the_http_client_of_the_other_kind() -> None:
    with httpx2.Client() as given, pytest.raises(machpay.ConfigurationError, match="AsyncClient"):
        machpay.AsyncMachPay("k", http_client=given)  # type: ignore[arg-type]  # what is refused
    async with httpx2.AsyncClient() as other:
        with pytest.raises(machpay.ConfigurationError, match="AsyncClient"):
            machpay.MachPay("k", http_client=other)  # type: ignore[arg-type]  # what is refused


def test_the_sleep_of_a_client_is_a_real_one() -> None:
    with machpay.MachPay("k") as client:
        assert client._transport.sender.sleep.__name__ == "sleep"  # noqa: SLF001 - every other test puts its own there
    other = machpay.AsyncMachPay("k")
    assert other._transport.sender.sleep is asyncio.sleep  # noqa: SLF001 - as above
    asyncio.run(other.aclose())
