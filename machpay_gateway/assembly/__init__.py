"""Builds gateways from settings: the only code that picks adapters, each imported only when it is used."""

from machpay_gateway.assembly.adapters import unservable
from machpay_gateway.assembly.gateway import ConfiguredGateway, policy_for

__all__ = ["ConfiguredGateway", "policy_for", "unservable"]
