"""The OpenAPI 3.1 document of the key API, made of the table of operations and of the types that validate."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from inspect import getdoc
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from machpay_gateway.admin import leaks
from machpay_gateway.admin.idempotency import HEADER, MAX_NAME
from machpay_gateway.admin.operations import DESCRIPTION_PATH, OPERATIONS, Operation
from machpay_gateway.admin.problems import CODES
from machpay_gateway.admin.responses import ProblemDocument
from machpay_gateway.core.accounts.management import Manager, Role, may_manage
from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.decision.reason import OF_THE_PROXY, Reason

VERSION = "1"
_REF = "#/components/schemas/{model}"
_REPEATABLE = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "A name for this request: sent again within 24 hours, it is answered as before and not done again.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": "^[ -~]+$"},
}
_REPLAYED = {"description": "`true` when the answer is one given before.", "schema": {"type": "string"}}
_TOKEN = Manager("session", role=Role.TOKEN)
# What MachPayAuth may answer before an operation is reached.
_REFUSALS = [str(reason) for reason in Reason if reason not in {Reason.ROUTE_NOT_FOUND, *OF_THE_PROXY}]
# A code that both may answer has the same status in either table.
_STATUSES = {str(reason): row.status for reason, row in PROBLEMS.items()} | {
    code: int(status) for code, (status, _) in CODES.items()
}


def description(scopes: Sequence[str], *, takes_reports: bool = False) -> dict[str, Any]:
    """Return the document for a gateway whose keys may hold *scopes*, and that *takes_reports* of leaks or does not."""
    schemas = _schemas()
    for model in ("NewKey", "NewClient"):
        schemas[model]["properties"]["scopes"]["examples"] = [list(scopes[:2])]
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    paths[DESCRIPTION_PATH] = {"get": _self_description()}
    if takes_reports:
        paths[leaks.PATH] = {"post": _leak_report()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MachPay keys",
            "version": VERSION,
            "description": "API keys: create, scope, restrict, rotate, revoke. Apps that act for users, and their end.",
        },
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": operation.name,
        "summary": getdoc(operation.run),
        "parameters": list(_parameters(operation)),
        "responses": {str(operation.status): _answer(operation)} | dict(_problems(operation)),
    }
    needs = [f"Needs the scope `{operation.scopes}`."] if operation.scopes else []
    if operation.action is not None and may_manage(_TOKEN, operation.action):
        needs.append("By an API key itself only: not by a session or an OAuth access token.")
    if needs:
        told["description"] = " ".join(needs)
    if operation.body is not None:
        is_required = bool(operation.body.model_json_schema().get("required"))
        told["requestBody"] = {"required": is_required, "content": {"application/json": _schema(operation.body)}}
    return told


def _parameters(operation: Operation) -> Iterator[Mapping[str, Any]]:
    if "{id}" in operation.path:
        yield {
            "name": "id",
            "in": "path",
            "required": True,
            "description": f"The id of {_a(operation.about)}.",
            "schema": {"type": "string", "pattern": f"^{operation.about}_[0-9A-Za-z]{{1,58}}$"},
        }
    for name, schema in _plain(operation.query.model_json_schema())["properties"].items():
        yield {"name": name, "in": "query", "required": False, "schema": _without_null(schema)}
    if operation.is_repeatable:
        yield _REPEATABLE
    if "precondition_failed" in operation.problems:
        yield {
            "name": "If-Match",
            "in": "header",
            "required": False,
            "description": f"An ETag: nothing is changed when the {operation.about} is another version by now "
            "(RFC 9110 §13.1.1).",
            "schema": {"type": "string"},
        }


def _answer(operation: Operation) -> dict[str, Any]:
    etag = {"description": f"The {operation.about}'s version, for If-Match.", "schema": {"type": "string"}}
    location = {"description": f"Where the {operation.about} is.", "schema": {"type": "string"}}
    headers = {
        "ETag": etag if operation.has_etag else None,
        # What has a tag is there to be read again.
        "Location": location if operation.status == HTTPStatus.CREATED and operation.has_etag else None,
        "Idempotent-Replayed": _REPLAYED if operation.is_repeatable else None,
    }
    return {
        "description": getdoc(operation.response),
        "headers": {name: header for name, header in headers.items() if header is not None},
        "content": {"application/json": _schema(operation.response)},
    }


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _problems(operation: Operation) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield status and response for everything that can go wrong; codes of one status are told together."""
    codes = ["invalid_fields", "unavailable", "not_permitted", *operation.problems]
    if operation.body is not None:
        codes += ["malformed_body", "body_too_large", "unsupported_media_type"]
    yield from _told([*_REFUSALS, *codes])


