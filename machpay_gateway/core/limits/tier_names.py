"""Names of tiers for people."""

from collections.abc import Collection


def describe_tier(tier: str, configured: Collection[str], *, is_own: bool = False) -> str:
    """Return *tier* for people, marked if it is not *configured*, or if it is a key's own and not the account's."""
    marks = [mark for mark, applies in (("own", is_own), ("unknown", tier not in configured)) if applies]
    return f"{tier} ({', '.join(marks)})" if marks else tier
