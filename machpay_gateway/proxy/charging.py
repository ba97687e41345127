"""Units that an upstream charges after the fact: `MachPay-Cost` in its response, which the caller never gets."""

import logging
import re

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.limits.admission import MAX_CHARGE, Admitted
from machpay_gateway.log_throttle import LogThrottle

logger = logging.getLogger("machpay_gateway")

_NUMBER = re.compile(rb"[0-9]{1,10}")


class Charging:
    """Charges what upstreams say a request cost beyond its route's cost. Mutable: it logs once a minute at most."""

    def __init__(self) -> None:
        self._throttle = LogThrottle(logger)  # an upstream that is wrong once is wrong with each response

    def charge(self, admission: Admitted | None, value: bytes, route: Route | None) -> None:
        """Take the units in *value* from the limits of *admission*; nothing for what is no number."""
        if _NUMBER.fullmatch(value) is None or int(value) > MAX_CHARGE:
            self._log(value, route)
        elif admission is not None and (units := int(value)):
            admission.charge(units)

    def _log(self, value: bytes, route: Route | None) -> None:
        self._throttle.log(
            logging.WARNING,
            "An upstream's MachPay-Cost is not a number from 0 to %d, and is ignored: %r in a response to %s.",
            MAX_CHARGE,
            value[:64].decode("latin-1"),
            "no route" if route is None else route.match,
        )
