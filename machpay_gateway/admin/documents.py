"""HTTP responses with JSON documents: never cached, and with entity tags for keys and OAuth clients."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson
from starlette.responses import Response

NO_STORE = {"Cache-Control": "no-store"}


def document_response(document: object, status: int = HTTPStatus.OK, **headers: str) -> Response:
    """Return a response with *document* as JSON."""
    return Response(orjson.dumps(document), status, NO_STORE | headers, "application/json")


def key_response(document: Mapping[str, Any], version: int, status: int = HTTPStatus.OK, root: str = "") -> Response:
    """Return a response with a key and its ETag; for a new key also its Location, below the mount point *root*."""
    return _tagged(document, version, status, f"{root.rstrip('/')}/v1/keys")


def client_response(document: Mapping[str, Any], version: int, status: int = HTTPStatus.OK, root: str = "") -> Response:
    """Return a response with an OAuth client, as `key_response` does for a key."""
    return _tagged(document, version, status, f"{root.rstrip('/')}/v1/oauth/clients")


def _tagged(document: Mapping[str, Any], version: int, status: int, collection: str) -> Response:
    location = {"Location": f"{quote(collection)}/{document['id']}"} if status == HTTPStatus.CREATED else {}
    return document_response(document, status, ETag=f'"{version}"', **location)


def page_response(documents: Sequence[Mapping[str, Any]], limit: int) -> Response:
    """Return a response with the first *limit* documents. `has_more` is true if there is another one."""
    return document_response({"object": "list", "data": documents[:limit], "has_more": len(documents) > limit})
