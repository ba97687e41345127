"""From settings to parts that work together: the only place that picks adapters, and imports them only when used."""

from machpay_gateway.assembly.adapters import MEMORY_DATABASE, unservable
from machpay_gateway.assembly.gateway import Gateway, policy_for
from machpay_gateway.assembly.parts import OwnRoutes, Reports, oauth_of

__all__ = ["MEMORY_DATABASE", "Gateway", "OwnRoutes", "Reports", "oauth_of", "policy_for", "unservable"]
