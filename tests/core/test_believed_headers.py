"""Headers that software believes of a proxy in front of it."""

import pytest

from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.proxy_settings import ProxySettings
from machpay_gateway.core.network.trusted_headers import is_trusted_header, validate_pass_headers

BELIEVED = (
    "Remote-User", "Remote-Groups", "REMOTE_USER", "Remote.User", "X-Forwarded-User", "X-Forwarded-Client-Cert",
    "X-Auth-Request-User", "X-Auth-Request-Email", "X-Amzn-Oidc-Identity", "X-Amzn-Oidc-Data", "X-Accel-Redirect",
    "X-Accel-Mapping", "Client-Ip", "X-authentik-username", "X-Pomerium-Jwt-Assertion", "X-Vouch-User",
    "X-MS-CLIENT-PRINCIPAL", "X-MS-CLIENT-PRINCIPAL-ID", "X-Goog-Authenticated-User-Email", "X-Goog-IAP-JWT-Assertion",
    "Cf-Access-Authenticated-User-Email", "Tailscale-User-Login", "X-Consumer-Username", "X-Credential-Identifier",
    "X-Envoy-External-Address", "Client-Cert", "Client-Cert-Chain", "SSL_CLIENT_S_DN", "ssl-client-verify",
    "X-SSL-Client-CN", "X-Client-Cert", "X-ARR-ClientCert", "X-WEBAUTH-USER", "X-Remote-User", "Impersonate-User",
    "X-Sendfile", "X-Sendfile-Type", "True-Client-IP", "CF-Connecting-IP", "CF-Connecting-IPv6", "Fly-Client-IP",
    "X-Real-IP", "X-Original-Forwarded-For", "Forwarded", "WL-Proxy-Client-IP", "SM_USER", "$WSRU", "iv-user",
    "OIDC_CLAIM_sub", "X-Original-URL", "X-HTTP-Method-Override", "Proxy", "X-Middleware-Subrequest", "Script-Name",
    "l5d-dst-override", "X-User-Id", "X-User",
)  # fmt: skip
OTHERS = (
    "Accept", "User-Agent", "X-Request-Id", "X-Api-Key", "X-Auth-Token", "X-CSRF-Token", "X-User-Agent",
    "Idempotency-Key", "X-Amz-Date", "X-Amzn-Trace-Id", "X-Client-Version", "Sec-Fetch-Site", "Range", "Remotely",
    "Wsru", "X-Access-Token",
)  # fmt: skip


@pytest.mark.parametrize("name", BELIEVED)
def test_a_trusted_header_is_recognized_in_every_spelling(name: str) -> None:
    for spelling in (name, name.lower(), name.upper(), name.replace("-", "_")):
        assert is_trusted_header(spelling)


@pytest.mark.parametrize("name", OTHERS)
def test_ordinary_headers_pass(name: str) -> None:
    assert not is_trusted_header(name)


def test_names_may_come_as_a_list_or_from_the_environment() -> None:
    assert validate_pass_headers(["Remote-User", "SM_USER"]) == ("remote-user", "sm_user")
    assert validate_pass_headers("Remote-User, X-Forwarded-User") == ("remote-user", "x-forwarded-user")
    assert ProxySettings(pass_headers=["Client-Ip"]).pass_headers == ("client-ip",)


@pytest.mark.parametrize(
    "given, told",
    [
        (["X-MachPay-Account"], "never passes"),
        (["x_machpay_tier"], "never passes"),
        (["X-Forwarded-For"], "never passes"),
        (["X-Forwarded-Host"], "never passes"),
        (["X-Original-URL"], "never passes"),
        (["X_HTTP_Method_Override"], "never passes"),
        (["Connection"], "is not one of the headers that are dropped"),
        (["Transfer-Encoding"], "is not one of the headers that are dropped"),
        (["Content_Length"], "is not one of the headers that are dropped"),
        (["Authorization"], "is not one of the headers that are dropped"),
        (["X-Auth-Reqest-User"], "did you mean"),
        (["X-Foo"], "is not one of the headers that are dropped"),
        ([1], "is a list of header names"),
        (7, "is a list of header names"),
    ],
)
def test_an_invalid_setting_is_refused(given: object, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        validate_pass_headers(given)


def test_a_route_cannot_set_pass_headers() -> None:
    with pytest.raises(ConfigurationError, match="under \\[proxy\\]"):
        ProxySettings().with_changes({"pass_headers": ["Remote-User"]})
