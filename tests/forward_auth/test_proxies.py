"""nginx, Traefik, Caddy and Envoy as they are, by the configuration that is shipped."""

import os
from base64 import b64encode
from collections.abc import Iterator

import pytest

from machpay_gateway.core.errors import StoreUnavailable
from machpay_gateway.web.path_reader import PathReader
from tests.forward_auth.harness import CLIENT, MANY_SCOPES, NEIGHBOUR, ORIGIN, Rig, running_rig, without_gateway
from tests.forward_auth.proxies import KINDS

# Each proxy starts once, in one of the processes that tests run in.
PROXIES = [pytest.param(name, marks=pytest.mark.xdist_group(f"proxy {name}")) for name in KINDS]
FORGED = [
    ("X-MachPay-Key-Id", "key_forged"),
    ("x-machpay-account", "acct_forged"),
    ("X_MachPay_Key_Id", "key_forged"),
    ("x_machpay-account", "acct_forged"),
    ("X-MachPay_Subject", "key_forged"),
    ("X-MachPay-Subject", ""),
    ("X-MachPay-New", "1"),
]
IDENTITY = {
    f"x-machpay-{name}" for name in ("key-id", "account", "subject", "scopes", "environment", "tier", "assertion")
}


@pytest.fixture(scope="module", params=PROXIES)
def shared(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with running_rig(request.param) as rig:
        yield rig


@pytest.fixture
def rig(shared: Rig) -> Rig:
    shared.upstream.seen.clear()
    shared.upstream.cookies = ()
    shared.decided.clear()
    return shared


def test_an_allowed_request_reaches_the_upstream_with_identity_headers_and_without_the_credential(rig: Rig) -> None:
    answer = rig.call("POST /v1/skills/execute?status=201", "all", body=b"a body")
    seen = rig.seen()
    assert (answer.status, answer.body) == (201, b"from the application")
    assert (seen.method, seen.target, seen.body) == ("POST", b"/v1/skills/execute", b"a body")
    assert set(seen.identity()) == IDENTITY
    assert seen.identity()["x-machpay-scopes"] == "skills:execute skills:list"
    assert seen.values("authorization") == []
    assert rig.decided[0].method == "POST"


def test_a_key_with_the_maximum_of_scopes_reaches_the_upstream(rig: Rig) -> None:
    assert rig.call("GET /v1/skills", "many").status == 200
    assert rig.seen().identity()["x-machpay-scopes"] == " ".join(sorted(MANY_SCOPES))
    assert set(rig.seen().identity()) == IDENTITY


@pytest.mark.parametrize("framing", [[], [("Transfer-Encoding", "chunked")]], ids=["length", "chunks"])
def test_a_body_reaches_the_upstream_and_not_the_gateway(rig: Rig, framing: list[tuple[str, str]]) -> None:
    body = os.urandom(500_000)
    assert rig.call("POST /v1/skills/execute", "all", framing, body).status == 200
    assert rig.seen().body == body
    assert rig.call("POST /v1/skills/execute", None, framing, b"small").status == 401


@pytest.mark.parametrize("path", ["/-/machpay/authorize", "/authorize/nginx", "/authorize/envoy/healthz"])
def test_clients_cannot_send_check_requests(rig: Rig, path: str) -> None:
    claims = [(f"X-{name}-Method", "GET") for name in ("Original", "Forwarded")]
    claims += [(name, "/healthz") for name in ("X-Original-URI", "X-Forwarded-Uri")]
    answer = rig.call(f"GET {path}", "all", claims)
    # Where nginx sends the whole URL, the client's own X-Original-URI contradicts it.
    is_contradicted = rig.proxy == "nginx with whole URLs" and path.startswith("/authorize")
    assert answer.status == (400 if is_contradicted else 404)
    assert not [name for name, _ in answer.fields if name.lower().startswith("x-machpay")]
    assert rig.upstream.seen == []


def test_the_upstream_gets_the_gateways_request_id(rig: Rig) -> None:
    rig.call("GET /v1/skills", "all", [("X-Request-Id", "forged")])
    assert rig.seen().values("x-request-id") == [rig.decided[0].request_id.decode()]
    assert rig.decided[0].request_id != b"forged"


def test_the_client_gets_rate_limit_headers_if_the_proxy_supports_it(rig: Rig) -> None:
    answer = rig.call("GET /v1/skills", "all")
    assert answer.status == 200
    values_by_name = [answer.values(name) for name in ("ratelimit", "ratelimit-policy", "x-request-id")]
    if rig.proxy == "traefik":
        assert values_by_name == [[], [], []]
        return
    assert [len(values) for values in values_by_name] == [1, 1, 1]
    assert values_by_name[0][0].startswith('"minute";r=')
    assert values_by_name[2] == [rig.decided[0].request_id.decode()]


@pytest.mark.parametrize("secret", [None, "all"])
def test_a_public_route_needs_no_caller_and_has_no_identity_headers(rig: Rig, secret: str | None) -> None:
    answer = rig.call("GET /healthz", secret)
    assert answer.status == 200
    assert rig.seen().identity() == {}
    assert rig.seen().values("authorization") == []
    assert answer.values("ratelimit") == []


@pytest.mark.parametrize("request_, secret", [("GET /healthz", None), ("GET /v1/skills", "all")])
@pytest.mark.parametrize("forged", [*([field] for field in FORGED), FORGED], ids=str)
def test_a_forged_identity_never_reaches_the_upstream(
    rig: Rig, request_: str, secret: str | None, forged: list[tuple[str, str]]
) -> None:
    answer = rig.call(request_, secret, forged)
    # Envoy takes it away before it asks, nginx and Caddy what has underscores; else the whole request is refused.
    drops_underscores = rig.proxy != "traefik" and all("_" in name for name, _ in forged)
    is_dropped = rig.proxy == "envoy" or drops_underscores
    assert answer.status == (200 if is_dropped else 400)
    assert is_dropped is bool(rig.upstream.seen)
    for seen in rig.upstream.seen:
        assert set(seen.identity()) == (set() if secret is None else IDENTITY)
        assert "forged" not in str(seen.identity())


def test_without_a_credential_the_client_gets_the_challenge(rig: Rig) -> None:
    answer = rig.call("GET /v1/skills")
    assert (answer.status, answer.problem()["code"]) == (401, "missing_credentials")
    assert answer.values("www-authenticate") == ['Bearer realm="machpay"']
    assert answer.values("content-type") == ["application/problem+json"]
    assert answer.values("x-request-id") == [answer.problem()["request_id"]]
    assert answer.values("cache-control") == ["no-store"]
    assert rig.upstream.seen == []


def test_a_missing_scope_is_named(rig: Rig) -> None:
    answer = rig.call("GET /v1/skills", "reader")
    assert (answer.status, answer.problem()["code"]) == (403, "insufficient_scope")
    assert answer.problem()["required_scopes"] == ["skills:list"]
    (challenge,) = answer.values("www-authenticate")
    assert 'error="insufficient_scope"' in challenge
    assert rig.upstream.seen == []


def test_a_limit_becomes_a_429_with_retry_after(rig: Rig) -> None:
    rig.call("GET /v1/skills", "tiny")
    rig.upstream.seen.clear()
    answer = rig.call("GET /v1/skills", "tiny")
    assert (answer.status, answer.problem()["code"]) == (429, "rate_limited")
    assert [int(value) for value in answer.values("retry-after")] == [answer.problem()["retry_after"]]
    assert answer.values("ratelimit")[0].startswith('"minute";r=0;')
    assert answer.values("ratelimit-policy")[0].startswith('"minute";q=1;')
    assert rig.upstream.seen == []


@pytest.mark.parametrize("secret, status", [(None, 401), ("reader", 403), ("tiny", 429)])
def test_scripts_can_read_refusals(rig: Rig, secret: str | None, status: int) -> None:
    if secret == "tiny":
        rig.call("GET /v1/skills", secret)
    answer = rig.call("GET /v1/skills", secret, [("Origin", ORIGIN)])
    assert (answer.status, answer.values("access-control-allow-origin")) == (status, [ORIGIN])
    assert "Retry-After" in answer.values("access-control-expose-headers")[0]
    assert answer.values("vary") == ["Origin"]
    other = rig.call("GET /v1/skills", secret, [("Origin", "https://other.example")])
    assert other.values("access-control-allow-origin") == []


def test_unlisted_routes_are_not_found(rig: Rig) -> None:
    answer = rig.call("GET /nowhere", "all")
    assert (answer.status, answer.problem()["code"]) == (404, "route_not_found")
    assert rig.upstream.seen == []


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_the_upstreams_own_refusals_are_unchanged(rig: Rig, status: int) -> None:
    answer = rig.call(f"GET /v1/skills?status={status}", "all")
    assert (answer.status, answer.body, answer.values("x-app")) == (status, b"from the application", ["1"])


@pytest.mark.parametrize("named", [*sorted(IDENTITY), ", ".join(sorted(IDENTITY))])
def test_connection_cannot_remove_identity_headers(rig: Rig, named: str) -> None:
    # RFC 9110 §7.6.1: a proxy removes what Connection names, which must not be what it was told by us.
    answer = rig.call("GET /v1/skills", "all", [("Connection", named)])
    assert answer.status in {200, 400}
    assert [set(seen.identity()) for seen in rig.upstream.seen] in ([IDENTITY], [])


@pytest.mark.parametrize(
    "source, claimed, status",
    [
        (CLIENT, [], 200),
        (NEIGHBOUR, [], 403),
        (NEIGHBOUR, [("X-Forwarded-For", CLIENT)], 403),
        (NEIGHBOUR, [("X-Forwarded-For", CLIENT), ("X-Forwarded-For", CLIENT)], 403),
        (NEIGHBOUR, [("X_Forwarded_For", CLIENT), ("X-Real-IP", CLIENT), ("Forwarded", f"for={CLIENT}")], 403),
        (NEIGHBOUR, [("X-Forwarded-For", f"{CLIENT}, 127.0.0.1")], 403),
        (NEIGHBOUR, [("X-Forwarded-For", CLIENT), ("Connection", "X-Real-IP")], 403),
        (CLIENT, [("X-Forwarded-For", NEIGHBOUR)], 200),
    ],
)
def test_an_allowlist_applies_to_the_clients_real_address(
    rig: Rig, source: str, claimed: list[tuple[str, str]], status: int
) -> None:
    assert rig.call("GET /v1/skills", "at home", claimed, source=source).status == status


@pytest.mark.parametrize(
    "claimed",
    [
        [("X-Original-URI", "/healthz"), ("X-Original-Method", "GET")],
        [("X-Forwarded-Uri", "/healthz"), ("X-Forwarded-Method", "GET")],
        [("X_Original_URI", "/healthz"), ("X_Forwarded_Uri", "/healthz")],
        [("X-Original-URL", "/healthz"), ("X-Rewrite-URL", "/healthz")],
        [("X-HTTP-Method-Override", "GET")],
        [("Connection", "X-Forwarded-Uri, X-Forwarded-Method, X-Original-URI, X-Original-Method, Authorization")],
    ],
    ids=str,
)
def test_the_client_cannot_forge_method_or_uri(rig: Rig, claimed: list[tuple[str, str]]) -> None:
    answer = rig.call("POST /v1/skills/execute", None, claimed, b"")
    assert answer.status in {400, 401}  # Envoy takes no such Connection
    assert rig.upstream.seen == []


@pytest.mark.parametrize(
    "target",
    [
        "//v1/skills",
        "/v1//skills",
        "/v1%2fskills",
        "/v1%5Cskills",
        "/healthz/../v1/skills",
        "/v1/skills/../../healthz",
        "/healthz/%2e%2e/v1/skills",
        "/healthz/..%2fv1/skills",
        "/healthz/..;/v1/skills",
        "/healthz/.",
        "/healthz\\..\\v1\\skills",
        "/healthz%00",
        "/healthz%23",
        "/healthz#/../v1/skills",
        "/healthz%",
        "/%68ealthz",
        "/healthz/",
        "/v1/skills?/../../healthz",
        "/healthz?a=/../v1/skills#b",
        "/healthz;/v1/skills",
        "/HEALTHZ",
        "http://other.test/healthz",
        "http://other.test//healthz",
        "*",
    ],
)
def test_the_forwarded_path_is_the_decided_one(rig: Rig, target: str) -> None:
    answer = rig.call(f"GET {target}", "all")
    assert len(rig.upstream.seen) <= 1
    for seen in rig.upstream.seen:
        assert answer.status == 200
        assert PathReader().path_in("GET", seen.target) == rig.decided[0].path
        assert rig.decided[0].path in {"/v1/skills", "/v1/skills/", "/healthz", "/healthz/"}
    if not rig.upstream.seen:
        assert 400 <= answer.status < 500


PAGES = "localhost:8080"  # as it is shipped, whatever port a test listens on


@pytest.mark.parametrize(
    "request_, host, status",
    [
        ("GET /console/sign-in", PAGES, 200),
        ("GET /oauth/authorize", PAGES, 400),  # a page that says what is missing
        ("GET /.well-known/oauth-authorization-server", PAGES, 200),
        ("GET /v1/whoami", PAGES, 401),
        ("GET /console/sign-in", "localhost:8081", 404),
        ("GET /console/sign-in", "", 404),
        ("GET /console", "", 404),
        ("GET /CONSOLE/sign-in", "", 404),
        ("GET /oauth/authorize", "", 404),
        ("GET /healthz", PAGES, 404),
        ("GET /healthz", "localhost", 404),
        ("GET /healthz", "LOCALHOST.:8080", 404),
        ("GET /nowhere", PAGES, 404),
        ("GET /authorize/envoy/healthz", PAGES, 404),
        ("GET /authorize/nginx", PAGES, 404),
        ("GET /%61uthorize/traefik", PAGES, 404),
        ("GET /healthz", "", 200),
    ],
)
def test_pages_and_the_application_have_separate_hosts(rig: Rig, request_: str, host: str, status: int) -> None:
    claims = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/healthz"), ("X-Original-URI", "/healthz")]
    answer = rig.call(request_, None, claims if "uthorize/" in request_ else [], host=host)
    assert answer.status == status
    assert bool(rig.upstream.seen) is ((request_, host) == ("GET /healthz", ""))
    if status == 200 and "sign-in" in request_:
        assert any("machpay-form=" in value for value in answer.values("set-cookie"))


@pytest.mark.parametrize("forged", [PAGES, "localhost"])
def test_a_clients_forwarded_host_is_ignored(rig: Rig, forged: str) -> None:
    claim = [("X-Forwarded-Host", forged)]
    assert rig.call("GET /console/sign-in", None, claim).status == 404
    assert rig.call("GET /healthz", None, [("X-Forwarded-Host", "127.0.0.1")], host=PAGES).status == 404
    assert rig.upstream.seen == []


@pytest.mark.parametrize(
    "sent, remaining",
    [
        ("a=1; __Host-machpay-session=x; b=2", ["a=1", "b=2"]),
        ("machpay-form=y; a=1", ["a=1"]),
        ("a=1;__HOST-machpay-form=y; machpay-session=x", ["a=1"]),
        ("__Host-machpay-session=x; __Host-machpay-form=y; machpay-session=x; machpay-form=y", []),
        ("a=1; =machpay-session=x", ["a=1"]),
        ("a=1; amachpay-b=2; b=machpay-", ["a=1", "amachpay-b=2", "b=machpay-"]),
    ],
)
def test_the_gateways_cookies_reach_no_application_if_the_proxy_can_remove_them(
    rig: Rig, sent: str, remaining: list[str]
) -> None:
    assert rig.call("GET /healthz", None, [("Cookie", sent)]).status == 200
    cookies = [each.strip() for value in rig.seen().values("cookie") for each in value.split(";") if each.strip()]
    assert cookies == ([each.strip() for each in sent.split(";")] if rig.proxy == "traefik" else remaining)


def test_no_application_sets_the_gateways_cookies_if_the_proxy_can_remove_them(rig: Rig) -> None:
    rig.upstream.cookies = (
        b"a=1; Path=/",
        b"__Host-machpay-session=x; Path=/; Secure",
        b"__host-Machpay-form=y; Secure",
    )
    answer = rig.call("GET /healthz")
    # Where one is left of ours, it is one that browsers take for none: a prefix asks for Secure.
    values_by_name = [
        value for value in answer.values("set-cookie") if "machpay" not in value.lower() or "secure" in value.lower()
    ]
    assert [value for value in values_by_name if value] == (
        [value.decode() for value in rig.upstream.cookies] if rig.proxy == "traefik" else ["a=1; Path=/"]
    )


def test_a_preflight_passes_without_a_credential(rig: Rig) -> None:
    preflight = [("Origin", "https://app.test"), ("Access-Control-Request-Method", "POST")]
    assert rig.call("OPTIONS /v1/skills/execute", None, preflight).status == 200
    assert rig.seen().method == "OPTIONS"
    assert rig.call("OPTIONS /nowhere", None, preflight).status == 404


def test_a_head_is_decided_like_its_get(rig: Rig) -> None:
    assert rig.call("HEAD /v1/skills", "all").status == 200
    refused = rig.call("HEAD /v1/skills")
    assert (refused.status, refused.body) == (401, b"")


def test_a_handshake_is_decided_before_it_reaches_the_upstream(rig: Rig) -> None:
    handshake = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", b64encode(os.urandom(16)).decode()),
    ]
    assert rig.call("GET /v1/skills", None, handshake).status == 401
    assert rig.upstream.seen == []
    assert rig.call("GET /v1/skills", "all", handshake).status == 101
    assert set(rig.seen().identity()) == IDENTITY


def test_what_cannot_be_decided_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(_digest: bytes) -> None:
        raise StoreUnavailable("key lookup")

    monkeypatch.setattr(rig.gateway.store, "find_by_digests", away)
    answer = rig.call("GET /v1/skills", "unseen")
    assert (answer.status, answer.problem()["code"]) == (503, "unavailable")
    assert answer.values("retry-after") == ["1"]
    assert rig.upstream.seen == []


@pytest.mark.parametrize("name", PROXIES)
def test_without_a_gateway_no_request_passes(name: str) -> None:
    with without_gateway(name) as rig:
        answers = [rig.call(request) for request in ("GET /healthz", "GET /v1/skills")]
    assert [answer.status for answer in answers] == [{"traefik": 500, "caddy": 502}.get(name, 503)] * 2
    if name not in {"traefik", "caddy"}:
        assert [answer.problem()["code"] for answer in answers] == ["unavailable"] * 2
        assert [answer.values("content-type") for answer in answers] == [["application/problem+json"]] * 2
    assert rig.upstream.seen == []
