"""Keys and what they verify and sign: issuers' and our own tokens, reports of leaks, assertions; custom credentials."""
