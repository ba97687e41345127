"""How many credentials a worker caches unless the settings say so."""

import os
from pathlib import Path

_SHARE = 0.05  # of the memory that the workers of a host have together
_ENTRY_BYTES = 4096  # of one credential, and what the limiter remembers of its subject
_LEAST, _MOST = 10_000, 1_000_000
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def default_cache_size(workers: int) -> int:
    """Return how many credentials one of *workers* caches by default."""
    size = int(_memory_bytes() * _SHARE / max(1, workers) / _ENTRY_BYTES)
    return min(max(size, _LEAST), _MOST)


def _memory_bytes() -> int:
    """Return the memory of this host, or of the container where that has less."""
    limits = [
        int(text)
        for path in map(Path, _CGROUP_LIMITS)
        if path.is_file() and (text := path.read_text()).strip().isdigit()
    ]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=0)
