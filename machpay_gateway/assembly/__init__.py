"""Builds gateways from settings: the only code that picks adapters, each imported only when it is used."""

from machpay_gateway.assembly.adapters import MEMORY_DATABASE, unservable
from machpay_gateway.assembly.gateway import ConfiguredGateway, policy_for
from machpay_gateway.assembly.parts import oauth_of

__all__ = ["MEMORY_DATABASE", "ConfiguredGateway", "oauth_of", "policy_for", "unservable"]
