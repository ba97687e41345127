"""What the log says of a refusal: all that its caller is not told, and nothing that was presented."""

import logging

from machpay_gateway.core.decision.decision import Denied
from machpay_gateway.core.decision.request_facts import RequestFacts
from machpay_gateway.core.network.address import format_address_or_none
from machpay_gateway.core.text import mask_secrets

logger = logging.getLogger("machpay_gateway")

_REFUSED = "request %s refused: %s (%s); method=%r path=%r route=%r key=%r address=%s"


def log_refusal(facts: RequestFacts, denied: Denied) -> None:
    """Say at level INFO who was refused what, and why."""
    if logger.isEnabledFor(logging.INFO):
        said = {
            "request_id": facts.request_id.decode(),
            "reason": str(denied.reason),
            "detail": denied.detail,
            "method": mask_secrets(facts.method),
            "path": None if facts.path is None else mask_secrets(facts.path),  # people put secrets into paths, too
            "route": denied.route.match if denied.route else None,
            "key": denied.principal.id if denied.principal else None,
            "address": format_address_or_none(facts.address),
        }
        logger.info(_REFUSED, *said.values(), extra=said)
