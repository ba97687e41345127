"""Grants: what users let apps do, and the tokens that come of it."""

from machpay_gateway.grants.consents import Consents
from machpay_gateway.grants.endings import Endings
from machpay_gateway.grants.tokens import TokenAnswer, Tokens

__all__ = ["Consents", "Endings", "TokenAnswer", "Tokens"]
