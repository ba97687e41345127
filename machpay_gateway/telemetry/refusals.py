"""What the log says of a refusal: all that its caller is not told, and nothing that was presented."""

import logging

from machpay_gateway.core.address import format_address_or_none
from machpay_gateway.core.decision import Denied
from machpay_gateway.core.facts import RequestFacts
from machpay_gateway.core.input import masked

logger = logging.getLogger("machpay_gateway")


def log_refusal(facts: RequestFacts, denied: Denied) -> None:
    """Say at level INFO who was refused what, and why."""
    if logger.isEnabledFor(logging.INFO):
        logger.info(
            "request %s refused: %s (%s); method=%r path=%r route=%r key=%r address=%s",
            facts.request_id.decode(),
            denied.reason,
            denied.detail,
            masked(facts.method),
            None if facts.path is None else masked(facts.path),  # people put secrets into paths, too
            denied.route.match if denied.route else None,
            denied.principal.id if denied.principal else None,
            format_address_or_none(facts.address),
        )
