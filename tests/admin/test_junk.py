"""Invalid queries, paths and headers get a problem, and have no effect."""

import pytest

from tests.admin.conftest import Api, Caller, in_memory, places, status_and_code

pytestmark = in_memory


@pytest.mark.parametrize(
    "path, mistaken, why",
    [
        ("/v1/keys?limit=1", [], "as few as can be"),
        ("/v1/keys?limit=100", [], "as many as can be"),
        ("/v1/keys?limit=0", ["query.limit"], "none"),
        ("/v1/keys?limit=101", ["query.limit"], "too many"),
        ("/v1/keys?limit=-1", ["query.limit"], "negative"),
        ("/v1/keys?limit=%2B1", ["query.limit"], "a sign"),
        ("/v1/keys?limit=1.0", ["query.limit"], "a fraction"),
        ("/v1/keys?limit=1e1", ["query.limit"], "an exponent"),
        ("/v1/keys?limit=1_0", ["query.limit"], "digits as Python groups them"),
        ("/v1/keys?limit=%201", ["query.limit"], "a blank"),
        ("/v1/keys?limit=%D9%A3", ["query.limit"], "another script's digit"),
        ("/v1/keys?limit=%EF%BC%93", ["query.limit"], "a full-width digit"),
        ("/v1/keys?limit=" + "9" * 5000, ["query.limit"], "5,000 digits"),
        ("/v1/keys?limit=", ["query.limit"], "empty"),
        ("/v1/keys?limit", ["query.limit"], "no value"),
        ("/v1/keys?limit=%00", ["query.limit"], "NUL"),
        ("/v1/keys?limit=%FF", ["query.limit"], "no UTF-8"),
        ("/v1/keys?limit=1&limit=1", ["query.limit"], "twice the same"),
        ("/v1/keys?limit=1&l%69mit=2", ["query.limit"], "twice, written in two ways"),
        ("/v1/keys?Limit=1", ["query.Limit"], "in another case"),
        ("/v1/keys?limit[]=1", ["query.limit[]"], "as PHP writes lists"),
        ("/v1/keys?page=1&sort=name", ["query.page", "query.sort"], "unknown, both told"),
        ("/v1/keys?after=", ["query.after"], "empty"),
        ("/v1/keys?after=1", ["query.after"], "no id"),
        ("/v1/keys?after=key_", ["query.after"], "half an id"),
        ("/v1/keys?after=key_1%0A", ["query.after"], "a line end"),
        ("/v1/keys?after=key_" + "1" * 61, ["query.after"], "too long"),
        ("/v1/keys?after=key_1", ["query.after"], "no such key"),
        ("/v1/keys?environment=all", ["query.environment"], "no environment"),
        ("/v1/keys?status=gone&environment=", ["query.environment", "query.status"], "neither"),
        ("/v1/keys?status=active&status=revoked", ["query.status"], "two, which could mean either"),
        ("/v1/audit-log?after=audit_0", ["query.after"], "entries are counted from 1"),
        ("/v1/audit-log?after=audit_" + "9" * 18, [], "as high as can be"),
        ("/v1/audit-log?after=audit_" + "9" * 19, ["query.after"], "past what a database counts"),
        ("/v1/audit-log?after=1", ["query.after"], "no id"),
        ("/v1/audit-log?limit=101", ["query.limit"], "too many"),
        ("/v1/audit-log?environment=live", ["query.environment"], "not of the log"),
        ("/v1/whoami?verbose=true", ["query.verbose"], "takes none"),
        ("/v1/keys/key_1?expand=usage", ["query.expand"], "takes none, and is asked before the key is looked up"),
    ],
)  # fmt: skip
async def test_an_invalid_query_is_refused(admin: Caller, path: str, mistaken: list[str], why: str) -> None:
    response = await admin.ask("GET", path)
    assert (response.status_code, sorted(places(response))) == (422 if mistaken else 200, mistaken), why


@pytest.mark.parametrize("value", ["", "True", "TRUE", "1", "yes", "on", "true%20", "true&self=true"])
async def test_only_self_true_confirms_a_self_revocation(admin: Caller, value: str) -> None:
    response = await admin.ask("POST", f"/v1/keys/{admin.id}/revoke?self={value}")
    assert (response.status_code, places(response)) == (422, ["query.self"])
    assert (await admin.ask("GET", "/v1/whoami")).status_code == 200


async def test_at_most_a_hundred_errors_in_a_query_are_reported(admin: Caller) -> None:
    for query in ("&".join(f"a{n}=1" for n in range(500)), "&".join(f"a{n}=1&a{n}=2" for n in range(500))):
        assert len(places(await admin.ask("GET", f"/v1/keys?{query}"))) == 100


