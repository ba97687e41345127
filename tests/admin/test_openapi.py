"""The OpenAPI document matches the API."""

from typing import Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi import definitions

from machpay_gateway.admin.openapi import openapi_document, schema_name
from machpay_gateway.admin.operations import DESCRIPTION_PATH, OPERATIONS, Operation
from machpay_gateway.core.api_problems import API_PROBLEMS
from machpay_gateway.core.brand import Brand
from machpay_gateway.core.scopes import KNOWN_SCOPES
from tests.admin.conftest import Caller, in_memory, over
from tests.admin.test_accounts import BODIES

DOCUMENT = openapi_document(KNOWN_SCOPES)
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
of_every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


def described(operation: Operation) -> dict[str, Any]:
    documented: dict[str, Any] = DOCUMENT["paths"][operation.path][operation.method.lower()]
    return documented


def validator(schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """Return a validator for a *schema* of the document, including formats."""
    rooted = {"$ref": "#/$defs/checked", "components": DOCUMENT["components"], "$defs": {"checked": schema}}
    return jsonschema_rs.Draft202012Validator(rooted, validate_formats=True)


def test_it_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    definitions.OPENAPI_31_VALIDATOR.validate(DOCUMENT)
    for schema in SCHEMAS.values():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})


def test_it_describes_the_table_and_nothing_else() -> None:
    documented = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert documented == {(o.method, o.path) for o in OPERATIONS} | {("GET", DESCRIPTION_PATH)}
    names = [described(operation)["operationId"] for operation in OPERATIONS]
    assert names == [operation.name for operation in OPERATIONS]
    assert len(set(names)) == len(names)


@in_memory
async def test_the_document_is_public(admin: Caller) -> None:
    for secret in (None, admin.secret, "junk"):
        response = await admin.api.client(secret).get(DESCRIPTION_PATH)
        assert (response.status_code, response.json()) == (200, DOCUMENT)


@pytest.mark.parametrize(
    "schema, path, expected",
    [
        ("NewKey", "additionalProperties", False),
        ("NewKey", "required", ["name", "scopes"]),
        ("NewKey", "properties.name.minLength", 1),
        ("NewKey", "properties.name.maxLength", 100),
        ("NewKey", "properties.scopes.maxItems", 100),
        ("NewKey", "properties.scopes.uniqueItems", True),
        ("NewKey", "properties.scopes.items.maxLength", 128),
        ("NewKey", "properties.environment.anyOf.0.enum", ["live", "test"]),
        ("NewKey", "properties.allowed_ips.anyOf.0.maxItems", 1000),
        ("NewKey", "properties.expires_at.anyOf.0.format", "date-time"),
        ("NewKey", "properties.metadata.anyOf.0.maxProperties", 50),
        ("NewKey", "properties.metadata.anyOf.0.propertyNames.maxLength", 40),
        ("NewKey", "properties.metadata.anyOf.0.propertyNames.minLength", 1),
        ("NewKey", "properties.metadata.anyOf.0.additionalProperties.maxLength", 500),
        ("KeyChange", "additionalProperties", False),
        ("KeyChange", "required", None),
        ("KeyChange", "properties.name.maxLength", 100),
        ("KeyChange", "properties.scopes.maxItems", 100),
        ("KeyChange", "properties.allowed_ips.anyOf.0.maxItems", 1000),
        ("KeyChange", "properties.metadata.anyOf.0.maxProperties", 50),
        ("KeyChange", "properties.environment", None),
        ("Rotation", "properties.grace_seconds.minimum", 0),
        ("Rotation", "properties.grace_seconds.maximum", 604_800),
        ("Rotation", "properties.grace_seconds.default", 86_400),
        ("NoFields", "additionalProperties", False),
        ("Key", "properties.secret", None),
        ("IssuedKey", "properties.secret.pattern", "^sk_(live|test)_"),
        ("NewClient", "required", ["name", "scopes"]),
        ("NewClient", "properties.redirect_uris.anyOf.0.maxItems", 20),
        ("NewClient", "properties.redirect_uris.anyOf.0.items.maxLength", 2000),
        ("NewClient", "properties.require_pkce.default", True),
        ("ClientChange", "required", None),
        ("ClientChange", "properties.environment", None),
        ("ClientChange", "properties.public", None),
        ("ClientChange", "properties.require_pkce.default", None),
        ("OAuthClient", "properties.client_secret", None),
        ("IssuedClient", "properties.client_secret.anyOf.0.pattern", "^cs_mp1_"),
    ],
)
def test_every_limit_is_stated(schema: str, path: str, expected: object) -> None:
    value: Any = SCHEMAS[schema]
    for name in path.split("."):
        value = value[int(name)] if isinstance(value, list) else value.get(name)
        if value is None:
            break
        if isinstance(value, dict) and "$ref" in value:
            value = SCHEMAS[value["$ref"].rpartition("/")[2]]
    assert value == expected


