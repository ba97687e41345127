"""Keys and what they verify and sign: issuers' and our own tokens, reports of leaks, assertions; custom credentials."""

from machpay_gateway.keysets.assertions import SignedAssertions
from machpay_gateway.keysets.identified import IdentifiedCredentials
from machpay_gateway.keysets.issued import IssuedTokens
from machpay_gateway.keysets.own import OwnTokens
from machpay_gateway.keysets.proofs import Proofs
from machpay_gateway.keysets.reports import SignedReports
from machpay_gateway.keysets.signing import SigningKeys

__all__ = [
    "IdentifiedCredentials",
    "IssuedTokens",
    "OwnTokens",
    "Proofs",
    "SignedAssertions",
    "SignedReports",
    "SigningKeys",
]
