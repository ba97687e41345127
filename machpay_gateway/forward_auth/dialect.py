"""How each proxy sends check requests, and which responses it can pass on: one table."""

from dataclasses import dataclass, replace
from http import HTTPStatus

import orjson

from machpay_gateway.core.decision.problem import Problem

PATH_PREFIX = "/authorize/"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one proxy sends check requests. *method* and *target* are the headers (lower case) with its client's.

    Without them, the check request has the client's method, and its path after our prefix. Instead of *target* the
    proxy may send the whole URL in the header *url*. *passes_any_status* says whether the proxy passes a refusal to its
    client unchanged.
    """

    path: str
    method: bytes | None = None
    target: bytes | None = None
    url: bytes | None = None
    passes_any_status: bool = True

    def adapt(self, problem: Problem) -> Problem:
        """Return *problem* with a status that this proxy passes on."""
        if self.passes_any_status:
            return problem
        # nginx turns any other status into a 500, and drops the body; its configuration restores both from the headers.
        is_passed = problem.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        return replace(
            problem,
            status=problem.status if is_passed else int(HTTPStatus.FORBIDDEN),
            headers=(
                *problem.headers,
                (b"x-machpay-status", b"%d" % problem.status),
                (b"x-machpay-problem", orjson.dumps(problem.body)),
            ),
        )


DIALECTS = (
    # `auth_request` as its documentation has it, and as ingress-nginx writes it for the annotation `auth-url`.
    Dialect(PATH_PREFIX + "nginx", b"x-original-method", b"x-original-uri", b"x-original-url", passes_any_status=False),
    Dialect(PATH_PREFIX + "traefik", b"x-forwarded-method", b"x-forwarded-uri"),
    Dialect(PATH_PREFIX + "caddy", b"x-forwarded-method", b"x-forwarded-uri"),
    Dialect(PATH_PREFIX + "envoy"),
)


def dialect_for(path: str) -> Dialect | None:
    """Return the dialect of check requests at *path*, None if it is not a path for them.

    Paths that merely begin like one count too: an application that responds 200 to any path would allow everything.
    """
    if not path.startswith(PATH_PREFIX):
        return None
    return next((dialect for dialect in DIALECTS if path.startswith(dialect.path)), None)
