"""The values of members that have few. A newer server may send others."""

from typing import Literal

Environment = Literal["live", "test"]
KeyStatus = Literal["active", "expired", "revoked"]
GrantStatus = Literal["active", "ended"]
GrantType = Literal["authorization_code", "refresh_token", "client_credentials"]
CredentialKind = Literal["api_key", "session", "oauth", "jwt", "custom"]
UsageBucket = Literal["minute", "hour", "day"]
