"""Names and lines of text follow the project's vocabulary."""

import ast
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "machpay_gateway"
CLIENT = ROOT / "clients" / "python" / "src" / "machpay"
MAX_COLUMNS = 120

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
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "clients").glob("*/README.md")),
]


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


def prose_lines(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of *page* outside of code blocks and tables, with their numbers."""
    is_code = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith("|"):
            yield number, line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_prose_wraps(page: Path) -> None:
    lines = [(number, re.sub(r"\]\([^)]*\)|https?://\S+", "", line)) for number, line in prose_lines(page)]
    assert lines
    assert [number for number, line in lines if len(line) > MAX_COLUMNS] == []
