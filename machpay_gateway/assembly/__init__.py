"""Builds gateways from settings: the only code that picks adapters, each imported only when it is used."""

from machpay_gateway.assembly.adapters import unservable
from machpay_gateway.assembly.gateway import ConfiguredGateway, policy_for, with_own_routes

__all__ = ["ConfiguredGateway", "policy_for", "unservable", "with_own_routes"]
