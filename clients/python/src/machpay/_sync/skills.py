"""`client.skills`: what can be executed.

Generated from `_async` by generate.py: edit it there.
"""

from collections.abc import Mapping

from machpay._call import Call, json_of
from machpay._parsing import parse_object
from machpay._skill import Execution, Skill, execution_from, skill_from
from machpay._sync.page import Page, fetch_page
from machpay._sync.transport import Transport


class Skills:
    """List skills, and execute them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def execute(
        self,
        *,
        skill_id: str,
        input: Mapping[str, object],  # noqa: A002 - the name in the API
        idempotency_key: str | None = None,
    ) -> Execution:
        """Execute a skill, and return its `.output`."""
        body = json_of({"skill_id": skill_id, "input": input})
        call = Call("POST", "/v1/skills/execute", body=body, idempotency_key=idempotency_key)
        return parse_object(self._transport.send(call), execution_from)

    def list(self) -> Page[Skill]:
        """List the skills that the credential has access to."""
        return fetch_page(self._transport, Call("GET", "/v1/skills"), skill_from)
