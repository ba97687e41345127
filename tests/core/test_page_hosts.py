"""At which host what is answered."""

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.page_hosts import Host, PageHosts, bound_pages, page_hosts, parse_host, shared_hosts
from machpay_gateway.core.oauth.settings import OAuthSettings

CONSOLE, ISSUER = "https://console.example.com", "https://auth.example.com:8443/tenant"


def hosts(console: str | None = CONSOLE, issuer: str | None = ISSUER) -> PageHosts:
    pages = []
    if console is not None:
        pages.append(bound_pages("console.url", console, ("/console",)))
    if issuer is not None:
        pages.append(bound_pages("oauth.issuer", issuer, OAuthSettings(issuer).page_paths))
    made = page_hosts(pages)
    assert made is not None
    return made


@pytest.mark.parametrize(
    "text, expected",
    [
        (b"Console.Example.COM", Host("console.example.com", None)),
        (b"console.example.com.", Host("console.example.com", None)),  # the root's dot
        (b"console.example.com.:443", Host("console.example.com", 443)),
        (b"console.example.com:", Host("console.example.com", None)),  # RFC 3986 §3.2.3: an empty port is none
        (b"console.example.com:0443", Host("console.example.com", 443)),
        (b"127.0.0.1:8000", Host("127.0.0.1", 8000)),
        (b"[::1]:8000", Host("::1", 8000)),
        (b"[0:0:0:0:0:0:0:1]", Host("::1", None)),  # one spelling of an address
        (b"console.example.com:99999", None),
        (b"a@console.example.com", None),
        (b"console.example.com/", None),
        (b"[::1", None),
        (b"[1.2.3]", None),
        (b".", None),
        (b"", None),
        (b"a,b", None),
    ],
)
def test_a_host_is_read_in_one_way(text: bytes, expected: Host | None) -> None:
    assert parse_host(text) == expected


@pytest.mark.parametrize(
    "path, host, forwarded, is_answered, why",
    [
        ("/console/keys", b"console.example.com", None, True, "its own host"),
        ("/console", b"CONSOLE.example.com.:443", None, True, "the same host in other words"),
        ("/console/keys", b"console.example.com:80", None, False, "another port"),
        ("/console/keys", b"auth.example.com:8443", None, False, "the other pages' host"),
        ("/console/keys", b"api.example.com", None, False, "the API's host"),
        ("/console/keys", b"console.example.com.evil.example", None, False, "a longer name"),
        ("/console/keys", None, None, False, "HTTP/1.0 without Host"),
        ("/console/keys", b"gateway:8000", b"console.example.com", True, "what a trusted proxy was reached by"),
        ("/console/keys", b"console.example.com", b"api.example.com", False, "the proxy was reached by another"),
        ("/console/keys", b"console.example.com", b"", True, "the proxy tells nothing of use"),
        ("/console/keys", b"console.example.com", b"a,b", True, "the proxy tells nothing of use"),
        ("/console/keys", b"api.example.com,console.example.com", None, False, "two hosts are none"),
        ("/tenant/oauth/authorize", b"auth.example.com:8443", None, True, "the issuer's"),
        ("/tenant/oauth/authorize", b"auth.example.com", None, False, "without the issuer's port"),
        ("/tenant/oauth/consent", b"console.example.com", None, False, "the Console's"),
        ("/oauth/authorize", b"api.example.com", None, True, "no page: the issuer has a path"),
        ("/consolex", b"api.example.com", None, True, "no page: another segment"),
        ("/v1/skills", b"api.example.com", None, True, "the API"),
        ("/v1/skills", None, None, True, "HTTP/1.0 without Host"),
        ("/v1/skills", b"console.example.com", None, False, "a page host"),
        ("/v1/skills", b"console.example.com:8080", None, False, "cookies ignore ports"),
        ("/v1/skills", b"auth.example.com", None, False, "cookies ignore ports"),
        ("/v1/skills", b"console.example.com", b"api.example.com", False, "one of the two is a page host"),
        ("/v1/skills", b"api.example.com", b"console.example.com", False, "one of the two is a page host"),
        ("/v1/skills", b"api.example.com", b"a.example, console.example.com", False, "one of a list is"),
        ("/v1/skills", b"sub.console.example.com", None, True, "another name"),
    ],
)
def test_pages_and_everything_else_are_answered_apart(
    path: str, host: bytes | None, forwarded: bytes | None, *, is_answered: bool, why: str
) -> None:
    assert (hosts().refusal(path, host, forwarded, is_ours=False) is None) is is_answered, why


