"""Log lines of refused requests, with the reasons that callers do not get, and without credentials.

Anyone can be refused any number of times. So one line a minute is written for each reason and caller, with one caller
for all that are not identified. At level DEBUG, every refusal is written.
"""

import logging
import time
from collections.abc import Callable
from functools import partial

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.network.address import format_address_or_none
from machpay_gateway.core.text import mask_secrets
from machpay_gateway.log_throttle import LogThrottle, times

logger = logging.getLogger("machpay_gateway")

_REFUSED = "request %s refused: %s (%s); method=%r path=%r route=%r key=%r address=%s"


class RefusalLog:
    """Logs refusals at level INFO."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Log nothing yet. *clock* is in seconds of a monotonic clock."""
        self._throttle = LogThrottle(logger, clock=clock)

    def add(self, facts: RequestFacts, denied: Denied) -> None:
        """Log that the request with these *facts* is *denied*, or count it."""
        if logger.isEnabledFor(logging.DEBUG):
            _write(facts, denied, 1)
        elif logger.isEnabledFor(logging.INFO):
            caller = denied.principal.id if denied.principal else None
            self._throttle.add((denied.reason, denied.detail, caller), partial(_write, facts, denied))


def _write(facts: RequestFacts, denied: Denied, count: int) -> None:
    members = {
        "request_id": facts.request_id.decode(),
        "reason": str(denied.reason),
        "detail": denied.detail,
        "method": mask_secrets(facts.method),
        "path": None if facts.path is None else mask_secrets(facts.path),  # secrets also occur in paths
        "route": denied.route.match if denied.route else None,
        "key": denied.principal.id if denied.principal else None,
        "address": format_address_or_none(facts.address),
    }
    line = f"{_REFUSED}{times(count)}"
    logger.info(line, *members.values(), extra=members | {"count": count})
