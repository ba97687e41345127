from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.web.path import canonical_path


def as_served(target: str) -> dict[str, Any]:
    """Return the scope that servers make of *target*: the path decoded, broken UTF-8 as U+FFFD, and the raw bytes."""
    return {"path": unquote(target), "raw_path": target.encode("ascii"), "root_path": ""}


def canonical(scope: dict[str, Any]) -> str | None:
    return canonical_path(scope["path"], scope.get("raw_path"), scope.get("root_path"))


@pytest.mark.parametrize(
    "target, path",
    [
        ("/", "/"),
        ("/v1/skills", "/v1/skills"),
        ("/v1/skills/", "/v1/skills/"),
        ("/a%20b", "/a b"),
        ("/caf%C3%A9", "/café"),
        ("/caf%c3%a9", "/café"),  # escapes in any case
        ("/%F0%9F%94%91", "/🔑"),
        ("/%76%31/skills", "/v1/skills"),  # what needed no escape is what it says
        ("/a%3Fb", "/a?b"),
        ("/a%23b", "/a#b"),
        ("/a%3Bb", "/a;b"),
        ("/a;b=c/d", "/a;b=c/d"),
        ("/a+b", "/a+b"),  # a plus is no space in a path
        ("/a%2Bb", "/a+b"),
        ("/a%25b", "/a%b"),
        ("/a%25", "/a%"),
        ("/...", "/..."),
        ("/.well-known/jwks.json", "/.well-known/jwks.json"),
        ("/a..b/c.", "/a..b/c."),
        ("/..a/.b", "/..a/.b"),
        ("/a:b@c,d!$&'()*=~", "/a:b@c,d!$&'()*=~"),
        # Escaped twice is decoded once, as the application does: it sees the escape as text, and so do we.
        ("/a%252fb", "/a%2fb"),
        ("/%252e%252e/b", "/%2e%2e/b"),
        ("/a%2500", "/a%00"),
    ],
)
def test_an_unambiguous_path_equals_the_applications(target: str, path: str) -> None:
    assert canonical(as_served(target)) == path


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",  # OPTIONS *
        "v1/skills",
        "http://api.example.com/v1",
        "//",
        "//v1/skills",
        "/v1//skills",
        "/v1/skills//",
        "/a%2fb",
        "/a%2Fb",
        "/%2f",
        "/a/%2F/b",
        "/a%5cb",
        "/a%5Cb",
        "/a\\b",
        "/.",
        "/..",
        "/./a",
        "/a/./b",
        "/a/../b",
        "/a/..",
        "/a/.",
        "/%2e",
        "/%2e%2e/a",
        "/%2E%2E/a",
        "/.%2e/a",
        "/%2e./a",
        "/a/%2e%2e",
        "/a/%2e%2e%2fb",
        "/a/..;/b",  # a dot segment to servers that cut path parameters off
        "/a/..;x=1/b",
        "/a/.;/b",
        "/a/%2e%2e;/b",
        "/a/..%3b/b",
        "/..;",
        "/a/..%2fb",
        "/a/..%5cb",
        "/a%00",
        "/a%00b/c",
        "/a%0a",
        "/a%0D%0Ab",
        "/a%09b",
        "/a%1fb",
        "/a%7fb",
        "/a%1B[31m",
        "/%",
        "/%2",
        "/%zz",
        "/a%u002fb",
        "/a%%32fb",
        "/%ff",
        "/%ff%fe",
        "/%c0%af",  # an over-long slash
        "/%c0%ae%c0%ae/a",  # over-long dots
        "/%e0%80%af",
        "/%ed%a0%80",  # a lone surrogate
        "/caf%e9",  # Latin-1
        "/caf%c3",  # cut short
        "/%ef%bf%bd",  # U+FFFD itself cannot be told from what servers put for broken bytes
        "/a\x00b",
        "/a\nb",
        "/a\x7fb",
        "/a\tb",
    ],
)
def test_an_ambiguous_path_is_none(target: str) -> None:
    assert canonical(as_served(target)) is None


