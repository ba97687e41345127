"""The cached bytecode of test modules, in which pytest has rewritten the assertions."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from _pytest.assertion.rewrite import PYC_TAIL, _read_pyc, _rewrite_test, _write_pyc, assertstate_key, get_cache_dir

_TESTS = Path(__file__).parent


def cache_share(config: pytest.Config) -> None:
    """Write the caches of this process's share of the modules, where they are missing.

    Rewriting all modules takes 5 s. Processes that start together would each do it, module by module.
    """
    share, shares = (os.environ.get(f"PYTEST_XDIST_WORKER{suffix}") for suffix in ("", "_COUNT"))
    if share is None or shares is None or sys.dont_write_bytecode:
        return
    for path in sorted(_TESTS.rglob("test_*.py"))[int(share.removeprefix("gw")) :: int(shares)]:
        with suppress(SyntaxError, OSError):  # collecting the module reports the one, and bears the other
            _cache(path, config)


def _cache(path: Path, config: pytest.Config) -> None:
    state = config.stash[assertstate_key]
    pyc = get_cache_dir(path) / f"{path.stem}{PYC_TAIL}"
    if _read_pyc(path, pyc) is None:
        pyc.parent.mkdir(exist_ok=True)
        source, code = _rewrite_test(path, config)
        _write_pyc(state, code, source, pyc)
