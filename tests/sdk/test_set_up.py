import asyncio

import httpx2
import machpay
import pytest
from machpay._credential import credential_from, masked
from machpay._options import base_url_from

from tests.sdk.scripted import MASKED, SECRET


@pytest.mark.parametrize(
    "secret, shown",
    [
        (SECRET, MASKED),
        ("sk_test_" + "x" * 20 + "wxyz", "sk_test_…wxyz"),
        ("sk_live_abc123...", "sk_live_…"),  # too short to show a part of
        ("a" * 40 + "last", "…last"),
        ("short", "…"),
        ("", "…"),
    ],
)
def test_what_is_shown_of_a_credential(secret: str, shown: str) -> None:
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
    assert credential_from(api_key, access_token, environment).value == expected


@pytest.mark.parametrize(
    "api_key, access_token, environment, match",
    [
        ("k", "t", {}, "Both api_key and access_token"),
        (None, None, {}, "MACHPAY_API_KEY"),
        (None, None, {"MACHPAY_API_KEY": ""}, "MACHPAY_API_KEY"),
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


def test_a_client_without_a_credential_names_the_variable() -> None:
    with pytest.raises(machpay.ConfigurationError, match="MACHPAY_API_KEY"):
        machpay.MachPay()


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
        assert client._transport.sleep.__name__ == "sleep"  # noqa: SLF001 - every other test puts its own there
    other = machpay.AsyncMachPay("k")
    assert other._transport.sleep is asyncio.sleep  # noqa: SLF001 - as above
    asyncio.run(other.aclose())
