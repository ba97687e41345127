"""The key API as an ASGI application. It trusts only what the MachPayAuth in front of it adds to the scope."""

import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from http import HTTPStatus

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from machpay_gateway.admin.caller import caller_of
from machpay_gateway.admin.documents import NO_STORE
from machpay_gateway.admin.leaks import PATH as LEAKS_PATH
from machpay_gateway.admin.leaks import Endpoint, leaks_endpoint
from machpay_gateway.admin.openapi import openapi_document
from machpay_gateway.admin.operations import DESCRIPTION_PATH, OPERATIONS, Operation
from machpay_gateway.admin.problems import ProblemError, problem_response
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.request_body import parse_query, read_body
from machpay_gateway.core.accounts.management import may_manage
from machpay_gateway.core.brand import Brand
from machpay_gateway.core.errors import InputError, KeyLimitReached, NotPermitted, StateError, StoreUnavailable
from machpay_gateway.gateway import Gateway
from machpay_gateway.web.request_facts import facts_of

ExceptionHandler = Callable[[Request, Exception], Awaitable[Response]]


def key_api(gateway: Gateway, *, clock: Callable[[], float] = time.time) -> Starlette:
    """Return the application that serves `OPERATIONS` with *gateway*. *clock* is in seconds since the epoch."""
    by_path: dict[str, dict[str, Operation]] = defaultdict(dict)
    for operation in OPERATIONS:
        by_path[operation.path][operation.method] = operation
    problem_handler = _problem_handler(gateway.brand)
    routes = [
        Route(path, _endpoint(gateway, operations, clock), methods=list(operations))
        for path, operations in by_path.items()
    ]
    app = Starlette(
        routes=[
            *routes,
            Route(DESCRIPTION_PATH, _openapi_endpoint(gateway)),
            Route(LEAKS_PATH, leaks_endpoint(gateway, clock), methods=["POST"]),
        ],
        exception_handlers={ProblemError: problem_handler, HTTPException: _routing_handler(problem_handler)},
    )
    app.router.redirect_slashes = False  # a path with a trailing slash is a different path
    return app


def _endpoint(gateway: Gateway, operations: Mapping[str, Operation], clock: Callable[[], float]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        body = b"" if operation.body is None else await read_body(request)
        query = parse_query(request.query_params, operation.query)  # also for NoQuery, which refuses any parameter
        return await _run(operation, AdminRequest(gateway, request, caller_of(request.scope), query, body, clock()))

    return endpoint


async def _run(operation: Operation, call: AdminRequest) -> Response:
    # First, so that a caller without permission learns nothing about records or stored responses.
    if operation.action is not None and (refusal := may_manage(call.caller.actor, operation.action)):
        raise ProblemError(refusal.code, refusal.detail)
    try:
        return await operation.run(call)
    except NotPermitted as exc:
        raise ProblemError("not_permitted", str(exc)) from exc
    except KeyLimitReached as exc:
        raise ProblemError("key_limit_reached", str(exc)) from exc
    except StateError as exc:
        raise ProblemError("conflict", str(exc)) from exc
    except InputError as exc:
        raise ProblemError("invalid_fields", str(exc)) from exc
    except StoreUnavailable as exc:
        raise ProblemError("unavailable", "The database did not answer.") from exc


def _openapi_endpoint(gateway: Gateway) -> Endpoint:
    @cache
    def document() -> bytes:  # at the first request: building it takes longer than the rest of the start
        takes_reports, credentials = gateway.reports is not None, gateway.settings.credentials
        return orjson.dumps(
            openapi_document(
                tuple(gateway.scopes), takes_reports=takes_reports, credentials=credentials, brand=gateway.brand
            )
        )

    async def describe(_request: Request) -> Response:
        return Response(document(), headers=NO_STORE, media_type="application/json")

    return describe


def _problem_handler(brand: Brand) -> ExceptionHandler:
    async def handle(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)  # noqa: S101 - Starlette calls it for no other class
        return problem_response(error, facts_of(request.scope).request_id, brand)

    return handle


def _routing_handler(problem_handler: ExceptionHandler) -> ExceptionHandler:
    """Return the handler of 404 for an unknown path, and 405 with the methods that the path has (RFC 9110 §15.5.6)."""

    async def handle(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - as above
        if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
            return await problem_handler(request, ProblemError("not_found", "There is nothing at this path."))
        response = await problem_handler(request, ProblemError("method_not_allowed", "See the Allow header."))
        response.headers.update(error.headers or {})
        return response

    return handle
