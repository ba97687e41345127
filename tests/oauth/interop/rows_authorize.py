"""Authorization requests."""

from tests.oauth.interop.wire_requests import METHOD, UNKNOWN_SCOPE, Asked, Row, authorize

_IMPLICIT = (
    "Fragments are of the implicit grant (RFC 6749 §4.2.2.1), which is none that we know: errors go where codes go."
)
_TYPE = "A response type is one that is registered, in any order of its words (RFC 6749 §3.1.1), and this one is none."
_MODES = "We have the query alone, and say so (response_modes_supported, RFC 8414 §2); they have all three always."
_MODE = "A value that is not supported is invalid_request: RFC 6749 §4.1.2.1 has no unsupported_response_mode."
_CHALLENGE = "The challenge of S256 has 43 characters (RFC 7636 §4.2), and no verifier will ever fit another one."
_LONG = "The state has no limit in RFC 6749 §4.1.1, and has one here, as it is in every address up to the code."

ROWS = (
    authorize("a good one", "asks"),
    authorize("unknown parameters", "asks", unheard="of", display="page"),
    # Who asks, and what for at all.
    authorize("client_id is missing", "400 page", client_id=None),
    authorize("client_id is empty", "400 page", client_id=""),
    authorize("client_id is unknown", "400 page", client_id="app_0000000000000000000000"),
    authorize("client_id is another app's", "400 page", client_id="{other.id}"),
    authorize("client_id is in another case", "400 page", client_id="APP{web.id}"),
    authorize("client_id is there twice", "400 page", client_id=("{web.id}", "{web.id}")),
    authorize("client_id is of an app that asks nobody", "400 page", client_id="{machine.id}"),
    authorize("response_type is missing", "303 invalid_request", response_type=None),
    authorize("response_type is empty", "303 invalid_request", response_type=""),
    authorize("response_type is there twice", "303 invalid_request", response_type=("code", "code")),
    authorize(
        "response_type is token",
        "303 unsupported_response_type",
        "303 unsupported_response_type in the fragment",
        _IMPLICIT,
        response_type="token",
    ),
    authorize(
        "response_type is id_token",
        "303 unsupported_response_type",
        "303 unsupported_response_type in the fragment",
        _IMPLICIT,
        response_type="id_token",
    ),
    authorize(
        "response_type is code token",
        "303 unsupported_response_type",
        "303 unsupported_response_type in the fragment",
        _IMPLICIT,
        response_type="code token",
    ),
    authorize("response_type is none", "303 unsupported_response_type", response_type="none"),
    authorize("response_type is CODE", "303 unsupported_response_type", response_type="CODE"),
    authorize("response_type is code code", "303 unsupported_response_type", "asks", _TYPE, response_type="code code"),
    authorize("response_mode is fragment", "303 invalid_request", "asks", _MODES, response_mode="fragment"),
    authorize("response_mode is form_post", "303 invalid_request", "asks", _MODES, response_mode="form_post"),
    authorize(
        "response_mode is unheard of",
        "303 invalid_request",
        "303 unsupported_response_mode",
        _MODE,
        response_mode="pigeon",
    ),
    authorize("a request object", "303 request_not_supported", request="a.b.c"),
    authorize("a request_uri", "303 request_uri_not_supported", request_uri="https://app.example.org/request"),
    authorize("prompt is unheard of", "303 invalid_request", prompt="unheard"),
    authorize("prompt is none and login", "303 invalid_request", prompt="none login"),
    authorize("prompt is none, and nobody is signed in", "303 login_required", prompt="none"),
    # Scopes and resources.
    authorize("scope is missing", "asks", scope=None),
    authorize("scope is unknown", "303 invalid_scope", "asks", UNKNOWN_SCOPE, scope="nothing:known"),
    authorize(
        "scope is partly unknown", "303 invalid_scope", "asks", UNKNOWN_SCOPE, scope="account:read nothing:known"
    ),
    authorize("scope is more than the app may have", "303 invalid_scope", scope="account:read keys:read"),
    authorize("scope has two spaces", "303 invalid_scope", scope="account:read  skills:execute"),
    authorize("scope ends in a space", "303 invalid_scope", scope="account:read "),
    authorize("scope is a space", "303 invalid_scope", scope=" "),
    authorize("scope has a quote", "303 invalid_scope", scope='account:read"'),
    authorize("scope has a tab", "303 invalid_scope", scope="account:read\tskills:execute"),
    authorize("scope is there twice", "303 invalid_request", scope=("account:read", "skills:execute")),
    authorize("resource is the other one", "asks", resource="https://reports.example.com"),
    authorize("resource is unknown", "303 invalid_target", resource="https://nowhere.example"),
    authorize("resource has a fragment", "303 invalid_target", resource="https://reports.example.com#f"),
    authorize("resource is no absolute URI", "303 invalid_target", resource="/reports"),
    authorize(
        "one of two resources is unknown", "303 invalid_target", resource=("{audience}", "https://nowhere.example")
    ),
    # PKCE.
    authorize("code_challenge is missing", "303 invalid_request", code_challenge=None),
    authorize("PKCE is missing", "303 invalid_request", code_challenge=None, code_challenge_method=None),
    authorize("code_challenge_method is missing", "303 invalid_request", code_challenge_method=None),
    authorize("code_challenge_method is plain", "303 invalid_request", code_challenge_method="plain"),
    authorize("code_challenge_method is s256", "303 invalid_request", code_challenge_method="s256"),
    authorize("code_challenge is short", "303 invalid_request", code_challenge="c" * 42),
    authorize("code_challenge is long", "303 invalid_request", code_challenge="c" * 129),
    authorize(
        "code_challenge is longer than a digest", "303 invalid_request", "asks", _CHALLENGE, code_challenge="c" * 44
    ),
    authorize("code_challenge has a +", "303 invalid_request", code_challenge="c" * 42 + "+"),
    authorize("code_challenge is there twice", "303 invalid_request", code_challenge=("{challenge}", "{challenge}")),
    # State.
    authorize(
        "state is missing, and response_type is wrong", "303 unsupported_response_type", state=None, response_type="x"
    ),
    authorize(
        "state is long, and response_type is wrong",
        "303 unsupported_response_type",
        state="s" * 2048,
        response_type="x",
    ),
    authorize("state is text of all kinds", "303 unsupported_response_type", state="ä€🔑 +%41&=<b>", response_type="x"),
    authorize("state is there twice", "303 invalid_request", state=("s-1", "s-2")),
    authorize("state is over 4096 characters", "303 invalid_request", "asks", _LONG, state="s" * 4097),
    Row(
        "state has bytes that are no text",
        "303 unsupported_response_type",
        Asked(
            "authorize",
            {},
            method="GET",
            query={"client_id": "{web.id}", "redirect_uri": "{web.redirect_uri}", "response_type": "x"},
            tail="&state=%ff%00%c3%28",
        ),
        "303 unsupported_response_type with another state",
        "What comes back is the exact value that was sent (RFC 6749 §4.1.2.1), and they read it as UTF-8.",
    ),
    Row("a request by POST", "405", Asked("authorize", authorize("", "").request.query), "404", METHOD),
)
