"""How the paths of a route are rewritten; what cannot be is said when the route is made."""

from typing import Any

import pytest

from machpay_gateway.core.decision.route import Route
from machpay_gateway.core.errors import ConfigurationError


@pytest.mark.parametrize(
    "match, options, message",
    [
        ("GET /a/{id}", {"strip_prefix": "/b"}, "strip_prefix '/b' is not how the route's path begins"),
        ("GET /a/{id}", {"strip_prefix": "/a/{id}"}, "is not the beginning of a path, such as"),
        ("GET /a/{id}", {"strip_prefix": "/a/1"}, "is not how the route's path begins"),
        ("GET /{rest:path}", {"strip_prefix": "/a"}, "is not how the route's path begins"),
        ("GET /a", {"strip_prefix": "/"}, "is not the beginning of a path"),
        ("GET /a", {"strip_prefix": "a"}, "is not the beginning of a path"),
        ("GET /a", {"add_prefix": "/b/../c"}, "is not the beginning of a path"),
        ("GET /a", {"add_prefix": "/b?c"}, "is not the beginning of a path"),
        ("GET /a", {"add_prefix": "/b//c"}, "is not the beginning of a path"),
        ("GET /a", {"add_prefix": 5}, "is not the beginning of a path"),
        ("GET /a", {"rewrite": "/b", "add_prefix": "/c"}, "rewrite replaces the whole path"),
        ("GET /a/{id}", {"rewrite": "/b/{name}"}, r"{name} is not a parameter of the route's path here; it has {id}"),
        ("GET /a/{rest:path}", {"rewrite": "/b/{rest}/c"}, "can only be the last segment"),
        ("GET /a/{rest:path}", {"rewrite": "/b/x{rest}"}, "can only be the last segment"),
        ("GET /a/{id}", {"rewrite": "/b/{id:path}"}, "is not a parameter of the route's path here"),
        ("GET /{id}/{id}", {"rewrite": "/b/{id}"}, "has {id} twice"),
        ("GET /a/{id}", {"rewrite": "/b/.{id}"}, "is not a path segment"),
        ("GET /a/{id}", {"rewrite": "/b/..{id}"}, "is not a path segment"),
        ("GET /a/{id}", {"rewrite": "/b/{id}?x"}, "is not a path segment"),
        ("GET /a/{id}", {"rewrite": "/b/{id"}, "is not a path segment"),
        ("GET /a/{id}", {"rewrite": "/b//{id}"}, "is not a path segment"),
        ("GET /a/{id}", {"rewrite": "/../{id}"}, "is not a path segment"),
        ("GET /a/{id}", {"rewrite": "b"}, "is not a path, such as"),
    ],
)
def test_what_cannot_be_a_path_is_refused(match: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Route(match, **options)


@pytest.mark.parametrize(
    "path, forwarded",
    [("/A/1", b"/A/1"), ("/a/1/2", b"/a/1/2"), ("/a", b"/a"), ("/b/1", b"/b/1"), ("/a/1//", b"/a/1//")],
)
def test_what_the_template_does_not_match_is_not_rewritten(path: str, forwarded: bytes) -> None:
    rewriting = Route("GET /a/{id}", strip_prefix="/a").rewriting
    assert rewriting is not None
    assert rewriting.apply(path, forwarded) is None
