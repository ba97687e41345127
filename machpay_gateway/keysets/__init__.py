"""Verifying keys and what is signed by them: tokens of other issuers, and reports of leaked secrets."""

from machpay_gateway.keysets.issued import IssuedTokens
from machpay_gateway.keysets.reports import SignedReports

__all__ = ["IssuedTokens", "SignedReports"]
