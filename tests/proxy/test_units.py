"""Which responses of the proxy's own take units of the limit: the next response says how many are left."""

import asyncio
import re

import pytest

from machpay_gateway import Route
from machpay_gateway.core.limits.rate import Tier
from tests.proxy.harness import Client, Handler, Rig, Upstream, deaf, fields_of, proxied, request, status_of

_ROUTES = (
    Route("* /v1/small", scopes="skills:execute", proxy={"max_body_bytes": 10}),
    Route("* /v1/{rest:path}", scopes="skills:execute", proxy={"first_byte_seconds": 0.1, "connect_seconds": 0.1}),
)
_CHUNKED = "Transfer-Encoding: chunked"
_TIERS = {"standard": Tier("100/minute", 5)}


async def _left(client: Client, secret: str) -> int:
    """Return the units that are left after a request, which takes one itself."""
    await client.send(request("GET", "/v1/x", secret=secret))
    return _units(await client.head())


def _units(head: bytes) -> int:
    (field,) = fields_of(head)["ratelimit"]
    found = re.search(r'"minute";r=(\d+)', field)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize(
    "fields, body, status, taken",
    [
        (["Content-Length: 11"], b"01234567890", 413, 0),  # known from the head, before anything is taken
        (["Content-Length: 99999999999999"], b"", 413, 0),
        ([_CHUNKED], b"b\r\n01234567890\r\n0\r\n\r\n", 413, 1),  # known only after the admission
    ],
)
async def test_a_body_that_is_too_large_takes_a_unit_only_if_that_shows_after_the_admission(
    fields: list[str], body: bytes, status: int, taken: int
) -> None:
    async with Upstream() as upstream, proxied(upstream, routes=_ROUTES, tiers=_TIERS) as rig:
        secret = await rig.secret()
        async with rig.client() as client:
            before = await _left(client, secret)
        async with rig.client() as client:
            await client.send(request("POST", "/v1/small", *fields, body=body, secret=secret))
            assert (await client.answer())[0] == status
        async with rig.client() as client:
            assert before - await _left(client, secret) - 1 == taken
        assert rig.ended[1].outcome == "body_too_large"


@pytest.mark.parametrize(
    "fields, secret, status",
    [
        ([], "", 401),  # without a credential nobody learns of the route's limit
        ([], "sk_live_mp1_of_nobody", 401),
        (["Authorization: Bearer a", "Authorization: Bearer b"], "", 400),
    ],
)
async def test_a_bad_credential_is_refused_first_whatever_the_size_of_the_body(
    fields: list[str], secret: str, status: int
) -> None:
    async with Upstream() as upstream, proxied(upstream, routes=_ROUTES) as rig, rig.client() as client:
        await client.send(
            request("POST", "/v1/small", "Content-Length: 11", *fields, body=b"01234567890", secret=secret or None)
        )
        assert (await client.answer())[0] == status


async def test_guesses_with_large_bodies_are_counted_as_failures() -> None:
    async with Upstream() as upstream, proxied(upstream, routes=_ROUTES, failure_limit="3/minute") as rig:
        statuses = []
        for _ in range(5):
            async with rig.client() as client:
                await client.send(
                    request("POST", "/v1/small", "Content-Length: 11", body=b"01234567890", secret="sk_live_mp1_guess")
                )
                statuses.append((await client.answer())[0])
        assert statuses == [401, 401, 401, 429, 429]


async def test_a_scope_that_is_missing_is_refused_first_whatever_the_size_of_the_body() -> None:
    async with Upstream() as upstream, proxied(upstream, routes=_ROUTES) as rig, rig.client() as client:
        secret = await rig.secret(scopes=["skills:list"])
        await client.send(request("POST", "/v1/small", "Content-Length: 11", body=b"01234567890", secret=secret))
        assert (await client.answer())[0] == 403


async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


async def _broken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize("handler, status", [(_silent, 504), (_broken, 502)])
async def test_what_the_upstream_does_not_answer_keeps_its_unit(handler: Handler, status: int) -> None:
    async with Upstream(handler) as upstream, proxied(upstream, routes=_ROUTES, tiers=_TIERS) as rig:
        await _assert_each_takes_a_unit(rig, status)


async def test_an_upstream_that_cannot_be_reached_keeps_the_unit() -> None:
    with deaf() as upstream:
        async with proxied(upstream, routes=_ROUTES, tiers=_TIERS) as rig:
            await _assert_each_takes_a_unit(rig, 502)


async def _assert_each_takes_a_unit(rig: Rig, status: int) -> None:
    secret = await rig.secret()
    lefts = []
    for _ in range(2):
        async with rig.client() as client:
            await client.send(request("GET", "/v1/x", secret=secret))
            head = await client.head()
            assert status_of(head) == status
            lefts.append(_units(head))
    assert lefts == [99, 98]
