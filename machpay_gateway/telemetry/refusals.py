"""Log lines of refused requests, with the reasons that callers do not get, and without credentials."""

import logging

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.network.address import format_address_or_none
from machpay_gateway.core.text import mask_secrets

logger = logging.getLogger("machpay_gateway")

_REFUSED = "request %s refused: %s (%s); method=%r path=%r route=%r key=%r address=%s"


def log_refusal(facts: RequestFacts, denied: Denied) -> None:
    """Log the refusal at level INFO."""
    if logger.isEnabledFor(logging.INFO):
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
        logger.info(_REFUSED, *members.values(), extra=members)
