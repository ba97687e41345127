"""Services: groups of upstreams, by environment, with settings of their own."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from machpay_gateway.core.network.upstream import Upstream

ENVIRONMENT_OF = {"live": "live", "sandbox": "test"}  # by upstream


@dataclass(frozen=True, slots=True, eq=False)
class UpstreamService(Mapping[str, Upstream]):
    """A service: its upstreams, by `live` and `sandbox`, and its *options*, which override those of `[proxy]`.

    Credentials of an environment without an upstream are refused: there is no other server for them.
    """

    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Upstream:
        return self.upstreams[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.upstreams)

    def __len__(self) -> int:
        return len(self.upstreams)

    @property
    def environments(self) -> frozenset[str]:
        """The environments whose credentials it serves."""
        return frozenset(ENVIRONMENT_OF[name] for name in self.upstreams)
