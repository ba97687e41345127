"""`client.skills`: what can be executed."""

from collections.abc import Mapping

from machpay._async.listing import listing  # async only
from machpay._async.page import AsyncPage, fetch_page
from machpay._async.transport import AsyncTransport
from machpay._call import Call, json_of
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
        idempotency_key: str | None = None,
    ) -> Execution:
        """Execute a skill, and return its `.output`."""
        body = json_of({"skill_id": skill_id, "input": input})
        call = Call("POST", "/v1/skills/execute", body=body, idempotency_key=idempotency_key)
        return parse_object(await self._transport.send(call), execution_from)

    @listing  # async only
    async def list(self) -> AsyncPage[Skill]:
        """List the skills that the credential has access to."""
        return await fetch_page(self._transport, Call("GET", "/v1/skills"), skill_from)
