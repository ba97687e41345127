"""Skills and their executions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from machpay._parsing import ObjectParser, optional_text, text
from machpay._response import Response
from machpay._result import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill(Result):
    """Something that can be executed."""

    id: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution(Result):
    """The result of a skill. *output* is any JSON value."""

    skill_id: str | None = None
    output: Any = field(default=None, hash=False)


def skill_from(members: Mapping[str, object], response: Response) -> Skill:
    """Return one of the skills in *response*."""
    parser = ObjectParser(members)
    return Skill(
        id=parser.required("id", text), name=parser.optional("name", text, ""), extra=parser.rest(), response=response
    )


def execution_from(members: Mapping[str, object], response: Response) -> Execution:
    """Return the execution in *response*."""
    parser = ObjectParser(members)
    return Execution(
        skill_id=parser.optional("skill_id", optional_text, None),
        output=parser.optional("output", _anything, None),
        extra=parser.rest(),
        response=response,
    )


def _anything(value: object) -> object:
    return value
