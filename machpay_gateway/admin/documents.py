"""Answers as responses: JSON that no cache keeps, and the entity tags of keys and clients."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orjson
from starlette.responses import Response

NO_STORE = {"Cache-Control": "no-store"}


def document_response(document: object, status: int = HTTPStatus.OK, **headers: str) -> Response:
    """Return *document* as JSON."""
    return Response(orjson.dumps(document), status, NO_STORE | headers, "application/json")


def key_response(document: Mapping[str, Any], version: int, status: int = HTTPStatus.OK, root: str = "") -> Response:
    """Return a key's *document* with its ETag, and where it is below the mount point *root* if it is new."""
    return _tagged(document, version, status, f"{root.rstrip('/')}/v1/keys")


def client_response(document: Mapping[str, Any], version: int, status: int = HTTPStatus.OK, root: str = "") -> Response:
    """Return a client's *document* as `key_response` does a key's."""
    return _tagged(document, version, status, f"{root.rstrip('/')}/v1/oauth/clients")


def _tagged(document: Mapping[str, Any], version: int, status: int, place: str) -> Response:
    location = {"Location": f"{quote(place)}/{document['id']}"} if status == HTTPStatus.CREATED else {}
    return document_response(document, status, ETag=f'"{version}"', **location)


def page_response(documents: Sequence[Mapping[str, Any]], limit: int) -> Response:
    """Return a page of *limit* documents; one more than that tells that there are more."""
    return document_response({"object": "list", "data": documents[:limit], "has_more": len(documents) > limit})
