import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.jose.issuer import Issuer


@pytest.mark.parametrize(
    "audience, audiences",
    [("https://api.example.com", {"https://api.example.com"}), (["a", "b"], {"a", "b"}), (("a",), {"a"})],
)
def test_one_audience_or_several_are_accepted(audience: str | list[str], audiences: set[str]) -> None:
    assert Issuer("https://id.example.com", audience=audience, jwks="jwks.json").audiences == audiences


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"issuer": ""}, "issuer and audience must be set"),
        ({"audience": ""}, "issuer and audience must be set"),
        ({"audience": []}, "issuer and audience must be set"),
        ({"audience": ["a", ""]}, "issuer and audience must be set"),
        ({"algorithms": "RS256"}, "algorithms is a list"),
        ({"algorithms": []}, "algorithms is a list"),
        ({"algorithms": ["none"]}, "'none' is not accepted"),
        ({"algorithms": ["RS256", "ES256K"]}, "'ES256K' is not accepted"),
        ({"types": "at+jwt"}, "types is a list"),  # else each of its letters would be a type
        ({"types": []}, "types is a list"),
        ({"types": ["at+jwt", ""]}, "types is a list"),
        ({"environment": "prod"}, "use live or test"),
    ],
)
def test_an_invalid_issuer_is_refused_with_the_way_out(change: dict[str, object], reason: str) -> None:
    good: dict[str, object] = {"issuer": "https://id.example.com", "audience": "api", "jwks": "jwks.json"}
    with pytest.raises(ConfigurationError, match=reason):
        Issuer(**{**good, **change})  # type: ignore[arg-type]  # wrong types are what is tried


@pytest.mark.parametrize(
    "url, is_remote", [("https://id.example.com/jwks.json", True), ("/etc/jwks.json", False), ("a.json", False)]
)
def test_keys_come_from_a_url_or_a_file(url: str, *, is_remote: bool) -> None:
    assert Issuer("https://id.example.com", audience="api", jwks=url).keys_are_remote is is_remote


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example.com/jwks.json",
        "http://10.0.0.1/jwks.json",
        "http://127.0.0.1.evil.example/jwks.json",
        "http://127.0.0.1@evil.example/jwks.json",
        "http://localhost.evil.example/",
        "https://user:pass@id.example.com/jwks.json",
        "https://id.example.com\\@127.0.0.1/",
        "https://",
        "https://id.example.com/a b",
        "ftp://id.example.com/jwks.json",
        "file:///etc/jwks.json",
        "HTTP://id.example.com/",
        "http://[::2]/jwks.json",
        "http://127.0.0.256/jwks.json",
        "http://[127.0.0.1]evil.example/",
        "https://id.example.com:99999/",
        "https://id..example.com/",
        "https://id.example.com/\x00",
        "https://id.example.com/\n",
        "https://id.example.com/" + "a" * 3000,
        "",
    ],
)
def test_keys_come_from_https_or_loopback_only(url: str) -> None:
    with pytest.raises(ConfigurationError, match="use a file or an https URL"):
        Issuer("https://id.example.com", audience="api", jwks=url)