@pytest.mark.parametrize(
    "name, place, expected",
    [
        ("listKeys", "limit", {"minimum": 1, "maximum": 100, "default": 20, "type": "integer"}),
        ("listChanges", "limit", {"minimum": 1, "maximum": 100, "default": 20, "type": "integer"}),
        ("listKeys", "status", {"enum": ["active", "expired", "revoked"]}),
        ("listKeys", "environment", {"enum": ["live", "test"]}),
        ("revokeKey", "self", {"type": "boolean", "default": False}),
        ("createKey", "Idempotency-Key", {"minLength": 1, "maxLength": 255}),
        ("rotateKey", "Idempotency-Key", {"minLength": 1, "maxLength": 255}),
        ("updateKey", "If-Match", {"type": "string"}),
        ("retrieveKey", "id", {"type": "string"}),
        ("listClients", "limit", {"minimum": 1, "maximum": 100, "default": 20, "type": "integer"}),
        ("listGrants", "limit", {"minimum": 1, "maximum": 100, "default": 20, "type": "integer"}),
        ("updateClient", "If-Match", {"type": "string"}),
        ("deleteClient", "If-Match", {"type": "string"}),
        ("retrieveClient", "id", {"type": "string", "pattern": "^app_[0-9A-Za-z]{1,58}$"}),
        ("revokeGrant", "id", {"type": "string", "pattern": "^grant_[0-9A-Za-z]{1,58}$"}),
    ],
)
def test_every_parameter_is_stated(name: str, place: str, expected: dict[str, Any]) -> None:
    operation = next(each for each in OPERATIONS if each.name == name)
    (schema,) = [each["schema"] for each in described(operation)["parameters"] if each["name"] == place]
    assert schema | expected == schema


@of_every_operation
def test_every_operation_states_its_scope_and_its_problems(operation: Operation) -> None:
    documented = described(operation)
    assert documented["summary"]
    assert (f"`{operation.scopes}`" in documented.get("description", "")) is bool(operation.scopes)
    responses = documented["responses"]
    assert {str(operation.status), "400", "401", "403", "422", "429", "503"} <= responses.keys()
    assert {str(int(API_PROBLEMS[code].status)) for code in operation.problems} <= responses.keys()
    assert ("413" in responses, "415" in responses) == (operation.body is not None,) * 2
    for status, response in responses.items():
        kind = "application/json" if status < "400" else "application/problem+json"
        assert list(response["content"]) == [kind]


@over(OPERATIONS)
async def test_every_response_matches_its_schema(admin: Caller, operation: Operation) -> None:
    created = await admin.created(expires_at="2099-01-01T00:00:00Z", metadata={"a": "b"}, allowed_ips=["::/0"])
    rotated = await admin.ask("POST", f"/v1/keys/{created['id']}/rotate", {})
    assert rotated.status_code == 200
    name = created["id"] if operation.about == "key" else (await admin.made(operation.about))[0]
    path, body = operation.path.format(id=name), BODIES.get(operation.name)
    responses = described(operation)["responses"]
    done = await admin.ask(operation.method, path, body)
    assert done.status_code == operation.status
    for response in (
        done,
        await admin.ask(operation.method, f"{path}?unknown=1", body),
        await admin.ask(operation.method, operation.path.format(id="none"), body),
        await admin.api.client(None).request(operation.method, path),
        await (await admin.api.caller(scopes=[])).ask(operation.method, path, body),
    ):
        media = responses[str(response.status_code)]["content"][response.headers["content-type"]]
        validator(media["schema"]).validate(response.json())
        assert response.status_code >= 400 or responses[str(response.status_code)]["headers"].keys() == {
            name for name in ("ETag", "Location") if name in response.headers
        } | ({"Idempotent-Replayed"} if operation.is_repeatable else set())


@pytest.mark.parametrize("model", [operation.response for operation in OPERATIONS], ids=lambda model: model.__name__)
def test_the_schema_of_a_response_refuses_another_one(model: type) -> None:
    assert not validator(SCHEMAS[schema_name(model.__name__)]).is_valid({"object": "nothing"})


def test_the_document_is_of_the_brand() -> None:
    document = openapi_document(KNOWN_SCOPES, brand=Brand(prefix="acme", tag="ac1", name="Acme"))
    schemas = document["components"]["schemas"]
    assert document["info"]["title"] == "Acme keys"
    assert schemas["IssuedKey"]["properties"]["secret"]["pattern"] == "^acme_(live|test)_"
    assert schemas["IssuedClient"]["properties"]["client_secret"]["anyOf"][0]["pattern"] == "^cs_ac1_"
