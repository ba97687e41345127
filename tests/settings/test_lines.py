import pytest

from machpay_gateway.settings.lines import SettingPath, line_of, lines_of

TEXT = """\
# a comment = not a key
database = "x"
  tiers.gold.rate = "1/minute"

[upstreams]   # a comment
live = "x"
"sand box" = 'y'

[ tiers . "silver" ]
rate = "2/minute"
'concurrency' = 3

[[routes]]
match = "GET /a"
scopes = [
    "a",
    "b",
]

[[ routes ]]
match = "GET /b"

[[routes]]
match = "GET /c"

[routes.limit]
rate = "3/minute"
"""


@pytest.mark.parametrize(
    "place, line",
    [
        (("database",), 2),
        (("tiers", "gold", "rate"), 3),
        (("upstreams",), 5),
        (("upstreams", "live"), 6),
        (("upstreams", "sand box"), 7),
        (("tiers", "silver"), 9),
        (("tiers", "silver", "rate"), 10),
        (("tiers", "silver", "concurrency"), 11),
        (("routes", 0), 13),
        (("routes", 0, "match"), 14),
        (("routes", 1), 20),
        (("routes", 1, "match"), 21),
        (("routes", 2, "match"), 24),
        (("routes", 2, "limit"), 26),
        (("routes", 2, "limit", "rate"), 27),
        (("routes",), 13),
        # What has no line of its own is told by the closest thing around it.
        (("routes", 0, "scopes", 1), 15),
        (("routes", 2, "cost"), 23),
        (("upstreams", "live", 0), 6),
        (("unknown",), 1),
        ((), 1),
    ],
)
def test_each_place_has_the_line_it_is_written_on(place: SettingPath, line: int) -> None:
    assert line_of(lines_of(TEXT), place) == line


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing", "= 1", "[", "[[x]", "\x00"])
def test_what_names_nothing_has_no_lines(text: str) -> None:
    assert line_of(lines_of(text), ("database",)) == 1


def test_lines_end_where_toml_ends_them_and_not_at_other_breaks() -> None:
    # A form feed or U+2028 in a comment is no line end to TOML nor to editors.
    text = "# a\u2028b\x0cc\ndatabase = 'x'\r\nredis = 'y'\n"
    assert (line_of(lines_of(text), ("database",)), line_of(lines_of(text), ("redis",))) == (2, 3)
