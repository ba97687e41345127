"""What is asked for at the token endpoint."""

from tests.oauth.interop.wire_requests import BASIC, NATIVE, OTHER, UNKNOWN_SCOPE, Asked, Row, Values, redeem, token

_TWICE = "No parameter may be there twice (RFC 6749 §3.2), and they look at those alone that they know."
_VERIFIER = (
    "What is missing makes an invalid_request (RFC 6749 §5.2); invalid_grant is for what is there and does not fit."
)
_GRACE = (
    "Rotation ends what was stolen (RFC 9700 §4.14.2); for some seconds, who lost an answer is given the same again."
)
_RESOURCES = "Several resources may be asked for at once (RFC 8707 §2), and they give no token for more than one."


def refresh(claim: str, outcome: str, theirs: str = "", why: str = "", **values: str | tuple[str, ...] | None) -> Row:
    """Return a row about a good refresh of the app `web`, with other *values*."""
    given: Values = {"grant_type": "refresh_token", "refresh_token": "{refresh}", **values}
    return Row(f"refreshing: {claim}", outcome, Asked("token", given, BASIC.authorization), theirs, why)


def own(claim: str, outcome: str, theirs: str = "", why: str = "", **values: str | tuple[str, ...]) -> Row:
    """Return a row about a token that the app `web` asks for itself."""
    given: Values = {"grant_type": "client_credentials", **values}
    return Row(f"for itself: {claim}", outcome, Asked("token", given, BASIC.authorization), theirs, why)


