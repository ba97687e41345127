"""What OpenAPI says about the members of JSON documents, as annotations of their types."""

from collections.abc import Callable
from typing import Annotated, Any


class JsonSchema:
    """Keywords of JSON Schema for a type: `Annotated[int, JsonSchema(minimum=0)]`.

    Pydantic calls the method of an annotation by its name, so that documents are declared without importing pydantic.
    """

    def __init__(self, **keywords: object) -> None:
        self._keywords = keywords

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Callable[[Any], Any]) -> dict[str, Any]:  # noqa: ANN401 - pydantic's types
        return {**handler(core_schema), **self._keywords}


Timestamp = Annotated[str, JsonSchema(format="date-time")]  # RFC 3339, as `core.text.format_moment` writes it
Count = Annotated[int, JsonSchema(minimum=0)]
