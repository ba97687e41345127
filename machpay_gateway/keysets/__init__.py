"""Keys and what is signed by them: tokens of other issuers, reports of leaked secrets, and our own assertions."""

from machpay_gateway.keysets.assertions import SignedAssertions
from machpay_gateway.keysets.issued import IssuedTokens
from machpay_gateway.keysets.reports import SignedReports

__all__ = ["IssuedTokens", "SignedAssertions", "SignedReports"]
