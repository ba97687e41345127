"""Skills, and what executing one brings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from machpay._reading import Members, optional_text, text
from machpay._received import Received
from machpay._response import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Skill(Received):
    """Something that can be executed."""

    id: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution(Received):
    """The outcome of a skill. *output* is whatever JSON the skill answers with."""

    skill_id: str | None = None
    output: Any = None


def skill_from(members: Mapping[str, object], response: Response) -> Skill:
    """Return one of the skills in *response*."""
    of = Members(members)
    return Skill(id=of.required("id", text), name=of.optional("name", text, ""), extra=of.rest(), response=response)


def execution_from(members: Mapping[str, object], response: Response) -> Execution:
    """Return the execution that *response* tells of."""
    of = Members(members)
    return Execution(
        skill_id=of.optional("skill_id", optional_text, None),
        output=of.optional("output", _anything, None),
        extra=of.rest(),
        response=response,
    )


def _anything(value: object) -> object:
    return value
