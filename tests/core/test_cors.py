"""Which origins a `cors` table allows, and what a wrong one is told."""

import pytest

from machpay_gateway import Route
from machpay_gateway.core.errors import ConfigurationError
from machpay_gateway.core.network.cors import CORS_OFF, EXPOSED, CorsSettings, merge_vary

EXACT, BELOW = "https://app.example.com", "https://*.example.org"


def allowed(settings: CorsSettings, origin: bytes | None) -> bytes | None:
    """Return the allowed origin in a response."""
    return dict(settings.response_headers(origin)).get(b"access-control-allow-origin")


@pytest.mark.parametrize(
    "origin, is_allowed",
    [
        (b"https://app.example.com", True),
        (b"http://app.example.com", False),
        (b"https://app.example.com:8443", False),
        (b"https://app.example.com.evil.example", False),
        (b"https://evilapp.example.com", False),
        (b"https://APP.example.com", False),  # browsers send it in lower case
        (b"https://a.example.org", True),
        (b"https://a.b.example.org", True),
        (b"https://example.org", False),
        (b"https://evilexample.org", False),
        (b"https://.example.org", False),
        (b"https://a..example.org", False),
        (b"https://evil.example/.example.org", False),
        (b"https://evil.example#.example.org", False),
        (b"https://user@a.example.org", False),
        (b"https://evil.example:80.example.org", False),
        (b"https://a.example.org:8443", False),
        (b"http://a.example.org", False),
        (b"http://localhost:5173", True),
        (b"http://localhost:5174", False),
        (b"capacitor://localhost", True),
        (b"https://[::1]:8443", True),
        (b"null", False),
        (b"", False),
        (b"*", False),
        (None, False),
    ],
)
def test_an_origin_is_allowed_exactly(origin: bytes | None, is_allowed: bool) -> None:  # noqa: FBT001 - a row
    origins = [EXACT, BELOW, "http://localhost:5173", "capacitor://localhost", "https://[::1]:8443"]
    assert allowed(CorsSettings(origins), origin) == (origin if is_allowed else None)


def test_all_origins_are_one_value() -> None:
    settings = CorsSettings(["*"])
    assert allowed(settings, b"https://a.example") == allowed(settings, b"null") == b"*"
    assert settings.response_headers(None) == []


def test_a_script_may_read_what_the_gateway_adds() -> None:
    headers = dict(CorsSettings([EXACT], expose_headers=["X-Total", "etag"]).response_headers(EXACT.encode()))
    exposed = headers[b"access-control-expose-headers"].decode().split(", ")
    assert {"RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id", "WWW-Authenticate"} <= set(exposed)
    assert exposed == [*EXPOSED, "X-Total", "etag"]
    assert b"access-control-allow-credentials" not in headers


def test_cookies_are_sent_only_where_a_setting_says_so() -> None:
    settings = CorsSettings([EXACT], allow_credentials=True)
    assert dict(settings.response_headers(EXACT.encode()))[b"access-control-allow-credentials"] == b"true"
    with pytest.raises(ConfigurationError, match="list the origins instead"):
        CorsSettings(["*"], allow_credentials=True)
    with pytest.raises(ConfigurationError, match="list the origins instead"):
        CorsSettings([EXACT, "*"], allow_credentials=True)


@pytest.mark.parametrize(
    "options, requested, expected",
    [
        (
            {},
            b"x-api-key, content-type",
            {
                b"vary": b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
                b"access-control-allow-origin": EXACT.encode(),
                b"access-control-allow-methods": b"GET, HEAD, POST, PUT, PATCH, DELETE",
                b"access-control-allow-headers": b"x-api-key, content-type",
                b"access-control-max-age": b"600",
            },
        ),
        (
            {"methods": ["GET"], "headers": ["Authorization", "X-A"], "max_age_seconds": 0},
            None,
            {
                b"vary": b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
                b"access-control-allow-origin": EXACT.encode(),
                b"access-control-allow-methods": b"GET",
                b"access-control-allow-headers": b"Authorization, X-A",
                b"access-control-max-age": b"0",
            },
        ),
        (
            {"methods": ["*"], "origins": ["*"]},
            b"x\r\ny",  # what is no list of names is not returned
            {
                b"vary": b"Access-Control-Request-Method, Access-Control-Request-Headers",
                b"access-control-allow-origin": b"*",
                b"access-control-allow-methods": b"PATCH",
                b"access-control-max-age": b"600",
            },
        ),
    ],
)
def test_a_preflight_is_told_what_is_allowed(
    options: dict[str, object], requested: bytes | None, expected: dict[bytes, bytes]
) -> None:
    settings = CorsSettings(**({"origins": [EXACT]} | options))  # type: ignore[arg-type]  # a row
    assert dict(settings.preflight_headers(EXACT.encode(), b"PATCH", requested)) == expected


