"""The authorization server's parts, put together."""

import os
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from machpay_gateway.core.oauth.authority import Authority
from machpay_gateway.core.oauth.ports import OAuthStore
from machpay_gateway.grants import Consents, Endings, Tokens
from machpay_gateway.keysets import Proofs, SigningKeys

Announce = Callable[[str, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Issuing:
    """What issues tokens, by the settings of *authority*."""

    authority: Authority
    consents: Consents
    tokens: Tokens
    endings: Endings


def issuing_for(
    authority: Authority,
    store: OAuthStore,
    *,
    endings: Endings,
    signing: SigningKeys,
    proofs: Proofs,
    scopes: Collection[str],
    announce: Announce,
) -> Issuing:
    """Return what issues tokens of *authority*."""
    consents = Consents(store, clock=time.time, entropy=os.urandom, announce=announce)
    tokens = Tokens(
        store,
        authority=authority,
        consents=consents,
        endings=endings,
        signer=signing,
        proofs=proofs,
        scopes=scopes,
        clock=time.time,
        entropy=os.urandom,
    )
    return Issuing(authority, consents, tokens, endings)
