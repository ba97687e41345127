"""Redirect URIs that are not the registered one: nobody is sent there (RFC 9700 §2.1 and §4.11)."""

from tests.oauth.interop.wire_requests import Row, authorize

_ANOTHER = (
    "https://app.example.org/callback/",
    "https://app.example.org/callback/more",
    "https://app.example.org/callback/..",
    "https://app.example.org/callback/%2e%2e/callback",
    "https://app.example.org/./callback",
    "https://app.example.org//callback",
    "https://app.example.org/Callback",
    "https://app.example.org/callbac%6b",
    "https://app.example.org/callback?x=1",
    "https://app.example.org/callback?",
    "https://app.example.org/callback#",
    "https://app.example.org/callback#f",
    "https://APP.example.org/callback",
    "HTTPS://app.example.org/callback",
    "http://app.example.org/callback",
    "https://app.example.org:443/callback",
    "https://app.example.org:8443/callback",
    "https://app.example.org./callback",
    "https://ada@app.example.org/callback",
    "https://app.example.org@evil.example/callback",
    "https://app.example.org.evil.example/callback",
    "https://evil.example/callback",
    "https://evil.example\\.app.example.org/callback",
    "https:/\\app.example.org/callback",
    "//app.example.org/callback",
    "/callback",
    "https://app.example.org/call\tback",
    "https://app.example.org/callback\n",
    " https://app.example.org/callback",
    "https://app.example.org/callback\0",
    "https://\u0430pp.example.org/callback",
    "https://xn--pp-6kc.example.org/callback",
    "javascript:alert(1)",
    "data:text/html,x",
    "x",
)
_OF_NATIVE_APPS = (
    ("http://127.0.0.1/callback", "asks"),
    ("http://127.0.0.1:54321/callback", "asks"),
    ("http://localhost/callback", "400 page"),
    ("http://localhost:54321/callback", "400 page"),
    ("http://127.0.0.1:54321/other", "400 page"),
    ("http://127.0.0.1:54321/callback?x=1", "400 page"),
    ("https://127.0.0.1:54321/callback", "400 page"),
    ("http://127.0.0.2:54321/callback", "400 page"),
    ("http://[::1]:54321/callback", "400 page"),
    ("http://127.0.0.1.evil.example/callback", "400 page"),
    ("http://127.0.0.1:54321@evil.example/callback", "400 page"),
    ("http://0x7f.1/callback", "400 page"),
    ("http://2130706433/callback", "400 page"),
)

ROWS: tuple[Row, ...] = (
    *(authorize(f"redirect_uri is {uri!a}", "400 page", redirect_uri=uri) for uri in _ANOTHER),
    *(
        authorize(f"a native app's redirect_uri is {uri}", outcome, client_id="{native.id}", redirect_uri=uri)
        for uri, outcome in _OF_NATIVE_APPS
    ),
    authorize("redirect_uri is missing where one is registered", "asks", redirect_uri=None),
    authorize("redirect_uri is another app's", "400 page", redirect_uri="{other.redirect_uri}"),
    authorize(
        "redirect_uri is another one, with a wrong scope", "400 page", redirect_uri="https://evil.example/", scope="x"
    ),
    authorize(
        "redirect_uri is there twice",
        "400 page",
        "303 invalid_request",
        "An invalid redirect_uri has nobody sent anywhere (RFC 6749 §4.1.2.1), not even to the one that is registered.",
        redirect_uri=("{web.redirect_uri}", "https://evil.example/"),
    ),
)