def test_a_preflight_of_another_origin_is_told_nothing() -> None:
    headers = CorsSettings([EXACT]).preflight_headers(b"https://other.example", b"GET", None)
    assert [name for name, _ in headers] == [b"vary"]


@pytest.mark.parametrize(
    "values, expected",
    [
        ([], b"Origin"),
        ([b"Accept-Encoding"], b"Accept-Encoding, Origin"),
        ([b"Accept-Encoding, origin"], b"Accept-Encoding, origin"),
        ([b"Origin", b"Accept"], b"Origin, Accept"),
        ([b"*"], b"*"),
    ],
)
def test_vary_names_the_origin_once(values: list[bytes], expected: bytes) -> None:
    assert merge_vary(values) == expected


@pytest.mark.parametrize(
    "options, message",
    [
        ({"origins": ["https://app.example.com/"]}, "drop all but scheme, host and port: https://app.example.com"),
        ({"origins": ["https://app.example.com/path"]}, "drop all but scheme, host and port"),
        ({"origins": ["https://app.example.com?x=1"]}, "drop all but scheme, host and port"),
        ({"origins": ["https://user@app.example.com"]}, "drop all but scheme, host and port: https://app.example.com"),
        ({"origins": ["app.example.com"]}, "lacks a scheme: write https://app.example.com"),
        ({"origins": ["null"]}, "sandboxed frame"),
        ({"origins": ["https://app.example.com:443"]}, "drop :443"),
        ({"origins": ["http://app.example.com:80"]}, "drop :80"),
        ({"origins": ["https://bücher.example"]}, "xn--"),
        ({"origins": ["https://*"]}, "is not an origin"),
        ({"origins": ["https://a.*.example.com"]}, "is not an origin"),
        ({"origins": ["https://*.com"]}, "every site below com"),
        ({"origins": ["*.example.com"]}, "lacks a scheme"),
        ({"origins": [""]}, "lacks a scheme"),
        ({"origins": [1]}, "origins is a list of texts"),
        ({"methods": ["get"]}, "methods: 'get' is not a method"),
        ({"headers": ["X Y"]}, "headers: 'X Y' is not the name of a header"),
        ({"expose_headers": ["X:"]}, "expose_headers"),
        ({"max_age_seconds": -1}, "max_age_seconds is a whole number"),
        ({"max_age_seconds": True}, "max_age_seconds"),
        ({"max_age_seconds": 86_401}, "up to 86400"),
        ({"allow_credentials": "yes"}, "allow_credentials is true or false"),
    ],
)
def test_a_wrong_setting_names_the_way_out(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CorsSettings(**({"origins": [EXACT]} | options))  # type: ignore[arg-type]  # a row


def test_text_is_split_as_the_environment_has_it() -> None:
    assert CorsSettings("https://A.example, https://b.example") == CorsSettings(
        ["https://a.example", "https://b.example"]
    )


def test_a_route_has_a_table_of_its_own() -> None:
    assert Route("GET /a", cors={"origins": [EXACT]}).cors == CorsSettings([EXACT])
    for wrong, message in (
        ({"origin": EXACT}, "'origin' is not a setting here"),
        ({"methods": ["GET"]}, "cors lacks origins"),
        ({"origins": ["x"]}, "Route 'GET /a': cors: origins: 'x' lacks a scheme"),
        ("x", "is not a table"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            Route("GET /a", cors=wrong)  # type: ignore[arg-type]  # a row


def test_routes_that_servers_confuse_have_cors_only_in_common() -> None:
    one, two = Route("GET /a", cors={"origins": [EXACT]}), Route("GET /b")
    assert Route.all_of((one, two)).cors == CORS_OFF
    assert Route.all_of((one, one)).cors == one.cors