ROWS = (
    # Grants.
    token("grant_type is missing", "400 invalid_request"),
    token("grant_type is empty", "400 invalid_request", grant_type=""),
    token("grant_type is there twice", "400 invalid_request", grant_type=("client_credentials",) * 2),
    token("grant_type is password", "400 unsupported_grant_type", grant_type="password", username="a", password="b"),
    token("grant_type is implicit", "400 unsupported_grant_type", grant_type="implicit"),
    token("grant_type is in capitals", "400 unsupported_grant_type", grant_type="CLIENT_CREDENTIALS"),
    token(
        "grant_type is jwt-bearer",
        "400 unsupported_grant_type",
        grant_type="urn:ietf:params:oauth:grant-type:jwt-bearer",
        assertion="a.b.c",
    ),
    # Codes.
    redeem("a good code", "200"),
    redeem("a good code, and unknown parameters", "200", unheard="of"),
    redeem("an unknown parameter twice", "400 invalid_request", "200", _TWICE, unheard=("of", "of")),
    redeem("code is missing", "400 invalid_request", code=None),
    redeem("code is unknown", "400 invalid_grant", code="unknown"),
    redeem("code is NUL", "400 invalid_grant", code="\0"),
    redeem("code is there twice", "400 invalid_request", code=("{code}", "{code}")),
    redeem("code was used", "400 invalid_grant", code="{used_code}"),
    redeem("code is another client's", "400 invalid_grant", by=OTHER, redirect_uri="{web.redirect_uri}"),
    redeem(
        "code is another client's, a public one's",
        "400 invalid_grant",
        code="{native_code}",
        redirect_uri="{native.redirect_uri}",
    ),
    redeem("code is a refresh token", "400 invalid_grant", code="{refresh}"),
    redeem("redirect_uri is another one", "400 invalid_grant", redirect_uri="https://evil.example/"),
    redeem("redirect_uri has a slash more", "400 invalid_grant", redirect_uri="{web.redirect_uri}/"),
    redeem("redirect_uri is missing, where there is PKCE", "200", redirect_uri=None),
    redeem("code_verifier is missing", "400 invalid_request", "400 invalid_grant", _VERIFIER, code_verifier=None),
    redeem("code_verifier is empty", "400 invalid_request", "400 invalid_grant", _VERIFIER, code_verifier=""),
    redeem("code_verifier is wrong", "400 invalid_grant", code_verifier="w" * 43),
    redeem("code_verifier is the challenge", "400 invalid_grant", code_verifier="{challenge}"),
    redeem("code_verifier is short", "400 invalid_request", code_verifier="v" * 42),
    redeem("code_verifier is long", "400 invalid_request", code_verifier="v" * 129),
    redeem("code_verifier has a space", "400 invalid_request", code_verifier="v" * 42 + " v"),
    redeem("code_verifier is there twice", "400 invalid_request", code_verifier=("{verifier}", "{verifier}")),
    redeem("resource is less than the code's", "200", resource="{audience}"),
    redeem("resource is not the code's", "400 invalid_target", resource="https://reports.example.com"),
    redeem("resource is unknown", "400 invalid_target", resource="https://nowhere.example"),
    redeem("scope is told though none is asked for", "200", scope="account:read"),
    # Refresh tokens.
    refresh("a good refresh token", "200"),
    refresh("refresh_token is missing", "400 invalid_request", refresh_token=None),
    refresh("refresh_token is unknown", "400 invalid_grant", refresh_token="unknown"),
    refresh("refresh_token is there twice", "400 invalid_request", refresh_token=("{refresh}", "{refresh}")),
    refresh("refresh_token is an access token", "400 invalid_grant", refresh_token="{access}"),
    refresh("refresh_token is a code", "400 invalid_grant", refresh_token="{code}"),
    refresh("refresh_token is another client's", "400 invalid_grant", refresh_token="{other_refresh}"),
    refresh("refresh_token is a public client's", "400 invalid_grant", refresh_token="{native_refresh}"),
    token(
        "refresh_token is a confidential client's, asked with by a public one",
        "400 invalid_grant",
        by=NATIVE,
        grant_type="refresh_token",
        refresh_token="{refresh}",
    ),
    refresh("refresh_token was used a moment ago", "200", "400 invalid_grant", _GRACE, refresh_token="{used_refresh}"),
    refresh("refresh_token was used, and the one after it too", "400 invalid_grant", refresh_token="{older_refresh}"),
    refresh("an older refresh_token was used again", "400 invalid_grant", refresh_token="{refresh_after_reuse}"),
    refresh("the code of refresh_token was used again", "400 invalid_grant", refresh_token="{refresh_after_replay}"),
    refresh("refresh_token was revoked", "400 invalid_grant", refresh_token="{revoked_refresh}"),
    refresh("scope is narrower", "200", scope="account:read"),
    refresh(
        "scope is wider than was allowed",
        "400 invalid_scope",
        refresh_token="{narrow_refresh}",
        scope="account:read skills:execute",
    ),
    refresh("scope is more than the app may have", "400 invalid_scope", scope="account:read keys:read"),
    refresh("scope is unknown", "400 invalid_scope", scope="nothing:known"),
    refresh("scope is malformed", "400 invalid_scope", scope="account:read  skills:execute"),
    refresh("resource was not allowed", "400 invalid_target", resource="https://reports.example.com"),
    # A client's own.
    own("scope is some of it", "200", scope="account:read"),
    own("scope is more than the app may have", "400 invalid_scope", scope="keys:read"),
    own("scope is unknown", "400 invalid_scope", "200", UNKNOWN_SCOPE, scope="nothing:known"),
    own("scope is malformed", "400 invalid_scope", scope=" account:read"),
    own("scope is there twice", "400 invalid_request", scope=("account:read", "account:read")),
    own("resource is the other one", "200", resource="https://reports.example.com"),
    own("resource is unknown", "400 invalid_target", resource="https://nowhere.example"),
    own("resource has a fragment", "400 invalid_target", resource="https://reports.example.com#f"),
    own("resource is no absolute URI", "400 invalid_target", resource="reports"),
    own(
        "resources are two",
        "200",
        "400 invalid_target",
        _RESOURCES,
        resource=("{audience}", "https://reports.example.com"),
    ),
)