@pytest.mark.parametrize(
    "key_id",
    [
        "key_1", "key_", "x", "1", "-1", "null", "undefined", "KEY_1", "key-1", "*", "{id}", "%7Bid%7D", "key_1%20",
        "+", "%27%20OR%201=1--", "caf%C3%A9", "%F0%9F%94%91", "%E2%80%AE", "a" * 64, "a" * 65, "a" * 8000,
        "rotate", "openapi.json", "~", "key_1;v=1", "key_1,key_2", "%25252e", "@", "key_1:revoke",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method, action", [("GET", ""), ("PATCH", ""), ("POST", "/rotate"), ("POST", "/revoke")])
async def test_an_unknown_id_is_not_found(admin: Caller, method: str, action: str, key_id: str) -> None:
    body: dict[str, str] | None = None if method == "GET" else {}
    before = await admin.api.head()
    response = await admin.ask(method, f"/v1/keys/{key_id}{action}", body)
    assert status_and_code(response) == (404, "not_found")
    assert await admin.api.head() == before


@pytest.mark.parametrize(
    "path", ["/v1/keys/%00", "/v1/keys/a%0A", "/v1/keys%0A", "/v1/keys/a%2Frotate", "/v1/keys/%FF",
             "/v1/keys/%ED%A0%80", "/v1/keys/%5C", "/v1//keys", "/v1/keys//rotate", "/v1/whoami/%2e%2e/keys",
             "/v1/audit-log%0d", "/v1/keys/..%3B"],
)  # fmt: skip
async def test_an_ambiguous_path_is_refused(api: Api, path: str) -> None:
    caller = await api.caller(scopes=[])
    assert status_and_code(await caller.ask("GET", path)) == (400, "malformed_request")


@pytest.mark.parametrize(
    "values, why",
    [
        ([b""], "empty"),
        ([b"a", b"a"], "twice"),
        ([b"a" * 256], "too long"),
        (["é".encode()], "no ASCII"),
        ([b"\xff"], "no text"),
        ([b"a\tb"], "a tab"),
        ([b"a\x7f"], "a control character"),
    ],
)
async def test_an_idempotency_key_is_1_to_255_printable_characters(
    admin: Caller, values: list[bytes], why: str
) -> None:
    created = await admin.created()
    before = await admin.api.head()
    headers = [(b"idempotency-key", value) for value in values]
    for path, body in (("/v1/keys", b'{"name":"a","scopes":[]}'), (f"/v1/keys/{created['id']}/rotate", b"{}")):
        declared = (b"content-type", b"application/json")
        response = await admin.ask("POST", path, content=body, headers=[*headers, declared])
        assert (response.status_code, places(response)) == (422, ["header.Idempotency-Key"]), why
    assert await admin.api.head() == before


@pytest.mark.parametrize("name", ["a", "a" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "a b", "{}", "~!@#$%^&*()"])
async def test_any_printable_idempotency_key_is_accepted(admin: Caller, name: str) -> None:
    body, headers = {"name": "a", "scopes": []}, {"Idempotency-Key": name}
    first, second = [await admin.ask("POST", "/v1/keys", body, headers=headers) for _ in range(2)]
    assert (first.status_code, second.status_code, second.json()) == (201, 201, first.json())


@pytest.mark.parametrize("place", ["query name", "query value", "path", "idempotency", "if-match", "content-type"])
async def test_a_secret_in_any_other_part_of_a_request_is_not_repeated(admin: Caller, place: str) -> None:
    secret, body = admin.secret, {"name": "a", "scopes": []}
    before = await admin.api.head()
    response = {
        "query name": lambda: admin.ask("GET", f"/v1/keys?{secret}=1&{secret}=2"),
        "query value": lambda: admin.ask("GET", f"/v1/keys?after={secret}&limit={secret}&status={secret}"),
        "path": lambda: admin.ask("GET", f"/v1/keys/{secret}"),
        "idempotency": lambda: admin.ask("POST", "/v1/keys", body, headers={"Idempotency-Key": secret * 6}),
        "if-match": lambda: admin.ask("PATCH", f"/v1/keys/{admin.id}", {}, headers={"If-Match": secret}),
        "content-type": lambda: admin.ask("POST", "/v1/keys", content=b"x", headers={"Content-Type": secret}),
    }[place]()
    refused = await response
    assert 400 <= refused.status_code < 500
    assert secret[13:21] not in refused.text + str(refused.headers)
    assert await admin.api.head() == before
