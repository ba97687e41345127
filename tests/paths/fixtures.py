"""The servers that read paths each in its own way, one at a time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.forward_auth.proxies import KINDS
from tests.node import hindrance, installed
from tests.paths.upstreams import serving_files, serving_flask, serving_node
from tests.proxy.harness import Upstream

_NO_NODE = pytest.mark.skipif(bool(hindrance("paths are tried")), reason=hindrance("paths are tried"))
_NO_NGINX = pytest.mark.skipif(KINDS["nginx"].binary() is None, reason="there is no nginx")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("express", marks=_NO_NODE),
        pytest.param("koa", marks=_NO_NODE),
        "flask",
        pytest.param("nginx", marks=_NO_NGINX),
    ],
)
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    """A server with the handlers of the table."""
    with _serving(str(request.param), tmp_path_factory) as port:
        yield Upstream(port=port)


def _serving(kind: str, tmp_path_factory: pytest.TempPathFactory) -> AbstractContextManager[int]:
    if kind == "flask":
        return serving_flask()
    if kind == "nginx":
        return serving_files(tmp_path_factory.mktemp("nginx"), kind)
    return serving_node(installed(Path(__file__).with_name("node"), "paths-node", tmp_path_factory), kind)
