"""JSON Web Tokens and keys (RFC 7515 to 7519): what is verified, and what is signed."""