@pytest.mark.parametrize(
    "path, raw_path, root_path, expected",
    [
        ("/app/v1/x", b"/app/v1/x", "/app", "/v1/x"),  # a mount: the application routes by what follows
        ("/app", b"/app", "/app", "/"),
        ("/app/", b"/app/", "/app", "/"),
        ("/apple/x", b"/apple/x", "/app", None),  # a prefix of a name: Quart takes it off, Starlette does not
        ("/x/app/y", b"/x/app/y", "/app", None),  # Litestar takes the mount off wherever it stands
        ("v1/x", b"v1/x", "/app", None),  # without its slash, as h11 lets it through
        ("/v1/x", b"/v1/x", "/", "/v1/x"),
        ("/app/v1/x", b"/app/v1/x", "/app/", "/v1/x"),
        ("/v1/x", b"/v1/x", "/app", "/v1/x"),  # a server that leaves the mount out of the path
        ("/app/a b", b"/app/a%20b", "/app", "/a b"),
        ("/app/a b", b"/a%20b", "/app", "/a b"),  # or out of the raw path only
        ("/a b", b"/app/a%20b", "/app", "/a b"),
        ("/app/app/x", b"/app/app/x", "/app", "/app/x"),  # a mount is taken off once
        ("/app//x", b"/app//x", "/app", None),
        ("/app/../x", b"/app/../x", "/app", None),
        ("/app/%2fx", b"/app/%252fx", "/app", "/%2fx"),
        ("/app//x", b"/app/%2fx", "/app", None),
        ("/v1/x", b"", "", "/v1/x"),  # a server that tells no raw path
        ("/v1/x", None, None, "/v1/x"),
        ("/café", None, None, "/café"),
        ("/a\x00", None, None, None),
        ("/caf\ufffd", None, None, None),
        ("/a//b", None, None, None),
        ("/a b", b"/a%20b?q=%2f", "", "/a b"),  # a server that leaves the query on the raw path
        ("/x y", b"/v1/x%20y", "", "/x y"),  # a proxy application in front that stripped a prefix
        ("/v1/x y", b"/x%20y", "", "/v1/x y"),  # or put one in front
        ("/x y", b"/v1/x%20z", "", None),  # but what follows must be the same
        ("/admin", b"/%70ublic", "", None),
        ("/public", b"/%61dmin", "", None),
        ("/a/b", b"/a%2fb", "", None),  # a slash that a server decoded
        ("/caf\udce9", b"/caf%e9", "", None),  # surrogates for broken bytes, as some servers do
        ("/cafÃ©", b"/caf%C3%A9", "", None),  # a server that decoded Latin-1
        ("/café", "/café".encode(), "", None),  # bytes that should have been escaped
        ("/a", b"/a\xff%41", "", None),
    ],
)
def test_mount_points_and_stripped_prefixes_are_handled(
    path: str, raw_path: bytes | None, root_path: str | None, expected: str | None
) -> None:
    scope: dict[str, Any] = {"path": path}
    if raw_path is not None:
        scope["raw_path"] = raw_path
    if root_path is not None:
        scope["root_path"] = root_path
    assert canonical(scope) == expected


PIECES = ["a", "/", ".", "..", ";", "%2e", "%2F", "%5c", "%25", "2f", "%00", "%c3%a9", "%ff", "%", "\\", "\x7f", "v1"]


@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_canonical_paths_are_unambiguous(pieces: list[str]) -> None:
    target = "/" + "".join(pieces)
    path = canonical(as_served(target))
    if path is None:
        return
    assert path == unquote(target, errors="strict")
    assert path.count("/") == target.count("/")
    assert "" not in path.removesuffix("/").split("/")[1:]
    assert not {segment.split(";")[0] for segment in path.split("/")} & {".", ".."}
    assert not set(path) & {"\\", "\x00", "\x7f", "\ufffd"}


@given(st.text(max_size=30), st.binary(max_size=30), st.sampled_from(["", "/app", "/", "app"]))
def test_no_scope_makes_it_raise(path: str, raw_path: bytes, root_path: str) -> None:
    result = canonical({"path": path, "raw_path": raw_path, "root_path": root_path})
    assert result is None or result.startswith("/")