def _told(codes: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(_STATUSES[code], []).append(code)
    for status, told in sorted(by_status.items()):
        names = ", ".join(f"`{code}`" for code in sorted(set(told)))
        yield str(status), {"description": names, "content": {"application/problem+json": _schema(ProblemDocument)}}


def _self_description() -> dict[str, Any]:
    return {
        "operationId": "describe",
        "summary": "This document.",
        "security": [],
        "responses": {
            "200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}}
        },
    }


def _leak_report() -> dict[str, Any]:
    texts = {name: {"type": "string"} for name in ("token", "type", "url", "source")}
    match = {"type": "object", "properties": texts}
    verdict = {"enum": ["true_positive", "false_positive"]}
    told = {"token_hash": {"type": "string"}, "token_type": {"type": "string"}, "label": verdict}
    feedback = {"type": "object", "properties": told, "required": list(told)}
    return {
        "operationId": "reportLeaks",
        "summary": "Report leaked secrets, as GitHub's secret scanning does.",
        "description": "Signed by a key of the scanner that is configured.",
        "security": [],
        "parameters": [
            {"name": name, "in": "header", "required": True, "schema": {"type": "string"}}
            for name in (leaks.KEY_ID, leaks.SIGNATURE)
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "array", "items": match}}},
        },
        "responses": {
            "200": {
                "description": "Of each secret, by its SHA-256, whether it is one of ours.",
                "content": {"application/json": {"schema": {"type": "array", "items": feedback}}},
            },
            **dict(_told([*leaks.PROBLEMS, str(Reason.MALFORMED_REQUEST)])),
        },
    }


def _schema(model: type) -> dict[str, Any]:
    return {"schema": {"$ref": _REF.format(model=schema_name(model.__name__))}}


def schema_name(type_name: str) -> str:
    """Return the name in OpenAPI of the schema that is generated from a type: `Key` from `KeyDocument`."""
    return type_name if type_name == ProblemDocument.__name__ else type_name.removesuffix("Document")


def _schemas() -> dict[str, Any]:
    bodies = {operation.body for operation in OPERATIONS if operation.body is not None}
    documents = {operation.response for operation in OPERATIONS} | {ProblemDocument}
    _, schema = TypeAdapter.json_schemas(
        [*_adapters(bodies, "validation"), *_adapters(documents, "serialization")], ref_template=_REF
    )
    return {schema_name(name): _plain(each) for name, each in schema["$defs"].items()}


def _adapters(types: Iterable[type], mode: JsonSchemaMode) -> Iterator[tuple[type, JsonSchemaMode, TypeAdapter[Any]]]:
    for each in sorted(types, key=lambda each: each.__name__):
        yield each, mode, TypeAdapter(each)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the *schema* of a parameter: a query can leave it out, and has no way to say null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    return {name: part for name, part in schema.items() if name != "anyOf"} | kinds[0] if kinds else schema


def _plain(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Return *schema* without what pydantic adds for itself: titles, and null as the default of what is left out."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    is_property = "type" in schema or "anyOf" in schema or "$ref" in schema
    dropped = {"title"} if is_property and isinstance(schema.get("title"), str) else set()
    if is_property and "default" in schema and schema["default"] is None:
        dropped.add("default")
    members = {name: _plain(each) for name, each in schema.items() if name not in dropped}
    if isinstance(schema.get("$ref"), str):
        members["$ref"] = _REF.format(model=schema_name(schema["$ref"].rpartition("/")[2]))
    return members
