"""The key API as an ASGI application. It trusts what MachPayAuth in front of it put into the scope, nothing else."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
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
from machpay_gateway.admin.openapi import description
from machpay_gateway.admin.operations import DESCRIPTION_PATH, OPERATIONS, Operation
from machpay_gateway.admin.problems import ProblemError, problem_response
from machpay_gateway.admin.request import AdminRequest
from machpay_gateway.admin.request_body import body_bytes, read_query
from machpay_gateway.core.accounts.management import may_manage
from machpay_gateway.core.errors import InputError, NotPermitted, StateError, StoreUnavailable
from machpay_gateway.gateway import Gateway
from machpay_gateway.web.incoming import facts_of


def key_api(gateway: Gateway, *, clock: Callable[[], float] = time.time) -> Starlette:
    """Return the application that serves `OPERATIONS` by *gateway*. *clock* is in seconds since the epoch."""
    by_path: dict[str, dict[str, Operation]] = defaultdict(dict)
    for operation in OPERATIONS:
        by_path[operation.path][operation.method] = operation
    routes = [
        Route(path, _endpoint(gateway, operations, clock), methods=list(operations))
        for path, operations in by_path.items()
    ]
    app = Starlette(
        routes=[
            *routes,
            Route(DESCRIPTION_PATH, _describing(gateway)),
            Route(LEAKS_PATH, leaks_endpoint(gateway, clock), methods=["POST"]),
        ],
        exception_handlers={ProblemError: _problem, HTTPException: _unrouted},
    )
    app.router.redirect_slashes = False  # a trailing slash is another path, and there is nothing at it
    return app


def _endpoint(gateway: Gateway, operations: Mapping[str, Operation], clock: Callable[[], float]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        body = b"" if operation.body is None else await body_bytes(request)
        asked = read_query(request.query_params, operation.query)  # where there is none, too: the unknown is refused
        return await _answered(
            operation, AdminRequest(gateway, request, caller_of(request.scope), asked, body, clock())
        )

    return endpoint


async def _answered(operation: Operation, call: AdminRequest) -> Response:
    # First, so that a caller who may never do this learns nothing of records, or of answers that were stored.
    if operation.action is not None and (refusal := may_manage(call.caller.actor, operation.action)):
        raise ProblemError(refusal.code, refusal.detail)
    try:
        return await operation.run(call)
    except NotPermitted as exc:
        raise ProblemError("not_permitted", str(exc)) from exc
    except StateError as exc:
        raise ProblemError("conflict", str(exc)) from exc
    except InputError as exc:
        raise ProblemError("invalid_fields", str(exc)) from exc
    except StoreUnavailable as exc:
        raise ProblemError("unavailable", "The database did not answer.") from exc


def _describing(gateway: Gateway) -> Endpoint:
    @cache
    def described() -> bytes:  # when it is asked for: it takes longer than all else at the start, and few processes are
        return orjson.dumps(description(gateway.policy.scopes, takes_reports=gateway.reports is not None))

    async def describe(_request: Request) -> Response:
        return Response(described(), headers=NO_STORE, media_type="application/json")

    return describe


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - Starlette calls this for nothing else
    return problem_response(error, facts_of(request.scope).request_id)


async def _unrouted(request: Request, error: Exception) -> Response:
    """Answer where no operation is: 404, or 405 with the methods that there are (RFC 9110 §15.5.6)."""
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
        return await _problem(request, ProblemError("not_found", "There is nothing at this path."))
    response = await _problem(request, ProblemError("method_not_allowed", "See the Allow header."))
    response.headers.update(error.headers or {})
    return response
