"""The digest of the policy: the same wherever requests are decided alike, and another one wherever they are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from machpay_gateway.settings import load_settings
from machpay_gateway.settings.digest import policy_digest

POLICY = """
database = "sqlite:///one.db"
scopes = ["a:read", "b:read"]
trusted_proxies = ["10.0.0.0/8"]
[[routes]]
match = "GET /v1/a"
scopes = "a:read | b:read"
environments = ["live", "test"]
limit = { rate = "5/minute" }
[tiers.pro]
rate = ["5/second", "100/minute"]
concurrency = 5
"""


def digest(text: str, folder: Path, **environ: str) -> str:
    (folder / "machpay.toml").write_text(text)
    return policy_digest(load_settings({"config": folder / "machpay.toml"}, environ))


@pytest.mark.parametrize(
    "old, new",
    [
        ("GET /v1/a", "GET /v1/b"),
        ("5/minute", "6/minute"),
        ("100/minute", "101/minute"),
        ("a:read | b:read", "a:read"),
        ('["live", "test"]', '["live"]'),
        ("10.0.0.0/8", "10.0.0.0/9"),
        ("[[routes]]", 'unlisted_routes = "deny"\n[[routes]]'),
    ],
)
def test_whatever_decides_changes_the_digest(old: str, new: str, tmp_path: Path) -> None:
    assert digest(POLICY, tmp_path) != digest(POLICY.replace(old, new, 1), tmp_path)


@pytest.mark.parametrize(
    "variable, value",
    [
        ("MACHPAY_DATABASE", "postgresql://other/host"),
        ("MACHPAY_REDIS", "redis://other"),
        ("MACHPAY_SECRET_KEY", "s" * 32),
        ("MACHPAY_SERVER__WORKERS", "4"),
        ("MACHPAY_SERVER__LISTEN", "0.0.0.0:80"),
        ("MACHPAY_UPSTREAMS__LIVE", "http://127.0.0.1:1"),
        ("MACHPAY_TRACES", "true"),
    ],
)
def test_what_is_secret_or_of_one_host_does_not(variable: str, value: str, tmp_path: Path) -> None:
    assert digest(POLICY, tmp_path) == digest(POLICY, tmp_path, **{variable: value})


def test_the_digest_is_the_same_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "machpay.toml").write_text(POLICY)
    program = (
        "from machpay_gateway.settings import load_settings\n"
        "from machpay_gateway.settings.digest import policy_digest\n"
        "print(policy_digest(load_settings({'config': 'machpay.toml'}, {})))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(digests) == 1
