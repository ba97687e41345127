"""Names follow the project's vocabulary."""

import ast
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "machpay_gateway"
CLIENT = ROOT / "clients" / "python" / "src" / "machpay"

# These words say nothing about a value. A name is what the value is, such as a record, a match or a message.
BANNED = frozenset(
    {
        "told", "asked", "asking", "found", "known", "kept", "heard", "said", "whoever", "noted", "judged", "learnt",
        "begun", "carriage", "carrying", "carried", "unsettled",
    }
)  # fmt: skip
# A grant is what a user allows an OAuth client. A limiter admits a request.
NO_GRANTS = ("gate.py", "middleware.py", "core/decision", "core/limits", "limiters", "proxy")
GRANTS = frozenset({"grant", "granted"})


def modules(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*.py")) if "migrations/versions" not in path.as_posix()]


def names_in(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and text of each identifier in *path*, without underscores at its ends."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type == tokenize.NAME:
                yield token.start[0], token.string.strip("_")


def identifiers(paths: list[Path], names: frozenset[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line}: {name}" for path in paths for line, name in names_in(path) if name in names
    ]


@pytest.mark.parametrize("root", [PACKAGE, CLIENT], ids=["gateway", "client"])
def test_each_class_name_is_used_once(root: Path) -> None:
    places = defaultdict(list)
    for path in modules(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(path.relative_to(root).as_posix())
    assert places
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_identifier_is_a_banned_word() -> None:
    assert identifiers(modules(PACKAGE), BANNED) == []


def test_a_grant_is_only_what_a_user_allows_an_oauth_client() -> None:
    paths = [
        path
        for place in NO_GRANTS
        for path in ([PACKAGE / place] if place.endswith(".py") else modules(PACKAGE / place))
    ]
    assert paths
    assert identifiers(paths, GRANTS) == []
