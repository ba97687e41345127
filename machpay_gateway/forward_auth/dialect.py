"""How each proxy puts its question, and what it can be told: one table."""

from dataclasses import dataclass, replace
from http import HTTPStatus

import orjson

from machpay_gateway.core.decision.problem import Problem

PATH_PREFIX = "/authorize/"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one proxy asks. *method* and *target* are the headers, in lower case, with those of its client's request.

    Without them the question has both itself: its path is ours and then the client's. *passes_any_status* is whether
    the proxy hands a refusal on as it is.
    """

    path: str
    method: bytes | None = None
    target: bytes | None = None
    passes_any_status: bool = True

    def told(self, problem: Problem) -> Problem:
        """Return *problem* as this proxy can be told it."""
        if self.passes_any_status:
            return problem
        # nginx makes a 500 of what is neither of these, and drops the body; its configuration restores both.
        known = problem.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
        return replace(
            problem,
            status=problem.status if known else int(HTTPStatus.FORBIDDEN),
            headers=(
                *problem.headers,
                (b"x-machpay-status", b"%d" % problem.status),
                (b"x-machpay-problem", orjson.dumps(problem.body)),
            ),
        )


DIALECTS = (
    Dialect(PATH_PREFIX + "nginx", b"x-original-method", b"x-original-uri", passes_any_status=False),
    Dialect(PATH_PREFIX + "traefik", b"x-forwarded-method", b"x-forwarded-uri"),
    Dialect(PATH_PREFIX + "caddy", b"x-forwarded-method", b"x-forwarded-uri"),
    Dialect(PATH_PREFIX + "envoy"),
)


def dialect_for(path: str) -> Dialect | None:
    """Return whose questions come at *path*; None when it is no place to ask.

    All that begins like a place is one: an application that has an answer to everything would allow everything.
    """
    if not path.startswith(PATH_PREFIX):
        return None
    return next((dialect for dialect in DIALECTS if path.startswith(dialect.path)), None)
