"""The authorization server's parts, put together."""

import os
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from machpay_gateway.core.oauth.ports import OAuthStore
from machpay_gateway.core.oauth.settings import OAuthSettings
from machpay_gateway.keysets import Proofs, SigningKeys
from machpay_gateway.services.consents import Consents
from machpay_gateway.services.revocation import Revocation
from machpay_gateway.services.token_issuance import TokenIssuance

Announce = Callable[[str, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Issuing:
    """What issues tokens, by the settings of *authority*."""

    authority: OAuthSettings
    consents: Consents
    tokens: TokenIssuance
    revocation: Revocation


def issuing_for(
    authority: OAuthSettings,
    store: OAuthStore,
    *,
    revocation: Revocation,
    signing: SigningKeys,
    proofs: Proofs,
    scopes: Collection[str],
    announce: Announce,
) -> Issuing:
    """Return what issues tokens of *authority*."""
    consents = Consents(store, clock=time.time, entropy=os.urandom, announce=announce)
    tokens = TokenIssuance(
        store,
        authority=authority,
        consents=consents,
        revocation=revocation,
        signer=signing,
        proofs=proofs,
        scopes=scopes,
        clock=time.time,
        entropy=os.urandom,
    )
    return Issuing(authority, consents, tokens, revocation)
