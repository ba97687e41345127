"""`client.skills`: what can be executed.

Generated from `_async` by generate.py: edit it there.
"""

from collections.abc import Mapping
from typing import Unpack

from machpay._call import Call, CallOptions, ChangeOptions, json_of
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
        **options: Unpack[ChangeOptions],
    ) -> Execution:
        """Execute a skill, and return its `.output`."""
        body = json_of({"skill_id": skill_id, "input": input})
        call = Call("POST", "/v1/skills/execute", body=body).using(options)
        return parse_object(self._transport.send(call), execution_from)

    def list(self, **options: Unpack[CallOptions]) -> Page[Skill]:
        """List the skills that the credential has access to."""
        return fetch_page(self._transport, Call("GET", "/v1/skills").using(options), skill_from)
