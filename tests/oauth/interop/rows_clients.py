"""Who asks, at the token endpoint: how clients are authenticated, and how a request is read before that."""

from tests.oauth.interop.wire_requests import (
    AS_IT_IS,
    BASIC,
    MACHINE,
    METHOD,
    NATIVE,
    NO_CLIENT,
    NOBODY,
    OTHER,
    POST,
    Asked,
    By,
    Row,
    redeem,
    token,
)

_HEADER = "Who cannot be told by the Authorization header gets 401 and a challenge (RFC 6749 §5.2)."
_HEADERS = "Authorization is one value (RFC 9110 §11.6.2), and Node.js shows them the first of two alone."
_UNAUTHORIZED = "That a client may not use a grant has a code of its own (RFC 6749 §5.2)."
_EMPTY = (
    "A secret that is empty may be left out (RFC 6749 §2.3.1), and requests-oauthlib sends it so for public clients."
)
_QUERY = "Parameters go into the body, and secrets never into the address (RFC 6749 §2.3.1), so we read none there."
_OWN = {"grant_type": "client_credentials"}
_UNKNOWN = "app_0000000000000000000000"
_WRONG = "cs_mp1_" + "0" * 38


def own(claim: str, outcome: str, theirs: str = "", why: str = "", *, by: By = BASIC, **values: str) -> Row:
    """Return a row about a client that asks for a token for itself."""
    return token(claim, outcome, theirs, why, by=by, **(_OWN | values))


def raw(claim: str, outcome: str, theirs: str = "", why: str = "", **changes: object) -> Row:
    """Return a row about such a request that is sent in another manner."""
    given = {"endpoint": "token", "values": _OWN, "authorization": BASIC.authorization} | changes
    return Row(claim, outcome, Asked(**given), theirs, why)  # type: ignore[arg-type]  # its own arguments


ROWS = (
    own("by Basic", "200"),
    own("in the body", "200", by=POST),
    own("by Basic, every character percent-encoded", "200", by=By((f"{AS_IT_IS} {{escaped_id}} {{escaped_secret}}",))),
    own("by basic", "200", by=By(("basic {web.id} {web.secret}",))),
    own("by Basic, and its name in the body", "200", client_id="{web.id}"),
    own("by Basic, and another name in the body", "400 invalid_request", client_id="{other.id}"),
    own("by Basic and in the body", "400 invalid_request", client_id="{web.id}", client_secret="{web.secret}"),
    own("by Basic, and a wrong secret in the body", "400 invalid_request", client_secret=_WRONG),
    own("by nothing", "401 invalid_client", "400 invalid_request", NO_CLIENT, by=NOBODY),
    own("by an empty name", "401 invalid_client", "400 invalid_request", NO_CLIENT, by=NOBODY, client_id=""),
    own("by its name alone", "401 invalid_client", by=NOBODY, client_id="{web.id}"),
    own("by an unknown name", "401 invalid_client", by=NOBODY, client_id=_UNKNOWN),
    own("by an unknown name and a secret", "401 invalid_client", by=By((f"Basic {_UNKNOWN} {{web.secret}}",))),
    own("by a wrong secret", "401 invalid_client", by=By((f"Basic {{web.id}} {_WRONG}",))),
    own("by a wrong secret in the body", "401 invalid_client", by=NOBODY, client_id="{web.id}", client_secret=_WRONG),
    own("by another client's secret", "401 invalid_client", by=By(("Basic {web.id} {other.secret}",))),
    own("by a secret in another case", "401 invalid_client", by=By(("Basic {web.id} CS{web.secret}",))),
    own("by Basic that is no base64", "401 invalid_client", "400 invalid_request", _HEADER, by=By(("Basic ***",))),
    own("by Basic without a colon", "401 invalid_client", "400 invalid_request", _HEADER, by=By(("Basic YWJj",))),
    own(
        "by Basic with a broken escape",
        "401 invalid_client",
        "400 invalid_request",
        _HEADER,
        by=By((f"{AS_IT_IS} {{web.id}} %zz",)),
    ),
    own("by Bearer", "401 invalid_client", "400 invalid_request", _HEADER, by=By(("Bearer {web.secret}",))),
    own("by two headers", "401 invalid_client", "200", _HEADERS, by=By((*BASIC.authorization, *OTHER.authorization))),
    own("a public client, by its name", "400 unauthorized_client", "400 invalid_request", _UNAUTHORIZED, by=NATIVE),
    redeem(
        "a public client with a secret",
        "401 invalid_client",
        by=NATIVE,
        code="{native_code}",
        redirect_uri="{native.redirect_uri}",
        client_secret=_WRONG,
    ),
    redeem(
        "a public client with a secret by Basic",
        "401 invalid_client",
        by=By((f"Basic {{native.id}} {_WRONG}",)),
        code="{native_code}",
        redirect_uri="{native.redirect_uri}",
    ),
    redeem(
        "a public client by Basic, without a secret",
        "200",
        "400 invalid_request",
        _EMPTY,
        by=By((f"{AS_IT_IS} {{native.id}} ",)),
        code="{native_code}",
        redirect_uri="{native.redirect_uri}",
    ),
    redeem(
        "a public client by its name",
        "200",
        by=NATIVE,
        code="{native_code}",
        redirect_uri="{native.redirect_uri}",
    ),
    redeem(
        "of a client that may not use codes",
        "400 unauthorized_client",
        "400 invalid_request",
        _UNAUTHORIZED,
        by=MACHINE,
    ),
    # How a request is written.
    raw("by GET", "405", "404", METHOD, method="GET", values={}, query=_OWN),
    raw("by PUT", "405", "404", METHOD, method="PUT"),
    raw("all of it in the query", "400 invalid_request", values={}, authorization=(), query={**_OWN, **POST.values}),
    raw("its secret in the query", "400 invalid_request", authorization=(), query=POST.values),
    raw("something else in the query", "400 invalid_request", "200", _QUERY, query={"x": "1"}),
    raw(
        "in JSON", "400 invalid_request", content_type="application/json", body='{{"grant_type": "client_credentials"}}'
    ),
    raw("in JSON that says that it is a form", "400 invalid_request", body='{{"grant_type": "client_credentials"}}'),
    raw("in multipart/form-data", "400 invalid_request", content_type="multipart/form-data; boundary=x"),
    raw("in text/plain", "400 invalid_request", content_type="text/plain"),
    raw("in a form in UTF-8", "200", content_type="application/x-www-form-urlencoded; charset=UTF-8"),
    raw("in a form in capitals", "200", content_type="Application/X-WWW-Form-URLEncoded"),
    raw("in no type at all", "400 invalid_request", content_type=""),
    raw("with nothing in it", "400 invalid_request", values={}),
    raw("with a megabyte in it", "400 invalid_request", values=_OWN | {"x": "y" * 1_000_000}),
)
