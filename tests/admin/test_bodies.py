"""Raw bodies: malformed JSON, edge cases of JSON, and bodies that are too large."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest
from starlette.types import Message

from tests.admin.conftest import Api, Caller, in_memory, places

pytestmark = in_memory
GOOD = b'{"name":"a","scopes":[]}'


def padded(length: int) -> bytes:
    return GOOD[:-1] + b" " * (length - len(GOOD)) + b"}"


@pytest.mark.parametrize(
    "body, status, mistaken, why",
    [
        (b"{", 400, [], "cut off"),
        (b" ", 400, [], "a blank"),
        (b"name=a", 400, [], "a form"),
        (GOOD + b"}", 400, [], "something after it"),
        (GOOD + GOOD, 400, [], "two of them"),
        (b"{'name':'a','scopes':[]}", 400, [], "single quotes"),
        (b'{"name":"a","scopes":[],}', 400, [], "a comma too many"),
        (b'{"name":"a",/* */"scopes":[]}', 400, [], "a comment"),
        (b'{"name":"a\n","scopes":[]}', 400, [], "a bare control character"),
        (b"\xef\xbb\xbf" + GOOD, 400, [], "a byte order mark (RFC 8259 §8.1)"),
        (GOOD.decode().encode("utf-16"), 400, [], "UTF-16"),
        (b'{"name":"\xff","scopes":[]}', 400, [], "no UTF-8"),
        (b'{"name":"\xed\xa0\x80","scopes":[]}', 400, [], "a surrogate in UTF-8"),
        (b'{"name":"\xc0\xaf","scopes":[]}', 400, [], "an over-long encoding"),
        (b'{"name":"\\ud800","scopes":[]}', 400, [], "a lone surrogate"),
        (b'{"name":"a","scopes":[],"metadata":{"\\udfff":""}}', 400, [], "a lone surrogate in a key"),
        (b'{"name":"a","scopes":[],"metadata":{"k":"\\ud800x"}}', 400, [], "a lone surrogate in a value"),
        (b'{"name":"a\\u0000","scopes":[]}', 422, ["name"], "NUL, escaped"),
        (b"", 422, ["name", "scopes"], "nothing is an empty object"),
        (b"{}", 422, ["name", "scopes"], "an empty object"),
        (b"[]", 422, ["body"], "a list"),
        (b"null", 422, ["body"], "null"),
        (b"1e999", 422, ["body"], "a number past every number"),
        (b'"{}"', 422, ["body"], "JSON in JSON"),
        (b'{"name":"a","name":"b","scopes":[]}', 422, ["name"], "a member twice: which of them is meant?"),
        (b'{"name":"a","n\\u0061me":"b","scopes":[]}', 422, ["name"], "twice, written in two ways"),
        (b'{"name":"a","scopes":[],"metadata":{"k":"1","k":"1"}}', 422, ["metadata.k"], "twice further down"),
        (b'{"name":NaN,"scopes":[],"expires_at":Infinity}', 422, ["name", "expires_at"], "no numbers of JSON"),
        (b'{"name":"a","scopes":[],"expires_at":' + b"9" * 4000 + b"}", 422, ["expires_at"], "4,000 digits"),
        (b'{"name":"a","scopes":[],"x":' + b"[" * 100 + b"]" * 100 + b"}", 422, ["x"], "nested"),
        (b'{"name":"a","scopes":[],"x":' + b"[" * 300 + b"]" * 300 + b"}", 400, [], "nested deeper"),
        (b"[" * 100_000, 400, [], "nested without end"),
        (b'{"a":' * 40_000, 400, [], "objects without end"),
        (padded(262_144), 201, [], "as large as can be"),
        (padded(262_145), 413, [], "a byte more"),
        (b"\x00" * 1_000_000, 413, [], "a megabyte of nothing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_body_is_one_json_object_of_limited_size(
    admin: Caller, body: bytes, status: int, mistaken: list[str], why: str
) -> None:
    codes = {400: "malformed_body", 413: "body_too_large", 422: "invalid_fields"}
    for named in ({}, {"Idempotency-Key": "a"}):
        before = await admin.api.head()
        headers = {"Content-Type": "application/json"} | named
        response = await admin.ask("POST", "/v1/keys", content=body, headers=headers)
        assert (response.status_code, places(response)) == (status, mistaken), why
        assert (await admin.api.head() == before) is (status != 201)
        assert response.json().get("code") == codes.get(status)


@pytest.mark.parametrize("whole", [262_144, 262_145, 10_000_000])
async def test_a_body_without_a_content_length_is_limited_while_it_is_read(admin: Caller, whole: int) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        body = padded(whole)
        for at in range(0, whole, 1000):
            sent += 1
            yield body[at : at + 1000]

    headers = {"Content-Type": "application/json"}
    response = await admin.ask("POST", "/v1/keys", content=chunks(), headers=headers)
    assert response.status_code == (201 if whole == 262_144 else 413)


@pytest.mark.parametrize(
    "declared, status, why",
    [
        (["application/json"], 201, "as it should be"),
        (["Application/JSON ; Charset=utf-8"], 201, "media types have no case, and may have parameters"),
        (["application/json;charset=utf-16"], 201, "JSON is UTF-8 whatever a parameter says (RFC 8259 §11)"),
        ([], 415, "undeclared: a browser may send that without asking"),
        ([""], 415, "declared as nothing"),
        (["text/plain"], 415, "what a browser may send without asking"),
        (["application/x-www-form-urlencoded"], 415, "a form"),
        (["application/jsonx"], 415, "begins the same"),
        (["application/problem+json"], 415, "another kind of JSON"),
        (["text/plain, application/json"], 415, "a list"),
        (["text/plain", "application/json"], 415, "two headers"),
        (["application/json", "text/plain"], 415, "two headers"),
    ],
)
async def test_a_body_is_declared_as_json(admin: Caller, declared: list[str], status: int, why: str) -> None:
    headers = [("content-type", value) for value in declared]
    before = await admin.api.head()
    response = await admin.ask("POST", "/v1/keys", content=GOOD, headers=headers)
    assert response.status_code == status, why
    assert (await admin.api.head() == before) is (status != 201)


async def test_a_disconnect_during_the_body_leaves_nothing_behind(api: Api) -> None:
    caller = await api.caller()
    before = await api.head()
    sent: list[Message] = []
    messages: Iterator[Message] = iter(
        [{"type": "http.request", "body": GOOD, "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/keys", "query_string": b"", "client": ("192.0.2.1", 1),
        "headers": [(b"authorization", f"Bearer {caller.secret}".encode()), (b"content-type", b"application/json")],
    }  # fmt: skip
    await api.guarded.app(scope, receive, send)
    assert await api.head() == before
    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == [400]


@pytest.mark.parametrize("body", [b"", b"{}", json.dumps({"grace_seconds": 86_400}).encode()])
async def test_rotating_without_a_body_has_a_grace_of_a_day(admin: Caller, body: bytes) -> None:
    created = await admin.created()
    headers = {"Content-Type": "application/json"} if body else {}
    response = await admin.ask("POST", f"/v1/keys/{created['id']}/rotate", content=body, headers=headers)
    assert response.status_code == 200
    assert response.json()["secrets"][1]["expires_at"] is not None