def test_what_is_ours_and_no_page_is_answered_on_every_host() -> None:
    for host in (b"console.example.com", b"api.example.com", None):
        assert hosts().refusal("/v1/keys", host, is_ours=True) is None
    assert hosts().refusal("/console/keys", b"api.example.com", is_ours=True) is not None


def test_the_console_and_the_issuer_may_share_a_host() -> None:
    both = hosts(CONSOLE, CONSOLE)
    for path in ("/console/keys", "/oauth/sign-in"):
        assert both.refusal(path, b"console.example.com", is_ours=True) is None


def test_names_of_this_machine_are_different_hosts() -> None:
    here = hosts("http://localhost:8000", None)
    assert here.refusal("/console", b"localhost:8000", is_ours=True) is None
    for host in (b"127.0.0.1:8000", b"[::1]:8000"):
        assert here.refusal("/console", host, is_ours=True) is not None
        assert here.refusal("/v1/skills", host, is_ours=False) is None
    assert here.refusal("/v1/skills", b"localhost:9000", is_ours=False) is not None


def test_a_refusal_names_the_host_the_setting_and_the_way_out() -> None:
    elsewhere = hosts().refusal("/console", b"api.example.com", is_ours=True) or ""
    assert all(part in elsewhere for part in ("api.example.com", "console.url", CONSOLE, "X-Forwarded-Host"))
    reserved = hosts().refusal("/v1/skills", b"auth.example.com", is_ours=False) or ""
    assert all(part in reserved for part in ("auth.example.com", "oauth.issuer", "a host of its own"))
    odd = hosts().refusal("/console", b"a\x1b[31m\nb", is_ours=True) or ""
    assert odd.isprintable()


@pytest.mark.parametrize(
    "console, api, issuer, audience, expected",
    [
        ("https://a.example", "https://a.example", None, "", ["console.url and console.api_url"]),
        ("https://a.example", "https://a.example:8443", None, "", ["console.url and console.api_url"]),  # whatever port
        ("https://a.example", "https://b.example", None, "", []),
        (None, None, "https://a.example", "", ["oauth.issuer and oauth.audience"]),  # the issuer, when left out
        (None, None, "https://a.example", "https://b.example", []),
        ("https://a.example", "https://b.example", "https://c.example", "https://a.example",
         ["console.url and oauth.audience"]),
        ("https://a.example", "https://a.example", "https://a.example", "https://a.example",
         ["console.url and oauth.issuer and console.api_url and oauth.audience"]),
    ],
)  # fmt: skip
def test_a_page_host_that_is_also_the_apis_is_told(
    console: str | None, api: str | None, issuer: str | None, audience: str, expected: list[str]
) -> None:
    oauth = None if issuer is None else OAuthSettings(issuer, audience=audience)
    warnings = list(shared_hosts(hosts(console, issuer), api, None if oauth is None else oauth.audience))
    assert len(warnings) == len(expected)
    for warning, beginning in zip(warnings, expected, strict=True):
        assert warning.startswith(f"{beginning} name the same host, a.example")
        assert "a host of their own" in warning


def test_a_host_that_no_request_can_name_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match=r"console\.url .* no request can name that host"):
        hosts("https://a!b.example", None)


def test_without_pages_no_host_is_bound() -> None:
    assert page_hosts([]) is None
    assert list(shared_hosts(None, None, None)) == []
