import datetime as dt
from typing import Any

import machpay
import pytest

from tests.sdk.conftest import Twin
from tests.sdk.issuing import jwt
from tests.sdk.scripted import SECRET, Reply

TOKEN = jwt({"sub": "key_1"})
SESSION: dict[str, Any] = {
    "object": "session",
    "id": "session_1",
    "token": TOKEN,
    "token_type": "Bearer",
    "expires_in": 900,
    "expires_at": "2026-11-24T14:15:00Z",
    "scopes": ["skills:execute"],
}


@pytest.mark.parametrize(
    "given, body",
    [
        ({}, {}),
        ({"scopes": ("skills:execute",), "ttl_seconds": 60}, {"scopes": ["skills:execute"], "ttl_seconds": 60}),
        ({"scopes": []}, {"scopes": []}),
    ],
)
async def test_a_session_is_requested_with_the_given_options(
    twin: Twin, given: dict[str, Any], body: dict[str, Any]
) -> None:
    twin.script.respond_with(Reply(201, SESSION))
    await twin.resolve(twin.client().sessions.create(**given, idempotency_key="login-17"))
    request = twin.script.last
    assert (request.method, request.path, request.json) == ("POST", "/v1/sessions", body)
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["idempotency-key"] == "login-17"


async def test_a_session_is_read_into_its_types_and_shows_no_token(twin: Twin) -> None:
    twin.script.respond_with(Reply(201, {**SESSION, "colour": "blue"}))
    session = await twin.resolve(twin.client().sessions.create())
    assert (session.id, session.token, session.token_type, session.expires_in) == ("session_1", TOKEN, "Bearer", 900)
    assert session.expires_at == dt.datetime(2026, 11, 24, 14, 15, tzinfo=dt.UTC)
    assert (session.scopes, dict(session.extra), session.request_id) == (
        ("skills:execute",),
        {"colour": "blue"},
        "req-1",
    )
    assert TOKEN not in f"{session!r} {session} {session.response!r}"
    assert repr(session).startswith(f"Session(token='…{TOKEN[-4:]}', id='session_1', token_type='Bearer'")


async def test_a_client_can_use_the_token_of_a_session(twin: Twin) -> None:
    twin.script.respond_with(Reply(201, {"token": TOKEN}))
    session = await twin.resolve(twin.client().sessions.create())
    await twin.resolve(twin.client(api_key=None, access_token=session.token).whoami())
    assert twin.script.last.headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_session_without_a_token_is_an_error(twin: Twin) -> None:
    twin.script.respond_with(Reply(201, {**SESSION, "token": None}))
    with pytest.raises(machpay.InvalidResponseError, match="token is missing"):
        await twin.resolve(twin.client().sessions.create())


async def test_scopes_of_a_session_are_a_list(twin: Twin) -> None:
    with pytest.raises(machpay.InvalidArgumentError, match=r"write scopes=\[…\]"):
        await twin.resolve(twin.client().sessions.create(scopes="skills:execute"))
    assert twin.script.requests == []
