"""The authorization server over HTTP: pages for users, endpoints for apps."""

from machpay_gateway.extras import require_extra

require_extra("oauth", "The authorization server")
