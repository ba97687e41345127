"""`client.skills`: what can be executed."""

from collections.abc import Mapping
from typing import Unpack

from machpay._async.listing import listing  # async only
from machpay._async.page import AsyncPage, fetch_page
from machpay._async.transport import AsyncTransport
from machpay._call import Call, CallOptions, ChangeOptions, json_of
from machpay._parsing import parse_object
from machpay._skill import Execution, Skill, execution_from, skill_from


class AsyncSkills:
    """List skills, and execute them."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def execute(
        self,
        *,
        skill_id: str,
        input: Mapping[str, object],  # noqa: A002 - the name in the API
        **options: Unpack[ChangeOptions],
    ) -> Execution:
        """Execute a skill, and return its `.output`."""
        body = json_of({"skill_id": skill_id, "input": input})
        call = Call("POST", "/v1/skills/execute", body=body).using(options)
        return parse_object(await self._transport.send(call), execution_from)

    @listing  # async only
    async def list(self, **options: Unpack[CallOptions]) -> AsyncPage[Skill]:
        """List the skills that the credential has access to."""
        return await fetch_page(self._transport, Call("GET", "/v1/skills").using(options), skill_from)
