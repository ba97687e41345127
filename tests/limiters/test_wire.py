"""Commands are written here for speed; hiredis says what is right."""

import hiredis
from hypothesis import given
from hypothesis import strategies as st

from machpay_gateway.limiters.redis.scripts import Script
from machpay_gateway.limiters.redis.wire import Argument, bulk, command, numbers

ARGUMENTS = st.one_of(st.binary(max_size=40), st.text(st.characters(exclude_categories=["Cs"])), st.integers())


@given(st.lists(ARGUMENTS, min_size=1, max_size=20))
def test_a_command_is_written_as_hiredis_writes_it(arguments: list[Argument]) -> None:
    assert command(*arguments) == hiredis.pack_command(tuple(arguments))  # type: ignore[arg-type]  # of any mixture


@given(st.lists(st.integers(), min_size=1, max_size=4))
def test_numbers_that_are_remembered_are_written_the_same(values: list[int]) -> None:
    assert numbers(*values) == bulk(*values) == numbers(*values)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20), st.lists(ARGUMENTS, max_size=20))
def test_a_script_of_what_is_written_already_is_the_same_command(keys: list[bytes], arguments: list[Argument]) -> None:
    script = Script("return #KEYS")
    written = [bulk(key) for key in keys], [bulk(argument) for argument in arguments], len(arguments)

    assert script.written(*written) == command(*script.call(keys, arguments))
    assert script.written(*written, in_full=True) == command(*script.call_in_full(keys, arguments))
