"""The OpenAPI 3.1 document of the key API, generated from the table of operations and the types it names."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from inspect import getdoc
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from machpay_gateway.admin import leaks
from machpay_gateway.admin.idempotency import HEADER, MAX_LENGTH
from machpay_gateway.admin.operations import DESCRIPTION_PATH, OPERATIONS, Operation
from machpay_gateway.admin.responses import ProblemDocument
from machpay_gateway.core.accounts.management import Manager, Role, may_manage
from machpay_gateway.core.api_problems import API_PROBLEMS
from machpay_gateway.core.brand import MACHPAY, Brand
from machpay_gateway.core.decision.credential_settings import CredentialSettings
from machpay_gateway.core.decision.problem import PROBLEMS
from machpay_gateway.core.decision.reason import PROXY_REASONS, Reason

VERSION = "1"
_CREDENTIALS = CredentialSettings()
_REF = "#/components/schemas/{model}"
_IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Identifies the request: a retry within 24 hours gets the same response and has no further effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_LENGTH, "pattern": "^[ -~]+$"},
}
_REPLAYED = {"description": "`true` if the response is that of an earlier request.", "schema": {"type": "string"}}
_TOKEN = Manager("session", role=Role.TOKEN)
# The problems of MachPayAuth, which responds before any operation runs.
_REFUSALS = [str(reason) for reason in Reason if reason not in {Reason.ROUTE_NOT_FOUND, *PROXY_REASONS}]
# A code that is in both tables has the same status in both.
_STATUSES = {str(reason): row.status for reason, row in PROBLEMS.items()} | {
    code: int(status) for code, (status, _, _) in API_PROBLEMS.items()
}


def openapi_document(
    scopes: Sequence[str],
    *,
    takes_reports: bool = False,
    credentials: CredentialSettings = _CREDENTIALS,
    brand: Brand = MACHPAY,
) -> dict[str, Any]:
    """Return the document of a gateway whose keys may hold *scopes*, with the secrets of *brand*.

    It reads *credentials* so. *takes_reports* adds the endpoint for leaks.
    """
    security_schemes = dict(_security_schemes(credentials))
    schemas = _schemas()
    for model in ("NewKey", "NewClient"):
        schemas[model]["properties"]["scopes"]["examples"] = [list(scopes[:2])]
    schemas["IssuedKey"]["properties"]["secret"]["pattern"] = f"^{brand.prefix}_(live|test)_"
    schemas["IssuedClient"]["properties"]["client_secret"]["anyOf"][0]["pattern"] = f"^cs_{brand.tag}_"
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    paths[DESCRIPTION_PATH] = {"get": _openapi_operation()}
    if takes_reports:
        paths[leaks.PATH] = {"post": _leak_report_operation()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{brand.name} keys",
            "version": VERSION,
            "description": "API keys: create, scope, restrict, rotate, revoke. Apps that act for users, and grants.",
        },
        "security": [{name: []} for name in security_schemes],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": security_schemes},
    }


def _security_schemes(credentials: CredentialSettings) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield each place for credentials, any one of which is enough."""
    if credentials.takes_authorization:
        yield "bearer", {"type": "http", "scheme": "bearer"}
    for number, name in enumerate(credentials.other_headers, start=1):
        yield "header" if number == 1 else f"header{number}", {"type": "apiKey", "in": "header", "name": name}
    if credentials.query is not None:
        yield "query", {"type": "apiKey", "in": "query", "name": credentials.query}


def _operation(operation: Operation) -> dict[str, Any]:
    description: dict[str, Any] = {
        "operationId": operation.name,
        "summary": getdoc(operation.run),
        "parameters": list(_parameters(operation)),
        "responses": {str(operation.status): _success(operation)} | dict(_problems(operation)),
    }
    needs = [f"Needs the scope `{operation.scopes}`."] if operation.scopes else []
    if operation.action is not None and may_manage(_TOKEN, operation.action):
        needs.append("Only for API keys themselves: not for sessions or OAuth access tokens.")
    if needs:
        description["description"] = " ".join(needs)
    if operation.body is not None:
        is_required = bool(operation.body.model_json_schema().get("required"))
        description["requestBody"] = {"required": is_required, "content": {"application/json": _schema(operation.body)}}
    return description


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
        yield _IDEMPOTENCY_KEY
    if "precondition_failed" in operation.problems:
        yield {
            "name": "If-Match",
            "in": "header",
            "required": False,
            "description": f"An ETag: nothing is changed if the {operation.about} has another version by now "
            "(RFC 9110 §13.1.1).",
            "schema": {"type": "string"},
        }


def _success(operation: Operation) -> dict[str, Any]:
    etag = {"description": f"The {operation.about}'s version, for If-Match.", "schema": {"type": "string"}}
    location = {"description": f"The URL of the {operation.about}.", "schema": {"type": "string"}}
    headers = {
        "ETag": etag if operation.has_etag else None,
        # Without a tag, it cannot be retrieved.
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
    """Yield the status and the response of each possible problem. Codes with the same status share a response."""
    codes = ["invalid_fields", "unavailable", "not_permitted", *operation.problems]
    if operation.body is not None:
        codes += ["malformed_body", "body_too_large", "unsupported_media_type"]
    yield from _problem_responses([*_REFUSALS, *codes])


def _problem_responses(codes: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(_STATUSES[code], []).append(code)
    for status, same_status in sorted(by_status.items()):
        names = ", ".join(f"`{code}`" for code in sorted(set(same_status)))
        yield str(status), {"description": names, "content": {"application/problem+json": _schema(ProblemDocument)}}


def _openapi_operation() -> dict[str, Any]:
    return {
        "operationId": "describe",
        "summary": "This document.",
        "security": [],
        "responses": {
            "200": {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}}
        },
    }


def _leak_report_operation() -> dict[str, Any]:
    texts = {name: {"type": "string"} for name in ("token", "type", "url", "source")}
    match = {"type": "object", "properties": texts}
    verdict = {"enum": ["true_positive", "false_positive"]}
    members = {"token_hash": {"type": "string"}, "token_type": {"type": "string"}, "label": verdict}
    feedback = {"type": "object", "properties": members, "required": list(members)}
    return {
        "operationId": "reportLeaks",
        "summary": "Report leaked secrets, as GitHub's secret scanning does.",
        "description": "Signed with a key of the configured scanner.",
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
                "description": "For each secret, identified by its SHA-256 digest, whether it was issued here.",
                "content": {"application/json": {"schema": {"type": "array", "items": feedback}}},
            },
            **dict(_problem_responses([*leaks.PROBLEMS, str(Reason.MALFORMED_REQUEST)])),
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
    """Return the *schema* of a query parameter, which can be left out but has no way to be null."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
    return {name: part for name, part in schema.items() if name != "anyOf"} | kinds[0] if kinds else schema


def _plain(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Return *schema* without pydantic's titles and null defaults, and with the schema names of OpenAPI."""
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
