import click
import pytest

from machpay_gateway.cli.values import Duration, split_names


@pytest.mark.parametrize(
    "text, seconds", [("30s", 30), ("15m", 900), ("12h", 43_200), ("90d", 7_776_000), ("2w", 1_209_600), ("0", 0)]
)
def test_a_duration_is_in_seconds(text: str, seconds: int) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "d", "90", "-1d", "1.5h", "1d12h", "1y", " 1d", "1D", "٣d", "1" * 10 + "s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration"):
        Duration().convert(text, None, None)


@pytest.mark.parametrize(
    "values, names",
    [
        ((), ()),
        (("a:b", "c:d"), ("a:b", "c:d")),
        (("a:b,c:d", "a:b, e:f"), ("a:b", "c:d", "e:f")),  # once each, as the guide writes lists
        ((" , ",), ()),
    ],
)
def test_lists_may_be_repeated_or_separated(values: tuple[str, ...], names: tuple[str, ...]) -> None:
    command = click.Command("x")
    assert split_names(click.Context(command), click.Option(["--scope"]), values) == names
