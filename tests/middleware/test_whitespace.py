"""Whitespace around a header's value is no part of it (RFC 9110 §5.5), also where a server leaves it."""

import asyncio
from collections.abc import Iterator

import pytest

from machpay_gateway import Route
from machpay_gateway.server import create_app
from machpay_gateway.testing import create_key
from tests.applications import ok
from tests.servers import exchange, serving

Address = tuple[str, int]


@pytest.fixture(scope="module", params=["httptools", "h11"])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[str, Address]]:
    """A key, and an application with the key API and forward-auth, on uvicorn with either of its parsers."""
    app = create_app(
        ok,
        database="memory://",
        secret_key="secret of a test" * 2,
        routes=[Route("GET /v1/skills", scopes="skills:list")],
        trusted_proxies=["127.0.0.1"],
    )
    secret = asyncio.run(create_key(app.gateway, scopes="skills:list keys:manage"))
    with serving(app, http=request.param) as address:
        yield secret, address


def ask(address: Address, request: str, *fields: str) -> tuple[int, str]:
    """Return the status and the text of the response to *request*; a body follows the fields after an empty one."""
    lines = [f"{request} HTTP/1.1", "Host: a", "Connection: close", *fields]
    text = "\r\n".join([*lines, "", ""] if "" not in fields else lines)
    response = exchange(address, text.encode()).decode()
    return int(response.split(" ", 2)[1]), response


AROUND = [" Bearer {}", " Bearer {} ", "\tBearer {}\t", "Bearer {}", " bearer {}\t \t ", "   Bearer   {} "]


@pytest.mark.parametrize("around", AROUND)
def test_a_credential_is_read_without_it(served: tuple[str, Address], around: str) -> None:
    secret, address = served
    assert ask(address, "GET /v1/skills", f"Authorization:{around.format(secret)}")[0] == 200
    assert ask(address, "GET /v1/whoami", f"Authorization:{around.format(secret)}")[0] == 200
    checked = "X-Original-Method: GET \t", "X-Original-URI: /v1/skills \t", "X-Forwarded-For: 192.0.2.1 \t"
    assert ask(address, "GET /authorize/nginx", f"Authorization:{around.format(secret)}", *checked)[0] == 200


def test_the_other_values_are_read_without_it_too(served: tuple[str, Address]) -> None:
    secret, address = served
    bearer = f"Authorization: Bearer {secret}\t"
    _, response = ask(address, "GET /v1/skills", bearer, "X-Request-Id: of-the-proxy \t")
    assert "x-request-id: of-the-proxy\r\n" in response
    body = '{"name": "deploy", "environment": "live", "scopes": ["skills:list"]}'
    content = "Content-Type: application/json \t", f"Content-Length: {len(body)} ", "", body
    for name, expected in (("once", False), ("once \t", True)):
        status, response = ask(address, "POST /v1/keys", bearer, f"Idempotency-Key: {name}", *content)
        assert (status, "idempotent-replayed: true" in response) == (201, expected), response


@pytest.mark.parametrize("blank", ["", " ", "\t", " \t "])
def test_nothing_but_whitespace_is_no_credential(served: tuple[str, Address], blank: str) -> None:
    status, response = ask(served[1], "GET /v1/skills", f"Authorization:{blank}")
    assert (status, "missing_credentials" in response) == (401, True)
