"""OAuth (RFC 6749, OAuth 2.1): records and rules of the authorization server. No I/O, no clock."""
